"""The files of MCP clients: `mcpServers` (Claude Desktop, Claude Code, Cursor and others) and `servers` (VS Code)."""

from __future__ import annotations

import os
import re
from typing import Any

from attrs import frozen

from ..errors import ConfigError
from . import documents
from .checks import relations
from .converter import structure
from .environment import leave_open
from .problems import Path, Problem, in_lines, kind, render
from .schema import File
from .values import LONGEST_NAME

_COPIED = ("url", "headers", "command", "args", "env", "cwd")
_READ = frozenset((*_COPIED, "type", "transport", "disabled"))
_TRANSPORTS = {"http": "streamable-http", "streamablehttp": "streamable-http", "streamable-http": "streamable-http"}


@frozen
class Imported:
    """A client's file in our own schema.

    Attributes:
        tree: the plain values of a file that has only `backends`.
        origins: where in the client's file each of the backends is.
        problems: what is not even a server.
        warnings: what was left out or changed, one line each.
    """

    tree: dict[str, Any]
    origins: tuple[Path, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def in_their_words(self, problem: Problem) -> Problem:
        """A problem of `tree` as one of the client's file."""
        match problem.path:
            case ("backends", int(index), *rest) if index < len(self.origins):
                if rest[:1] == ["name"]:
                    rest = []
                elif rest[:1] == ["transport"]:
                    rest = ["type"]
                return Problem((*self.origins[index], *rest), problem.text)
        return problem


def servers_key(tree: Any) -> str | None:
    """The key that makes `tree` the file of a client, or None when it is not one."""
    if isinstance(tree, dict) and "backends" not in tree:
        return next((key for key in ("mcpServers", "servers") if key in tree), None)
    return None


def translate(tree: dict[str, Any], key: str) -> Imported:
    """The file of a client in our own schema. Placeholders are left as they are."""
    servers = tree[key]
    if not isinstance(servers, dict):
        return Imported({"backends": []}, (), (Problem((key,), f"expected a mapping, got {kind(servers)}"),), ())
    backends: list[dict[str, Any]] = []
    origins: list[Path] = []
    problems: list[Problem] = []
    unread: list[Path] = [(other,) for other in tree if other != key]
    renamed: list[str] = []
    for index, (name, server) in enumerate(servers.items()):
        path: Path = (key, name)
        if not isinstance(server, dict):
            problems.append(Problem(path, f"expected a mapping, got {kind(server)}"))
        elif server.get("disabled") is True:
            continue
        elif server.get("url") is None and server.get("command") is None:
            problems.append(Problem(path, "needs a command or a url"))
        else:
            backend = _backend(name, index, server)
            if backend["name"] != name:
                renamed.append(f"{render(path)} is called {backend['name']} here")
            backends.append(backend)
            origins.append(path)
            unread.extend((*path, other) for other in server if other not in _READ)
    if not backends and not problems:
        problems.append(Problem((key,), "has no server that is not disabled"))
    return Imported({"backends": backends}, tuple(origins), tuple(problems), (*_named(unread), *renamed))


def import_client_config(text: str, source: str) -> str:
    """The file of a client as a configuration file of ours, in YAML. Placeholders are kept as they are.

    What is left out is named in comments at the top.

    Raises:
        ConfigError: it is not such a file, or its servers cannot be used; values with placeholders are not checked.
    """
    name = os.path.basename(source)
    tree = documents.read_document(text, name)
    key = servers_key(tree)
    if key is None:
        raise ConfigError([f"top level: expected mcpServers or servers (in {name})"])
    imported = translate(tree, key)
    draft = leave_open(imported.tree)
    found = [*structure(draft, File, None)[1], *relations(draft)]
    problems = [*imported.problems, *map(imported.in_their_words, found)]
    if problems:
        raise ConfigError(in_lines(problems, tree, name))
    comments = [f"Made from {_one_line(name)} by `vmcp-actors init`.", *imported.warnings]
    return documents.to_yaml({"name": "vmcp", **imported.tree}, comments=comments)


def _backend(name: str, index: int, server: dict[str, Any]) -> dict[str, Any]:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:LONGEST_NAME] or f"server-{index + 1}"
    backend = {"name": name if name == plain else plain, "transport": _transport(server)}
    return backend | {key: server[key] for key in _COPIED if server.get(key) is not None}


def _transport(server: dict[str, Any]) -> Any:
    """What a server says of its type, or what can be told from the other keys, as the clients do."""
    stated = server.get("type", server.get("transport"))
    if isinstance(stated, str):
        return _TRANSPORTS.get(stated.lower(), stated)
    if stated is not None:
        return stated
    if server.get("command") is not None:
        return "stdio"
    path = re.split(r"[?#]", str(server["url"]))[0]
    return "sse" if path.rstrip("/").endswith("/sse") else "streamable-http"


def _named(unread: list[Path]) -> tuple[str, ...]:
    return ("ignored, since nothing here reads them: " + ", ".join(map(render, unread)),) if unread else ()


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
