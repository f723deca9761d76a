"""How long a client waits for its session, and how many sessions can be started.

Claim: backends are connected in parallel, so that a session with twenty backends of 50 ms starts within four times what
one takes; a backend that is down or silent delays it by `sessions.readyTimeout` at most; with two backends 60 sessions
start in a second. Falsified by a start that grows with the number of backends, by a dead backend that costs more than
half a second over the timeout, or by a lower rate.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..candidates import World, open_world
from ..generator import load
from ..plan import Outcome
from ..processes import Running, over_http
from ..scenario import Bench, Figures, Plot, Result, medians

BACKENDS: Final = (1, 5, 20)
DELAYS: Final = (0, 50, 200)
ROUNDS: Final = 5
TIMES_ONE: Final = 4.0
STARTS_PER_SECOND: Final = 60.0
BURST: Final = 100
READY_TIMEOUT: Final = 0.5
GRACE: Final = 0.5
"""Seconds over the timeout that a dead backend may cost."""
PATIENT: Final = {"readyTimeout": "60s"}
DEAD: Final = f"{max(BACKENDS)} backends of 0 ms, readyTimeout {READY_TIMEOUT * 1000:.0f} ms"
BURSTS: Final = f"{BURST} sessions at once, 2 backends"


async def run(bench: Bench) -> Result:
    """Measure."""
    figures = Figures()
    await _by_backends(bench, figures)
    await _dead(bench, figures)
    await _bursts(bench, figures)
    series = {
        f"{delay} ms each": medians([figures.get(_start(count), _group(delay)) for count in BACKENDS], BACKENDS)
        for delay in _delays(bench)
    }
    series["50 ms each, one after the other"] = medians(
        [figures.get(f"{_start(count)}, sequential", _group(50)) for count in BACKENDS], BACKENDS
    )
    plot = Plot("session_start", "lines", "Time until initialize is answered", "backends", "ms", series, "xy")
    notes = [
        "A handshake with a backend is `initialize`, a notification, and `tools/list`; each request takes the delay.",
        "Sequential is the same gateway with `sessions.backendInitConcurrency: 1`; the default is 10.",
    ]
    return Result(figures.all(), notes, [plot])


def _delays(bench: Bench) -> Sequence[int]:
    return bench.choose(DELAYS, DELAYS[:2])


def _group(delay: int) -> str:
    return f"backends of {delay} ms"


def _start(count: int) -> str:
    return f"start with {count}"


async def _by_backends(bench: Bench, figures: Figures) -> None:
    rounds = bench.rounds(ROUNDS)
    bench.expect(rounds + 1)
    bench.step("starting gateways")
    async with open_world() as world:
        gateways = await world.gateways(await _wanted(world, _delays(bench)))
        for ours in gateways.values():
            await _initialized(ours)  # warm up
        for number in range(rounds):
            bench.step(f"number of backends: round {number + 1} of {rounds}")
            for (group, name), ours in gateways.items():
                figures.add(name, await _initialized(ours) * 1000, "ms", "lower", group=group)
    for delay in _delays(bench):
        bound = TIMES_ONE if delay == 50 else None
        figures.relate("start, 20 / 1", _start(20), _start(1), "lower", bound=bound, group=_group(delay))
    figures.relate(
        "start with 20, sequential / parallel", f"{_start(20)}, sequential", _start(20), "higher", group=_group(50)
    )


async def _wanted(world: World, delays: Sequence[int]) -> dict[tuple[str, str], dict[str, Any]]:
    """The gateways to start, by group and name of their figures."""
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for delay in delays:
        url = (await world.backend("--delay", str(delay / 1000))).url
        for count in BACKENDS:
            backends = over_http([url] * count)
            wanted[_group(delay), _start(count)] = {"backends": backends, "sessions": PATIENT}
            if delay == 50:
                one_by_one = {**PATIENT, "backendInitConcurrency": 1}
                wanted[_group(delay), f"{_start(count)}, sequential"] = {"backends": backends, "sessions": one_by_one}
    return wanted


async def _initialized(ours: Running) -> float:
    """Seconds until `initialize` is answered."""
    return (await _started(ours, 1)).latencies[0]


async def _started(ours: Running, sessions: int) -> Outcome:
    """What came of so many sessions that were begun at once; they are ended."""
    async with load(ours, sessions=sessions) as generator:
        outcome = await generator.start()
        await generator.end()
    return outcome


# --- a dead backend among others --------------------------------------------------------------------------------------


@contextmanager
def _refusing() -> Iterator[str]:
    """The URL of a port that nobody listens at, and that nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"


async def _dead(bench: Bench, figures: Figures) -> None:
    """Twenty backends; one of them refuses connections, or accepts them and says nothing."""
    rounds = bench.rounds(ROUNDS)
    bench.expect(rounds)
    settings = {"readyTimeout": f"{READY_TIMEOUT * 1000:.0f}ms"}
    async with open_world() as world:
        with _refusing() as refusing:
            others = [(await world.backend()).url] * (max(BACKENDS) - 1)
            silent = (await world.backend("--silent")).url
            last = {"all alive": others[0], "one refuses": refusing, "one is silent": silent}
            gateways = await world.gateways(
                {name: {"backends": over_http([*others, url]), "sessions": settings} for name, url in last.items()}
            )
            for number in range(rounds):
                bench.step(f"a dead backend: round {number + 1} of {rounds}")
                for name, ours in gateways.items():
                    sample = await _initialized(ours) * 1000
                    figures.add(name, sample, "ms", "lower", bound=_bound(name), group=DEAD)


def _bound(name: str) -> float | None:
    return None if name == "all alive" else (READY_TIMEOUT + GRACE) * 1000


# --- many at once -----------------------------------------------------------------------------------------------------


async def _bursts(bench: Bench, figures: Figures) -> None:
    rounds = bench.rounds(ROUNDS)
    bench.expect(rounds)
    async with open_world() as world:
        echo = await world.backend()
        ours = await world.gateway(over_http([echo.url] * 2), sessions=PATIENT)
        await _started(ours, BURST)  # warm up
        for number in range(rounds):
            bench.step(f"burst: round {number + 1} of {rounds}")
            seconds = (await _started(ours, BURST)).seconds
            figures.add("until all have started", seconds * 1000, "ms", "lower", group=BURSTS)
            rate = BURST / seconds
            figures.add("starts per second", rate, "1/s", "higher", bound=STARTS_PER_SECOND, group=BURSTS)
