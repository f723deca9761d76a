"""What must hold between keys. Works on the plain values, so that one mistake elsewhere does not hide another here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .problems import Path, Problem, Unresolved, show

_HTTP_KEYS = ("url", "headers", "headersFrom")
_STDIO_KEYS = ("command", "args", "env", "cwd")
_STDIO_ONLY = "only a backend with transport stdio has this"


def backend_names(tree: dict[str, Any]) -> frozenset[str] | None:
    """The names that `backends` gives; None when not all of them can be told."""
    backends = tree.get("backends")
    if not isinstance(backends, list):
        return None
    names = [mapping(backend).get("name") for backend in backends]
    if any(not isinstance(name, str) or isinstance(name, Unresolved) for name in names):
        return None
    return frozenset(str(name) for name in names)


def relations(tree: dict[str, Any]) -> Iterator[Problem]:
    """All that is wrong between keys, whether or not the values themselves are right."""
    backends = items(tree.get("backends"))
    for index, backend in enumerate(backends):
        yield from _shape(("backends", index), mapping(backend))
    yield from _unique(_named(("backends",), backends, "name"), "a backend")
    aggregation = mapping(tree.get("aggregation"))
    for section in ("tools", "resources", "prompts"):
        places = _named(("aggregation", section), items(aggregation.get(section)), "workload")
        yield from _unique(places, "an entry for")
    yield from _priority(aggregation, len(backends))


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _shape(path: Path, backend: dict[str, Any]) -> Iterator[Problem]:
    present = [key for key, value in backend.items() if value is not None]
    match backend.get("transport"):
        case "stdio":
            if "command" not in present:
                yield Problem((*path, "command"), "missing; transport stdio starts a command")
            for key in present:
                if key in _HTTP_KEYS:
                    yield Problem((*path, key), "a backend with transport stdio has a command, not this")
        case "streamable-http" | "sse" as transport:
            if "url" not in present:
                yield Problem((*path, "url"), f"missing; transport {transport} needs a URL")
            yield from (Problem((*path, key), _STDIO_ONLY) for key in present if key in _STDIO_KEYS)
    if backend.get("transport") != "streamable-http" and "sessionLoss" in present:
        yield Problem((*path, "sessionLoss"), "only a backend with transport streamable-http can forget a session")
    for name, source in mapping(backend.get("headersFrom")).items():
        given = [key for key, value in mapping(source).items() if key in ("env", "file") and value is not None]
        if isinstance(source, dict) and len(given) != 1:
            yield Problem((*path, "headersFrom", name), "give either env or file")
    if backend.get("transport") == "sse" and backend.get("revisions") == "stateless":
        yield Problem((*path, "revisions"), "the transport sse is older than the stateless revision")


def _named(path: Path, entries: list[Any], key: str) -> list[tuple[Path, Any]]:
    """Where each entry of a list has its name, and the name."""
    return [((*path, index, key), mapping(entry).get(key)) for index, entry in enumerate(entries)]


def _unique(places: list[tuple[Path, Any]], thing: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, name in places:
        if isinstance(name, str) and not isinstance(name, Unresolved):
            if name in seen:
                yield Problem(path, f"there is {thing} {show(name)} already")
            seen.add(name)


def _priority(aggregation: dict[str, Any], backends: int) -> Iterator[Problem]:
    path: Path = ("aggregation", "conflictResolutionConfig", "priorityOrder")
    config = aggregation.get("conflictResolutionConfig")
    order = mapping(config).get("priorityOrder")
    nothing_there = isinstance(config, dict | None) and order in (None, [])
    if aggregation.get("conflictResolution") == "priority" and backends > 1 and nothing_there:
        yield Problem(path, "missing; conflictResolution: priority needs the backends in their order")
    yield from _unique([((*path, index), name) for index, name in enumerate(items(order))], "an entry for")
