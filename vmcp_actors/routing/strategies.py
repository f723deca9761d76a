"""What happens when several backends offer the same name. Pure: claims in, advertised names out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from attrs import frozen

from ..errors import UnresolvedConflicts
from ..settings import AggregationSettings
from .names import distinct_name, safe_name

FALLBACK_PREFIX = "{workload}_"


@frozen(order=True)
class Claim:
    """A backend's claim to a name: its own name for the thing, and the name after overrides."""

    backend: str
    original: str
    name: str


@frozen
class Assignment:
    """Who is advertised under which name, and how many claims had to give way to another."""

    names: Mapping[Claim, str]
    conflicts: int


def assign_names(claims: Sequence[Claim], settings: AggregationSettings) -> Assignment:
    """Give every claim a name of its own. Nothing is lost, and the order of the claims does not matter.

    Raises:
        UnresolvedConflicts: strategy `manual`, and some names are claimed twice.
    """
    ordered = sorted(claims)
    if settings.strategy == "prefix":
        undisputed = {claim: prefixed(settings.prefix_format, claim) for claim in ordered}
    else:
        undisputed = {claim: claim.name for claim in ordered}
    wanted = undisputed
    if settings.strategy == "priority":
        wanted = _by_priority(ordered, settings.priority_order)
    elif settings.strategy == "manual":
        _refuse_clashes(ordered)
    names = _make_distinct(wanted)
    return Assignment(names, sum(names[claim] != safe_name(name) for claim, name in undisputed.items()))


def prefixed(prefix_format: str, claim: Claim) -> str:
    """The name with the backend's prefix."""
    return prefix_format.replace("{workload}", claim.backend) + claim.name


def _by_priority(claims: Sequence[Claim], order: Sequence[str]) -> dict[Claim, str]:
    """The backend that comes first in the order keeps the bare name; the others stay reachable under a prefixed one."""
    rank = {backend: position for position, backend in enumerate(order)}
    wanted: dict[Claim, str] = {}
    for name, claimants in _by_name(claims).items():
        ranked = [claim for claim in claimants if claim.backend in rank]
        winner = min(ranked, key=lambda claim: rank[claim.backend]) if ranked else None
        if len(claimants) == 1:
            winner = claimants[0]
        for claim in claimants:
            wanted[claim] = name if claim is winner else prefixed(FALLBACK_PREFIX, claim)
    return wanted


def _refuse_clashes(claims: Sequence[Claim]) -> None:
    clashes = {
        name: [claim.backend for claim in claimants]
        for name, claimants in _by_name(claims).items()
        if len(claimants) > 1
    }
    if clashes:
        raise UnresolvedConflicts(clashes)


def _by_name(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    by_name: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_name[claim.name].append(claim)
    return by_name


def _make_distinct(wanted: Mapping[Claim, str]) -> dict[Claim, str]:
    """See clashes that are left for what they are (`a_` + `b` and `a` + `_b`): the first keeps the name.

    Bare names come before prefixed ones, so that a prefixed loser never takes the name of a tool that nobody disputes.
    """
    names: dict[Claim, str] = {}
    taken: set[str] = set()
    for claim, name in sorted(wanted.items(), key=lambda item: (item[1] != item[0].name, item[0])):
        advertised = safe_name(name)
        if advertised in taken:
            advertised = distinct_name(name, claim.backend, claim.original)
            while advertised in taken:
                # Only if a backend names a tool like another's suffixed name; the chain is deterministic as well.
                advertised = distinct_name(advertised, claim.backend, claim.original + "\0" + advertised)
        taken.add(advertised)
        names[claim] = advertised
    return names
