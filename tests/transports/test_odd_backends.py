"""Backends that send what they should not: it costs them that message, never the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from vmcp_actors.errors import BackendProtocolError, BackendSessionLost, BackendUnauthorized, Delivered, RequestError

from .test_session_loss import connected, http

RESULT = {"jsonrpc": "2.0", "id": 2, "result": {"fine": True}}


def events(*messages: Any) -> bytes:
    body = b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def refuse(*_: Any) -> Any:
    await trio.sleep(0.3)
    raise MCPError(-32601, "no")


async def ignore(*_: Any) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("token", [[1], {"a": 1}, None, 1.5, True])
async def test_a_progress_token_of_any_type_costs_nothing_but_itself(autojump_clock: MockClock, token: Any) -> None:
    odd = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
    async with connected(events(odd, RESULT)) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        assert await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2}) == {"fine": True}
        nursery.cancel_scope.cancel()


async def test_a_request_id_that_is_used_twice_does_not_end_the_connection(autojump_clock: MockClock) -> None:
    question = {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage"}
    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    answers = [events(question, question, RESULT), accepted, accepted, http(200, {**RESULT, "id": 3})]
    async with connected(*answers) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        assert await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2}) == {"fine": True}
        await trio.sleep(1)
        assert await dispatcher.send_raw_request("tools/call", {}, {"request_id": 3}) == {"fine": True}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        {**RESULT, "id": 3},
        {**RESULT, "id": None},
        {"jsonrpc": "2.0", "id": 3, "error": {"code": -32000, "message": "not yours"}},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
    ],
)
async def test_the_answer_to_another_request_is_nobodys(autojump_clock: MockClock, answer: Any) -> None:
    async with connected(http(200, answer)) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        with pytest.raises(BackendProtocolError, match="no response to it") as caught:
            await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2})
        assert caught.value.delivered is Delivered.UNKNOWN
        nursery.cancel_scope.cancel()


async def test_an_error_without_an_id_answers_the_request_it_came_for(autojump_clock: MockClock) -> None:
    """JSON-RPC 2.0 §5: the id is null when the backend could not read ours."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "what?"}}
    async with connected(http(200, error)) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        with pytest.raises(MCPError, match="what"):
            await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2})
        nursery.cancel_scope.cancel()


async def test_parameters_that_cannot_be_written_are_not_sent(autojump_clock: MockClock) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    async with connected(http(200, RESULT)) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        with pytest.raises(RequestError, match="nested"):
            await dispatcher.send_raw_request("tools/call", {"deep": deep}, {"request_id": 2})
        assert await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2}) == {"fine": True}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("status", "error"), [(404, BackendSessionLost), (401, BackendUnauthorized), (403, BackendUnauthorized)]
)
@pytest.mark.parametrize("body", [b"x" * 70_000, b"x"], ids=["large", "cut off"])
async def test_a_status_counts_whatever_its_body_is(
    autojump_clock: MockClock, status: int, error: type[Exception], body: bytes
) -> None:
    length = max(len(body), 10)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n".encode()
    async with connected(head + body) as dispatcher:
        with trio.fail_after(10), pytest.raises(error):
            await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2})


async def test_answers_that_a_backend_does_not_take_do_not_pile_up(autojump_clock: MockClock) -> None:
    """It asks, and then hangs: each answer has its time, and there is a bound to their number."""
    pings = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(1000)]
    async with connected(events(*pings, RESULT), *[b""] * 1000) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        assert await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2}) == {"fine": True}
        await trio.sleep(1)
        assert dispatcher.statistics().answering <= 256
        await trio.sleep(10)
        assert dispatcher.statistics().answering == 0
        nursery.cancel_scope.cancel()
