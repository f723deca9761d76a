"""A backend that forgot our session is told apart from one whose tool has not found something (S8)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from vmcp_actors.errors import BackendSessionLost, Delivered
from vmcp_actors.model import BackendSpec, HttpEndpoint
from vmcp_actors.transports.http import HttpDispatcher
from vmcp_actors.transports.origin import Origin
from vmcp_actors.transports.pool import HttpPool

SPEC = BackendSpec("b", HttpEndpoint("http://b.test/mcp"))
INITIALIZED = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "b", "version": "1"}}


def http(status: int, payload: Any, *headers: str) -> bytes:
    body = json.dumps(payload).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def connected(*answers: bytes, session: bool = True) -> AsyncIterator[HttpDispatcher]:
    """A dispatcher that has been initialized, and whose next requests get these answers."""
    header = ["Mcp-Session-Id: s"] if session else []
    pending = [http(200, {"jsonrpc": "2.0", "id": 1, "result": INITIALIZED}, *header), *answers]
    async with trio.open_nursery() as nursery:

        async def serve(stream: Any) -> None:
            while await stream.receive_some():
                answer = pending.pop(0)
                if answer:
                    await stream.send_all(answer)

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            return ours

        async with HttpPool(Origin("http", "b.test", 80), connect=connect) as pool:
            dispatcher = HttpDispatcher(SPEC, pool, "/mcp")
            await dispatcher.send_raw_request("initialize", {}, {"request_id": 1})
            yield dispatcher
        nursery.cancel_scope.cancel()


def refusal(code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, -32001, "Session not found"),
        (404, -32600, "whatever"),
        (400, -32000, "Bad Request: No valid session ID provided"),
        (400, -32600, "Unknown Mcp-Session-Id: session expired"),
        (400, -32001, "session closed"),
    ],
)
async def test_a_refusal_for_our_session_is_its_loss(
    autojump_clock: MockClock, status: int, code: int, message: str
) -> None:
    """The request was not run, so that it may be sent again."""
    async with connected(http(status, refusal(code, message))) as dispatcher:
        with pytest.raises(BackendSessionLost) as caught:
            await dispatcher.send_raw_request("tools/call", {"name": "t"})
        assert caught.value.delivered is Delivered.NO
        with pytest.raises(BackendSessionLost):
            await dispatcher.run(lambda *_: None, lambda *_: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (200, -32001, "Session not found"),
        (200, -32000, "No valid session ID provided"),
        (400, -32602, "argument session is missing"),
        (400, -32000, "Bad Request: no"),
    ],
)
async def test_the_backends_own_errors_are_no_loss(
    autojump_clock: MockClock, status: int, code: int, message: str
) -> None:
    """Even if they are about some session."""
    answer = {**refusal(code, message), "id": 2}
    async with connected(http(status, answer)) as dispatcher:
        with pytest.raises(MCPError) as caught:
            await dispatcher.send_raw_request("tools/call", {"name": "t"}, {"request_id": 2})
        assert (caught.value.code, caught.value.error.message) == (code, message)


async def test_without_a_session_there_is_none_to_lose(autojump_clock: MockClock) -> None:
    answer = {**refusal(-32000, "No valid session ID provided"), "id": 2}
    async with connected(http(400, answer), session=False) as dispatcher:
        with pytest.raises(MCPError):
            await dispatcher.send_raw_request("tools/call", {"name": "t"}, {"request_id": 2})
