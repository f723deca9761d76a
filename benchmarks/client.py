"""A load generator that costs little: ready-made requests over kept connections."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vmcp_actors.transports.origin import parse_url
from vmcp_actors.transports.pool import HttpPool

MAX_BYTES = 1 << 24
HEADERS = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]


def encode(method: str, params: dict[str, Any]) -> bytes:
    """A request with id 1."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


INITIALIZE = encode(
    "initialize",
    {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "1"}},
)


class McpClient:
    """One session of a client."""

    def __init__(self, pool: HttpPool, target: str) -> None:
        self._pool = pool
        self._target = target
        self._headers = HEADERS

    def another(self) -> McpClient:
        """Another session over the same kept connections."""
        return McpClient(self._pool, self._target)

    async def post(self, body: bytes) -> bytes:
        """Send a request and return the body of its answer; raises when it is not an answer."""
        response = await self._pool.request("POST", self._target, self._headers, body)
        answer = await response.read(MAX_BYTES)
        if response.status != 200 or b'"error"' in answer:
            raise RuntimeError(f"HTTP {response.status}: {answer[:200]!r}")
        session = response.headers.get("mcp-session-id")
        if session is not None:
            self._headers = [*HEADERS, (b"mcp-session-id", session.encode())]
        return answer

    async def delete(self) -> None:
        """End the session."""
        response = await self._pool.request("DELETE", self._target, self._headers, None)
        await response.read(MAX_BYTES)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[McpClient]:
    """A client without a session yet."""
    origin, target = parse_url(url)
    async with HttpPool(origin, connect_timeout=30) as pool:
        yield McpClient(pool, target)
