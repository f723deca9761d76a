"""Ready-made HTTP requests of an MCP client, of both kinds of revisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

STATEFUL: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
FIRST_ID: Final = 1_000_000
"""Ids have seven digits, so that every request of a kind is as long as the first."""

_CLIENT: Final = {"name": "benchmark", "version": "1"}
_ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": _CLIENT,
}
_INITIALIZE: Final = {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": _CLIENT}
_BOTH_KINDS: Final = ("accept: application/json, text/event-stream", "content-type: application/json")


class Template:
    """A request in which only the id changes."""

    def __init__(self, request: bytes) -> None:
        self._before, _, self._after = request.partition(b"%d" % FIRST_ID)

    def numbered(self, request_id: bytes) -> bytes:
        """The request under this id."""
        return self._before + request_id + self._after


class Requests:
    """The requests to one endpoint.

    Attributes:
        address: host and port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.address = (parts.hostname, parts.port or 80)
        self._path = parts.path or "/"
        self._host = f"host: {parts.netloc}"

    def initialize(self) -> bytes:
        """Begin a session."""
        return self._message("initialize", _INITIALIZE, ())

    def initialized(self, session: str) -> bytes:
        """Say that the session has begun."""
        body = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
        return self._encode("POST", (*_BOTH_KINDS, *_of_session(session)), body)

    def discover(self) -> bytes:
        """Ask for what there is in the stateless revision."""
        return self._message("server/discover", {"_meta": _ENVELOPE}, _mirrored("server/discover"))

    def call(self, tool: str, arguments: Mapping[str, Any], session: str) -> Template:
        """Call a tool in a session."""
        return Template(self._message("tools/call", {"name": tool, "arguments": arguments}, _of_session(session)))

    def stateless_call(self, tool: str, arguments: Mapping[str, Any]) -> Template:
        """Call a tool without a session."""
        params = {"name": tool, "arguments": arguments, "_meta": _ENVELOPE}
        return Template(self._message("tools/call", params, (*_mirrored("tools/call"), f"mcp-name: {tool}")))

    def listen(self, session: str) -> bytes:
        """Open the stream for what comes unasked."""
        return self._encode("GET", ("accept: text/event-stream", *_of_session(session)))

    def delete(self, session: str) -> bytes:
        """End a session."""
        return self._encode("DELETE", _of_session(session))

    def _message(self, method: str, params: Mapping[str, Any], headers: tuple[str, ...]) -> bytes:
        message = {"jsonrpc": "2.0", "id": FIRST_ID, "method": method, "params": params}
        return self._encode("POST", (*_BOTH_KINDS, *headers), json.dumps(message).encode())

    def _encode(self, method: str, headers: tuple[str, ...], body: bytes = b"") -> bytes:
        lines = [f"{method} {self._path} HTTP/1.1", self._host, *headers]
        if method == "POST":
            lines.append(f"content-length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


def _of_session(session: str) -> tuple[str, ...]:
    """The headers of a request in a session; there are servers of the stateful revisions without sessions."""
    version = f"mcp-protocol-version: {STATEFUL}"
    return (version, f"mcp-session-id: {session}") if session else (version,)


def _mirrored(method: str) -> tuple[str, ...]:
    return (f"mcp-protocol-version: {STATELESS}", f"mcp-method: {method}")
