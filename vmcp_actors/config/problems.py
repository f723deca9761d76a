"""What is wrong with a file, as lines that people can act on: `backends[1].url: expected a URL, got 3 (in vmcp.yaml)`.

Values are shown only where they cannot be credentials: nothing that came out of the environment, nothing from headers,
environments and arguments, and of a URL neither user name nor query.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import fields, frozen
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCHEME = re.compile(r"(?:https?|wss?|ftp|file|tcp|unix|sse|stdio)://")
_LONGEST = 60


@frozen
class Problem:
    """One thing to mend, and where: keys and indexes from the top of the file."""

    path: Path
    text: str


class Wrong(ValueError):
    """A value is not what its place asks for. Raised by the converter's hooks; the text follows the path."""


class Expanded(str):
    """Text that has values of environment variables in it, which is why it is never shown."""

    __slots__ = ("variables",)

    variables: tuple[str, ...]


class Unresolved(str):
    """Text with a placeholder whose value is not known; every check lets it pass, since nothing can be said of it."""

    __slots__ = ()


def camel(name: str) -> str:
    """The key in the file for the name of an attribute: `max_sessions` is `maxSessions`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def render(path: Path) -> str:
    """A path as people write it: `backends[1].env.HOME`; the empty one is the top level."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text or "top level"


def kind(value: object) -> str:
    """What sort of value it is, without showing it."""
    for type_, name in ((bool, "a boolean"), (int | float, "a number"), (str, "text"), (dict, "a mapping")):
        if isinstance(value, type_):
            return name
    return "nothing" if value is None else "a list"


def show(value: object) -> str:
    """A value as it may be shown in a message; containers and expanded text only by their sort."""
    if isinstance(value, Expanded):
        return "the value of " + " and ".join(f"${{{name}}}" for name in value.variables)
    if isinstance(value, str):
        text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
        return repr(str(text))
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return kind(value)


def show_url(value: object) -> str:
    """As `show`, without what may be a credential in a URL: user name, password, query and fragment."""
    if not isinstance(value, str) or isinstance(value, Expanded):
        return show(value)
    scheme, slashes, rest = value.partition("://") if _SCHEME.match(value) else ("", "", value)
    place, *query = re.split(r"[?#]", rest, maxsplit=1)
    if query and "@" in query[0]:  # which may be the end of a password
        return show(f"{scheme}{slashes}***")
    place = re.sub(r"(?s).*@", "***@", place)
    return show(f"{scheme}{slashes}{place}{'?***' if query else ''}")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """` (did you mean x?)` for the known word that is closest, whatever its case and `_` or `-` in it; else nothing."""
    if not isinstance(word, str) or isinstance(word, Expanded):
        return ""
    plain = {_plain(candidate): candidate for candidate in known}
    start = _plain(word)
    begun = [candidate for candidate in plain if len(start) > 2 and candidate.startswith(start)]
    close = begun or difflib.get_close_matches(start, plain, n=1, cutoff=0.7)
    return f" (did you mean {plain[close[0]]}?)" if close else ""


def unknown_key(path: Path, known: Iterable[str]) -> Problem:
    """The problem of a key that nothing reads."""
    return Problem(path, f"unknown key{did_you_mean(path[-1], known)}")


def flatten(error: Exception, path: Path = ()) -> Iterator[Problem]:
    """The problems in an error of the converter, each with its path in the file. Errors that are bugs are raised."""
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from flatten(inner, (*path, *_step(inner)))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [camel(attribute.name) for attribute in fields(error.cl)]
        yield from (unknown_key((*path, key), known) for key in sorted(error.extra_fields))
    elif isinstance(error, KeyError):
        yield Problem(path, "missing")
    elif isinstance(error, Wrong):
        yield Problem(path, str(error))
    else:
        raise error


def in_lines(problems: Iterable[Problem], tree: object, name: str) -> list[str]:
    """One line for each problem, in the order of the file that `tree` was read from, none twice."""
    ordered = sorted(problems, key=lambda problem: _position(tree, problem.path))
    return list(dict.fromkeys(f"{render(problem.path)}: {problem.text} (in {name})" for problem in ordered))


def _step(error: Exception) -> Path:
    """Which key or index of its parent an error belongs to, as cattrs notes it."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (camel(note.name),)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _position(tree: Any, path: Path) -> list[float]:
    position: list[float] = []
    for part in path:
        if isinstance(part, int):
            position.append(part)
            tree = tree[part] if isinstance(tree, list) and part < len(tree) else None
        elif isinstance(tree, dict) and part in tree:
            position.append(list(tree).index(part))
            tree = tree[part]
        else:
            position.append(float("inf"))
            tree = None
    return position


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
