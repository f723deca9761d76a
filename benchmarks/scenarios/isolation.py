"""What one session does to the calls of another, when everything of the first goes wrong.

Claim: sessions share nothing but the process. While fifty calls of another session are stuck at its backend, the 99th
percentile of one session's calls stays below three times what it is alone. A flood of notifications from another's
backend keeps the process busy, whether its client reads them or not, so that each of the ten steps of a call waits for
its turn; with turns of at most 5 ms the 99th percentile stays below 50 ms. Falsified by more than that, by a call that
fails, or by one that hangs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from ..candidates import open_world
from ..generator import Generator, started
from ..processes import Running, over_http, status_until
from ..scenario import Bench, Figures, Plot, Result
from ..statistics import percentile

ROUNDS: Final = 5
SECONDS: Final = 1.5
QUICK_SECONDS: Final = 0.4
LONGER: Final = 0.5
"""Seconds that a flood goes on after it has been measured what it does."""
STUCK: Final = 50
MAX_TIMES: Final = 3.0
MAX_FLOODED: Final = 50.0
ALONE: Final = "p99, alone"

Trouble = Callable[[Running, float], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stuck(ours: Running, _: float) -> AsyncIterator[None]:
    """Another session whose calls have no answer."""
    async with started(ours, connections=STUCK, tool="b0_stuck") as other:
        await other.send()
        await status_until(ours, lambda now: any(one["running_calls"] == STUCK for one in now["sessions"]))
        yield


@asynccontextmanager
async def flooded(ours: Running, seconds: float) -> AsyncIterator[None]:
    """Another session that reads what its backend floods it with."""
    async with started(ours, tool="b0_flood", arguments={"seconds": seconds + LONGER}) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.call, 1)
            await status_until(ours, lambda now: any(one["running_calls"] for one in now["sessions"]))
            yield


@asynccontextmanager
async def unread(ours: Running, seconds: float) -> AsyncIterator[None]:
    """Another session that does not read what its backend floods it with."""
    arguments = {"seconds": seconds + LONGER, "where": "get"}
    async with started(ours, tool="b0_flood", arguments=arguments) as other:
        await other.listen()
        await status_until(ours, lambda now: any(one["open_streams"] for one in now["sessions"]))
        await other.call(1)
        yield


TROUBLES: Final[dict[str, Trouble]] = {
    f"{STUCK} stuck calls": stuck,
    "a flood that is read": flooded,
    "a flood that is not read": unread,
}


async def run(bench: Bench) -> Result:
    """Measure."""
    figures = Figures()
    rounds, seconds = bench.rounds(ROUNDS), bench.choose(SECONDS, QUICK_SECONDS)
    bench.expect(rounds * len(TROUBLES))
    async with open_world() as world:
        echo = await world.backend()
        # What is stuck is given up at once when its session ends.
        ours = await world.gateway(over_http([echo.url]), sessions={"drainTimeout": "0s"})
        one = await world.generator(ours, tool="b0_echo")
        await _p99(one, seconds)  # warm up
        for number in range(rounds):
            for name, trouble in TROUBLES.items():
                bench.step(f"{name}: round {number + 1} of {rounds}")
                figures.add(ALONE, await _p99(one, seconds), "ms", "lower", group=name)
                async with trouble(ours, seconds):
                    bound = None if trouble is stuck else MAX_FLOODED
                    figures.add(_p99_beside(name), await _p99(one, seconds), "ms", "lower", bound=bound, group=name)
                await status_until(ours, lambda now: len(now["sessions"]) == 1)
    for name, trouble in TROUBLES.items():
        bound = MAX_TIMES if trouble is stuck else None
        figures.relate(f"p99, {name} / alone", _p99_beside(name), ALONE, "lower", bound=bound, group=name)
    return Result(figures.all(), [], [_plot(figures)])


def _p99_beside(name: str) -> str:
    return f"p99, beside {name}"


async def _p99(one: Generator, seconds: float) -> float:
    """Of calls one after the other, in milliseconds."""
    await one.begin_calling()
    await trio.sleep(seconds)  # the measurement
    outcome = await one.stop_calling()
    return percentile(outcome.latencies, 0.99) * 1000


def _plot(figures: Figures) -> Plot:
    series: dict[str, list[tuple[float | str, float]]] = {
        "alone": [(name, figures.get(ALONE, name).median) for name in TROUBLES],
        "beside it": [(name, figures.get(_p99_beside(name), name).median) for name in TROUBLES],
    }
    return Plot("isolation", "bars", "99th percentile of one session's calls", "", "ms", series, "y")
