"""ToolHive's keys that nothing here reads yet: those about who may do what are refused, the others are set aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import outgoing
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
    """A copy of `tree` without the keys about authentication, and what in them cannot be had yet.

    Headers that `outgoingAuth` asks for are with their backends then.
    """
    problems = list(_incoming(tree.get("incomingAuth")))
    tree, refused = outgoing.inject(tree)
    problems += refused
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
