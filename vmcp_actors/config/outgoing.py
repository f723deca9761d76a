"""ToolHive's `outgoingAuth`: headers for its backends, read as if they had been written there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .problems import Path, Problem, Wrong, kind, show, unknown_key
from .values import header_name

SECTION: Final = "outgoingAuth"
STRATEGIES: Final = ("unauthenticated", "header_injection")
DETAILS: Final[Mapping[str, str | None]] = {"unauthenticated": None, "header_injection": "headerInjection"}
VALUES: Final[Mapping[str, str | None]] = {"headerValue": None, "headerValueEnv": "env", "headerValueFile": "file"}
"""The keys of which one says what the header's value is, and what they are called in `headersFrom`."""


def inject(tree: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """A copy of `tree` in which backends have the headers that `outgoingAuth` gives them, and what is wrong with it."""
    section, backends = tree.get(SECTION), tree.get("backends")
    problems = list(_section(section, backends))
    if problems or not isinstance(section, dict) or not isinstance(backends, list):
        return tree, problems
    injected = []
    for index, backend in enumerate(backends):
        result, problem = _injected(backend, section)
        injected.append(result)
        if problem is not None:
            problems.append(Problem(("backends", index), problem))
    return {**tree, "backends": injected}, problems


def _injected(backend: Any, section: dict[str, Any]) -> tuple[Any, str | None]:
    """A backend with the header that its strategy, or the default one, gives it; and what speaks against that."""
    if not isinstance(backend, dict):
        return backend, None
    own = (section.get("backends") or {}).get(str(backend.get("name")))
    strategy = own or section.get("default") or {}
    if strategy.get("type") != "header_injection":
        return backend, None
    if backend.get("transport") == "stdio":
        return backend, "a child process has no headers, but outgoingAuth gives it one" if own else None
    details = strategy["headerInjection"]
    name = details["headerName"]
    (key,) = (key for key in VALUES if details.get(key) is not None)
    source = VALUES[key]
    place, value = ("headers", details[key]) if source is None else ("headersFrom", {source: details[key]})
    for present in ("headers", "headersFrom"):
        headers = backend.get(present)
        if isinstance(headers, dict) and name.lower() in (str(header).lower() for header in headers):
            return backend, f"the header {name} is given twice: here in {present}, and in outgoingAuth"
    return {**backend, place: {**(backend.get(place) or {}), name: value}}, None


# --- what may be wrong with the section -------------------------------------------------------------------------------


def _section(section: Any, backends: Any) -> Iterator[Problem]:
    path: Path = (SECTION,)
    if section is None:
        return
    if not isinstance(section, dict):
        yield Problem(path, f"expected a mapping, got {kind(section)}")
        return
    names = {str(backend.get("name")) for backend in backends or () if isinstance(backend, dict)}
    for key, value in section.items():
        if key == "source":
            yield from _source((*path, key), value, backends)
        elif key == "default":
            yield from _strategy((*path, key), value)
        elif key == "backends":
            yield from _strategies((*path, key), value, names)
        else:
            yield unknown_key((*path, key), ("source", "default", "backends"))


def _source(path: Path, value: Any, backends: Any) -> Iterator[Problem]:
    if value == "discovered" and not backends:
        yield Problem(path, "'discovered' looks for backends in Kubernetes, which is not supported; list them")
    elif value not in (None, "", "inline", "discovered"):
        yield Problem(path, f"expected inline or discovered, got {show(value)}")


def _strategies(path: Path, section: Any, names: set[str]) -> Iterator[Problem]:
    if isinstance(section, dict):
        for name, strategy in section.items():
            yield from _strategy((*path, name), strategy)
            if isinstance(strategy, dict) and strategy.get("type") == "header_injection" and str(name) not in names:
                yield Problem((*path, name), "there is no backend of this name")
    elif section is not None:
        yield Problem(path, f"expected a mapping, got {kind(section)}")


def _strategy(path: Path, strategy: Any) -> Iterator[Problem]:
    if strategy is None:
        return
    if not isinstance(strategy, dict):
        yield Problem(path, f"expected a mapping, got {kind(strategy)}")
        return
    type_ = strategy.get("type")
    if type_ not in STRATEGIES:
        text = "unauthenticated and header_injection are the only ones supported yet"
        yield Problem((*path, "type"), f"{text}; got {show(type_)}")
        return
    details = DETAILS[type_]
    for key, value in strategy.items():
        if key not in ("type", details) and value is not None:
            yield Problem((*path, key), f"has no meaning for {type_}")
    if details is not None:
        yield from _header((*path, details), strategy.get(details))


def _header(path: Path, details: Any) -> Iterator[Problem]:
    if not isinstance(details, dict):
        yield Problem(path, f"expected a mapping, got {kind(details)}")
        return
    for key in details:
        if key != "headerName" and key not in VALUES:
            yield unknown_key((*path, key), ("headerName", *VALUES))
    try:
        header_name(details.get("headerName"))
    except Wrong as error:
        yield Problem((*path, "headerName"), str(error))
    given = [key for key in VALUES if details.get(key) is not None]
    if len(given) != 1:
        yield Problem(path, f"give one of {', '.join(VALUES)}")
    for key in given:
        if not isinstance(details[key], str):
            yield Problem((*path, key), f"expected text, got {kind(details[key])}")
