"""Whatever a backend answers: a result, its error or ours, in time; no connection left, and the next answer counts."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from vmcp_actors.errors import BackendError, BackendLost
from vmcp_actors.model import BackendSpec, HttpEndpoint
from vmcp_actors.transports.http import HttpDispatcher
from vmcp_actors.transports.origin import Origin
from vmcp_actors.transports.pool import HttpPool

from .messages import ODD, RAW, message

CASES = 600
MANY_CASES = 3000
SPEC = BackendSpec("odd", HttpEndpoint("http://odd.test/mcp"))
GOOD = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "vendor": 1}}


class Backend:
    """Answers every request with what it is told to, over as many connections as it takes."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.answer = b""
        self.then_closes = False
        self._nursery = nursery

    async def connect(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.StapledStream[Any, Any]) -> None:
        try:
            while await stream.receive_some(1 << 20):
                if self.answer:
                    await stream.send_all(self.answer)
                if self.then_closes:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await stream.aclose()


def http(payload: bytes, kind: str = "application/json", status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(payload)}", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1") + payload


def events(*payloads: bytes) -> bytes:
    return b"".join(b"data: " + payload.replace(b"\n", b"") + b"\n\n" for payload in payloads)


def response(rng: random.Random) -> bytes:
    """A response, mostly to request 1, with something wrong in one of its layers."""
    answer: Any = dict(GOOD)
    match rng.randrange(5):
        case 0:
            answer[rng.choice(list(answer))] = rng.choice(ODD)
        case 1:
            answer = message(rng)
        case 2:
            answer = {
                "jsonrpc": "2.0",
                "id": 1,
                "error": rng.choice([*ODD, {"code": "x"}, {"message": 3}, {"code": -1}]),
            }
    payload = rng.choice(RAW) if rng.random() < 0.15 else json.dumps(answer).encode()
    if rng.random() < 0.4:
        odd = [json.dumps(message(rng)).encode() for _ in range(rng.randrange(4))]
        payload = rng.choice((b"", b": ping\n\n", b"id: 1\nretry: x\ndata:\n\n", b"data: {\n\n")) + events(
            *odd, payload
        )
        found = http(payload, "text/event-stream")
    else:
        kind = rng.choice(["application/json"] * 6 + ["", "text/html", "application/json;;;", "text/event-stream; x"])
        status = rng.choice(["200 OK"] * 8 + ["202 Accepted", "204 No Content", "301 Moved", "400 Bad", "404 Not Found"]
                            + ["401 No", "500 Oops", "599 x", "100 Continue", "999 x"])  # fmt: skip
        more = rng.choice(
            ([], [], [], ["Transfer-Encoding: chunked"], ["Content-Encoding: gzip"], ["X: " + "y" * 70_000])
        )
        found = http(payload, kind, status, *more)
    match rng.randrange(10):
        case 0:
            return found[: rng.randrange(len(found))]
        case 1:
            place = rng.randrange(len(found))
            return found[:place] + bytes([rng.randrange(256)]) + found[place + 1 :]
        case 2:
            return found + rng.choice((b"garbage", found, b"\r\n\r\n"))
    return found


async def batch(seeds: range, outcomes: Counter[str]) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        async with trio.open_nursery() as nursery:
            backend = Backend(nursery)
            async with HttpPool(Origin("http", "odd.test", 80), connect=backend.connect) as pool:
                dispatcher = HttpDispatcher(SPEC, pool, "/mcp")
                try:
                    await exchange(dispatcher, backend, rng, outcomes)
                except BaseException as error:
                    error.add_note(f"seed {seed}: {backend.answer[:400]!r}, closes: {backend.then_closes}")
                    raise
                assert pool.statistics().active == 0, f"seed {seed}"
            nursery.cancel_scope.cancel()


async def exchange(dispatcher: HttpDispatcher, backend: Backend, rng: random.Random, outcomes: Counter[str]) -> None:
    """One odd answer, and then a good one."""

    async def refuse(*_: Any) -> Any:
        raise MCPError(-32601, "no")

    async def ignore(*_: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, refuse, ignore)
        backend.answer, backend.then_closes = response(rng), rng.random() < 0.5
        with trio.fail_after(600):
            try:
                result = await dispatcher.send_raw_request("tools/call", {}, {"request_id": 1, "timeout": 300})
                outcomes["result" if isinstance(result, dict) else "no object"] += 1
            except (MCPError, BackendError) as error:
                outcomes[type(error).__name__ if str(error) else "no text"] += 1
        await trio.sleep(5)
        backend.answer, backend.then_closes = http(json.dumps({**GOOD, "id": 2}).encode()), False
        assert await ask_again(dispatcher) == GOOD["result"]
        nursery.cancel_scope.cancel()


async def ask_again(dispatcher: HttpDispatcher) -> Any:
    """A request that is answered well. A stream in memory cannot tell that the peer closed it while it was idle."""
    with trio.fail_after(10):
        while True:
            try:
                return await dispatcher.send_raw_request("tools/call", {}, {"request_id": 2})
            except BackendLost as error:
                if "closed without an answer" not in str(error):
                    raise


def test_every_answer_ends_the_request_properly() -> None:
    outcomes: Counter[str] = Counter()
    trio.run(batch, range(CASES), outcomes, clock=MockClock(autojump_threshold=0))
    assert outcomes.total() == CASES
    kinds = {"result", "MCPError", "BackendProtocolError", "BackendLost", "BackendUnauthorized"}
    assert kinds <= outcomes.keys(), "the fuzzer does not get far enough"
    assert not {"no object", "no text"} & outcomes.keys()


@pytest.mark.slow
def test_every_one_of_many_answers_ends_the_request_properly() -> None:
    outcomes: Counter[str] = Counter()
    trio.run(batch, range(10_000, 10_000 + MANY_CASES), outcomes, clock=MockClock(autojump_threshold=0))
    assert outcomes.total() == MANY_CASES
    assert not {"no object", "no text"} & outcomes.keys()
