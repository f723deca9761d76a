"""Our HTTP server against hypercorn, with odd requests: what hypercorn refuses, ours refuses; what both take is one."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.e2e.harness import gateway
from tests.e2e.test_real_clients import demo_with

from .test_raw_sockets import NONSENSE, request

pytestmark = pytest.mark.e2e

CASES = 150
MANY_CASES = 3000
AT_ONCE = 32
PATIENCE = 1.0
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
REFUSED = "refused"
"""By the server: the application has not seen it."""
HUNG_UP = "hung up"
"""Without an answer: hypercorn does that, too, when it has answered but not read all of a body."""


async def outcome(port: int, data: bytes) -> str:
    """What comes first: the application's status, a refusal, or nothing."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answer = b""
        with trio.move_on_after(PATIENCE):
            try:
                await stream.send_all(data)
                while b"\r\n\r\n" not in answer and (piece := await stream.receive_some(65536)):
                    answer += piece
            except trio.BrokenResourceError:
                pass
            answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            match = STATUS.match(answer)
            if match is None:
                return HUNG_UP
            head = answer.partition(b"\r\n\r\n")[0]
            of_hypercorn = b"content-length: 0\r\nconnection: close" in head
            of_ours = b"text/plain" in head and match[1] in (b"400", b"417", b"431", b"500", b"501", b"505")
            return REFUSED if of_hypercorn or of_ours else match[1].decode()
        return "waits for more"


def tolerated(data: bytes) -> bool:
    """What RFC 9112 lets a server overlook, and llhttp does: empty lines first (§2.2), more white space (§3)."""
    line = data.partition(b"\r\n")[0]
    return not line or b"  " in line or line != line.strip()


def case(seed: int, port: int) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return rng.choice(NONSENSE)
    data = request(rng, port)
    for _ in range(rng.choice((0, 0, 1, 3))):  # some bytes are others, some are missing
        place = rng.randrange(len(data))
        data = data[:place] + rng.choice((b"", bytes([rng.randrange(256)]), b"\r\n", b" ")) + data[place + 1 :]
    return data


@pytest.mark.parametrize("cases", [CASES, pytest.param(MANY_CASES, marks=pytest.mark.slow)])
async def test_what_hypercorn_refuses_ours_refuses_and_what_both_take_is_one(tmp_path: Path, cases: int) -> None:
    """Ours may refuse more: it takes no bare line feeds, for one. What it tolerates is named."""
    counts: Counter[str] = Counter()
    differ: list[str] = []
    for name in ("fast", "hypercorn"):
        (tmp_path / name).mkdir()
    more = "sessions: {idleTimeout: 1s}\nstateless: {mode: 'off'}"
    async with (
        gateway(demo_with(tmp_path / "fast", more), "--http", "fast") as ours,
        gateway(demo_with(tmp_path / "hypercorn", more), "--http", "hypercorn") as theirs,
    ):
        limit = trio.CapacityLimiter(AT_ONCE)

        async def compare(seed: int) -> None:
            async with limit:
                # The same bytes for both: the port in Host is one of the two.
                data = case(seed, ours.port)
                mine = await outcome(ours.port, data)
                his = await outcome(theirs.port, data.replace(str(ours.port).encode(), str(theirs.port).encode()))
            if mine == his:
                kind = "same"
            elif mine == REFUSED:
                kind = "stricter"
            elif (his == REFUSED and tolerated(data)) or (his == HUNG_UP and mine.startswith("4")):
                kind = "tolerated"
            else:
                kind = "other"
            counts[kind] += 1
            if kind == "other":
                differ.append(f"seed {seed}: {mine} instead of {his}: {data[:300]!r}")

        async with trio.open_nursery() as nursery:
            for seed in range(cases):
                nursery.start_soon(compare, seed)
    assert not differ, "\n".join(differ[:20])
    assert counts["same"] > cases / 3, counts
