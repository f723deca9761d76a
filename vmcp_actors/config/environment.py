"""Environment variables in values: `${NAME}`, `${env:NAME}`, `${NAME:-default}`; `$${` stands for `${` itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .problems import Expanded, Path, Problem, Unresolved, Wrong

_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def expand(tree: Any, environ: Mapping[str, str]) -> tuple[Any, list[Problem]]:
    """A copy of `tree` with the placeholders in its values replaced, and what stood in the way.

    Text with a placeholder becomes `Expanded`, which no message shows; where there was a problem it becomes
    `Unresolved`, so that one mistake makes one line. Keys are left alone.
    """
    problems: list[Problem] = []

    def expand_text(text: str, path: Path) -> str:
        try:
            return _expand_text(text, environ)
        except Wrong as error:
            problems.append(Problem(path, str(error)))
            return Unresolved(text)

    return _map_text(tree, (), expand_text), problems


def leave_open(tree: Any) -> Any:
    """A copy of `tree` in which text with placeholders is `Unresolved`: for checks where no environment is known."""
    return _map_text(tree, (), lambda text, _: Unresolved(text) if _TOKEN.search(text) else text)


def _map_text(value: Any, path: Path, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map_text(item, (*path, key), change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_text(item, (*path, index), change) for index, item in enumerate(value)]
    return change(value, path) if isinstance(value, str) else value


def _expand_text(text: str, environ: Mapping[str, str]) -> str:
    names: list[str] = []

    def replace(token: re.Match[str]) -> str:
        if token[0] == "$${":
            return "${"
        name, value = _look_up(token, environ)
        names.append(name)
        return value

    result = _TOKEN.sub(replace, text)
    if not names:
        return result
    expanded = Expanded(result)
    expanded.variables = tuple(dict.fromkeys(names))
    return expanded


def _look_up(token: re.Match[str], environ: Mapping[str, str]) -> tuple[str, str]:
    if not token[2]:
        raise Wrong("a ${ has no closing brace; write $${ for the characters themselves")
    if token[1].startswith("input:"):
        raise Wrong("${input:…} asks a person, and here is none; use an environment variable, as in ${NAME}")
    variable = _VARIABLE.fullmatch(token[1])
    if variable is None:
        raise Wrong("a ${…} does not name an environment variable; write $${ for the characters themselves")
    name, default = variable.groups()
    value = environ.get(name)
    if value is None and default is None:
        raise Wrong(f"environment variable {name} is not set")
    return name, default if not value and default is not None else value or ""
