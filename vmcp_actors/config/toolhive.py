"""ToolHive's keys that nothing here reads yet: those about who may do what are refused, the others are set aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .problems import Path, Problem, kind, show, unknown_key

EACH = "*"
"""Stands for every element of a list."""

IGNORED: dict[Path, frozenset[str]] = {
    (): frozenset(("compositeTools", "compositeToolRefs", "metadata", "telemetry", "audit", "optimizer"))
    | frozenset(("codeMode", "sessionStorage", "rateLimiting", "passthroughHeaders")),
    ("operational",): frozenset(("logLevel",)),
    ("operational", "failureHandling"): frozenset(("statusReportingInterval",)),
    ("aggregation", "tools", EACH): frozenset(("toolConfigRef",)),
    ("backends", EACH): frozenset(("metadata", "type", "caBundlePath")),
}
AUTH_KEYS = ("incomingAuth", "outgoingAuth", "authServerConfig")


def set_aside(tree: Any) -> tuple[Any, list[Path]]:
    """A copy of `tree` without the keys that are ignored, and where those were."""
    found: list[Path] = []
    for place, keys in IGNORED.items():
        tree = _without(tree, place, keys, (), found)
    return tree, found


def without_auth(tree: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """A copy of `tree` without the keys about authentication, and what in them asks for more than nothing."""
    problems = [*_incoming(tree.get("incomingAuth")), *_outgoing(tree.get("outgoingAuth"), tree.get("backends"))]
    if tree.get("authServerConfig") is not None:
        problems.append(Problem(("authServerConfig",), "an authorization server is not supported yet"))
    return {key: value for key, value in tree.items() if key not in AUTH_KEYS}, problems


def _without(tree: Any, place: Path, keys: frozenset[str], path: Path, found: list[Path]) -> Any:
    if place and place[0] == EACH and isinstance(tree, list):
        return [_without(item, place[1:], keys, (*path, index), found) for index, item in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    if not place:
        found.extend((*path, key) for key in tree if key in keys)
        return {key: value for key, value in tree.items() if key not in keys}
    step = place[0]
    if step not in tree:
        return tree
    return {**tree, step: _without(tree[step], place[1:], keys, (*path, step), found)}


def _incoming(section: Any) -> Iterator[Problem]:
    path: Path = ("incomingAuth",)
    if section is None:
        return
    if not isinstance(section, dict):
        yield Problem(path, f"expected a mapping, got {kind(section)}")
        return
    if section.get("type") is None:
        yield Problem((*path, "type"), "missing; anonymous is the only one supported yet")
    for key, value in section.items():
        if key == "type" and value not in (None, "anonymous"):
            yield Problem((*path, key), f"anonymous is the only one supported yet, got {show(value)}")
        elif key == "oidc" and value is not None:
            yield Problem((*path, key), "authentication of clients is not supported yet")
        elif key == "authz" and value is not None and value != {"type": "none"}:
            yield Problem((*path, key), "authorization is not supported yet")
        elif key not in ("type", "oidc", "authz"):
            yield unknown_key((*path, key), ("type", "oidc", "authz"))


def _outgoing(section: Any, backends: Any) -> Iterator[Problem]:
    path: Path = ("outgoingAuth",)
    if section is None:
        return
    if not isinstance(section, dict):
        yield Problem(path, f"expected a mapping, got {kind(section)}")
        return
    for key, value in section.items():
        if key == "source":
            yield from _source((*path, key), value, backends)
        elif key == "default":
            yield from _strategy((*path, key), value)
        elif key == "backends":
            yield from _strategies((*path, key), value)
        else:
            yield unknown_key((*path, key), ("source", "default", "backends"))


def _source(path: Path, value: Any, backends: Any) -> Iterator[Problem]:
    if value == "discovered" and not backends:
        yield Problem(path, "'discovered' looks for backends in Kubernetes, which is not supported; list them")
    elif value not in (None, "", "inline", "discovered"):
        yield Problem(path, f"expected inline or discovered, got {show(value)}")


def _strategies(path: Path, section: Any) -> Iterator[Problem]:
    if isinstance(section, dict):
        for name, strategy in section.items():
            yield from _strategy((*path, name), strategy)
    elif section is not None:
        yield Problem(path, f"expected a mapping, got {kind(section)}")


def _strategy(path: Path, strategy: Any) -> Iterator[Problem]:
    if strategy is None:
        return
    if not isinstance(strategy, dict):
        yield Problem(path, f"expected a mapping, got {kind(strategy)}")
        return
    type_ = strategy.get("type")
    if type_ != "unauthenticated":
        text = "authentication to backends is not supported yet, only unauthenticated"
        yield Problem((*path, "type"), f"{text}; got {show(type_)}")
        return
    for key, value in strategy.items():
        if key != "type" and value is not None:
            yield Problem((*path, key), "has no meaning for unauthenticated")
