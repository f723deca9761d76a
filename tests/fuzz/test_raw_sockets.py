"""Whatever comes over a socket: it is answered or hung up on, and the gateway goes on serving everybody else."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import mcp
import pytest
import trio

from tests.e2e.harness import GatewayProcess, all_open_files, gateway, hypercorn_command, until
from tests.e2e.test_real_clients import demo_with

from .messages import body

pytestmark = pytest.mark.e2e

CASES = 150
MANY_CASES = 1000
AT_ONCE = 8
PATIENCE = 3.0

TLS_HELLO = bytes.fromhex("160301006d010000690303") + bytes(range(64))
NONSENSE = [
    b"\x00" * 100, b"\r\n" * 50, b"GET", b"\xff" * 3000, TLS_HELLO, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 50,
    b"GET / HTTP/9.9\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"POST /mcp HTTP/1.1\r\nExpect: 100-continue\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"A" * 200_000,
    b"GET /mcp HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
]  # fmt: skip


PATHS = ["/mcp"] * 6 + ["/", "/status", "/mcp?x", "//", "/%00", "/mcp/../healthz"]


def request(rng: random.Random, port: int) -> bytes:
    """A request as it should be, but for the bytes of its body."""
    data = body(rng)
    method = rng.choice(("POST", "POST", "POST", "POST", "GET", "DELETE", "BREW"))
    head = [
        f"{method} {rng.choice(PATHS)} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    return spoiled(head, rng) + data


def spoiled(head: list[str], rng: random.Random) -> bytes:
    """The head of a request, with something wrong, more often than not."""
    place = rng.randrange(1, len(head))
    match rng.randrange(9):
        case 0:
            del head[place]
        case 1:
            head.insert(place, head[place])
        case 2:
            head[place] = " " + head[place]
        case 3:
            head.append("Transfer-Encoding: chunked")
        case 4:
            head.append("X-Big: " + "y" * rng.choice((100, 10_000, 100_000)))
        case 5:
            name, _, value = head[place].partition(":")
            head[place] = name + rng.choice((" :", ":\t", "\x00:", "")) + value
        case 6:
            head[0] = rng.choice((head[0].lower(), head[0].replace(" ", "  "), head[0].removesuffix("1.1") + "1.0"))
    end = rng.choice(("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"))
    return (end.join(head) + end + end).encode("latin-1")


async def one(port: int, seed: int, outcomes: Counter[str]) -> None:
    """Send something, in some way, and see that it is answered or hung up on."""
    rng = random.Random(seed)
    data = rng.choice(NONSENSE) if rng.random() < 0.2 else request(rng, port)
    if rng.random() < 0.1:
        data += request(rng, port)
    if rng.random() < 0.15:
        data = data[: rng.randrange(len(data))]
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            for start in range(0, len(data), size := rng.choice((len(data) or 1, len(data) or 1, 1000))):
                await stream.send_all(data[start : start + size])
            way = rng.choice(("wait", "wait", "half-close", "leave"))
            if way == "half-close":
                await stream.send_eof()
            if way == "leave":
                outcomes["left"] += 1
                return
            with trio.move_on_after(PATIENCE):
                answer = await stream.receive_some(65536)
                outcomes[answer[9:12].decode("latin-1") if answer else "hung up"] += 1
                return
            outcomes["waits for more"] += 1
        except trio.BrokenResourceError:
            outcomes["hung up"] += 1


def health_of(served: GatewayProcess) -> object:
    with urlopen(f"{served.origin}/healthz", timeout=5) as response:
        return json.load(response)


async def fuzz(served: GatewayProcess, seeds: range) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    limit = trio.CapacityLimiter(AT_ONCE)

    async def limited(seed: int) -> None:
        async with limit:
            await one(served.port, seed, outcomes)

    async with mcp.Client(served.url, mode="legacy", cache=None) as client:
        await client.call_tool("notes_begin", {})
        before = all_open_files(served.pid)
        for start in range(seeds.start, seeds.stop, 50):
            async with trio.open_nursery() as nursery:
                for seed in range(start, min(start + 50, seeds.stop)):
                    nursery.start_soon(limited, seed)
            listed = await client.call_tool("notes_list", {})
            assert listed.structured_content == {"notes": [], "transaction": True}, f"seeds from {start}"
            assert await trio.to_thread.run_sync(health_of, served) == {"status": "ok"}
        # hypercorn holds a connection that its client left in the middle for as long as one that is kept alive.
        await until(lambda: all_open_files(served.pid) <= before + 2, 100)
    return outcomes


@pytest.mark.parametrize(
    ("command", "cases"),
    [
        pytest.param(hypercorn_command(), CASES, id="hypercorn"),
        pytest.param(None, CASES, id="serve"),
        pytest.param(hypercorn_command(), MANY_CASES, id="hypercorn-many", marks=pytest.mark.slow),
        pytest.param(None, MANY_CASES, id="serve-many", marks=pytest.mark.slow),
    ],
)
async def test_nothing_that_comes_over_a_socket_disturbs_the_gateway(
    command: list[str] | None, cases: int, tmp_path: Path
) -> None:
    """No traceback in its log, no descriptor left, no other session disturbed.

    The sessions that the fuzzer starts by chance are soon idle.
    """
    config = demo_with(tmp_path, "sessions: {idleTimeout: 1s}\nstateless: {mode: lease, idleTimeout: 1s}")
    async with gateway(config, command=command) as served:
        outcomes = await fuzz(served, range(cases))
        log = "\n".join(served.log)
    assert outcomes.total() == cases
    assert {"400", "hung up", "left"} <= outcomes.keys(), outcomes
    assert "Traceback" not in log, log
