"""Uses actors and nothing else: `python -m benchmarks.kernel_load CALLS` prints microseconds as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from vmcp_actors.actors import Actor, Call

CONCURRENT: Final = 100


class Kernel(msgspec.Struct, frozen=True):
    """Microseconds for each."""

    call: float
    call_concurrent: float
    life: float
    task: float


class Echo(Actor[int, int]):
    """Answers with what it is asked."""

    async def handle(self, request: int, call: Call[Any, Any]) -> int:
        """The request."""
        await trio.lowlevel.checkpoint()
        return request


async def measure(calls: int) -> Kernel:
    """Measure each, after a tenth of it as a warm-up."""

    async def call(times: int) -> None:
        for number in range(times):
            await actor.ref.call(number)

    async def call_concurrently(times: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENT):
                nursery.start_soon(call, times // CONCURRENT)

    async def live(times: int) -> None:
        for _ in range(times):
            async with trio.open_nursery() as nursery:
                ref = await nursery.start(Echo("short").run)
                await ref.stop(drain=0)

    async def start_tasks(times: int) -> None:
        for _ in range(times // 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
                nursery.start_soon(trio.lowlevel.checkpoint)

    actor = Echo("echo", capacity=2 * CONCURRENT, max_calls=2 * CONCURRENT)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        found = Kernel(
            call=await _microseconds(call, calls),
            call_concurrent=await _microseconds(call_concurrently, calls),
            life=await _microseconds(live, calls // 4),
            task=await _microseconds(start_tasks, calls),
        )
        await actor.ref.stop(drain=0)
    return found


async def _microseconds(work: Callable[[int], Awaitable[None]], times: int) -> float:
    await work(times // 10)
    began = time.perf_counter()
    await work(times)
    return (time.perf_counter() - began) / times * 1e6


def decode(data: bytes) -> Kernel:
    """Read what was printed."""
    return msgspec.json.decode(data, type=Kernel)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(measure, int(sys.argv[1]))))
