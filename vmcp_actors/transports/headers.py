"""The headers of requests to a streamable HTTP backend: those of the protocol, of the session, and the configured."""

from __future__ import annotations

from collections.abc import Mapping

from ..model import Secret

Headers = tuple[tuple[bytes, bytes], ...]
"""Pairs of lowercase names and values."""

_PROTOCOL: Headers = (
    (b"accept", b"application/json, text/event-stream"),
    (b"content-type", b"application/json"),
)


def session_headers(configured: Mapping[str, Secret[str]], session: Secret[str] | None, version: str | None) -> Headers:
    """The headers of every request, with those of the backend session and of the protocol version once there are any.

    What is configured does not replace them. MCP 2025-11-25, basic/transports §Session Management and §Protocol Version
    Header.
    """
    headers = list(_PROTOCOL)
    if session is not None:
        headers.append((b"mcp-session-id", session.reveal().encode("latin-1")))
    if version is not None:
        headers.append((b"mcp-protocol-version", version.encode("latin-1", "replace")))
    ours = {name for name, _ in headers}
    others = ((name.lower().encode(), value.reveal().encode()) for name, value in configured.items())
    return (*headers, *(pair for pair in others if pair[0] not in ours))


def with_headers(headers: Headers, more: Mapping[str, str]) -> Headers:
    """Headers with others, which take the place of those of the same name."""
    ours = {name.lower().encode() for name in more}
    kept = (pair for pair in headers if pair[0] not in ours)
    return (*kept, *((name.lower().encode(), value.encode()) for name, value in more.items()))
