"""What a session costs stays what it is, however many there are: memory, start, and the processor time of a call.

Claim: with five HTTP backends an idle session holds at most 400 KiB; a call costs at most one and a half times as much
with the most sessions as with ten, both when a few of them are called again and again, and when all are, one after the
other; calls of others go on while sessions are started; when all have been deleted, tasks and descriptors are what they
were. Falsified by more memory, by a cost that grows with the number of sessions, or by something that is left.
"""

from __future__ import annotations

from typing import Final

import trio
from attrs import define

from ..candidates import World, open_world
from ..generator import Generator, load, started
from ..load import raise_limit
from ..processes import Running, over_http, status_until
from ..scenario import Bench, Figures, Plot, Result, medians
from ..soak.measure import Sample, left_behind, settled, take
from ..statistics import percentile

BACKENDS: Final = 5
SESSIONS: Final = (1, 10, 100, 1000, 2000)
QUICK_SESSIONS: Final = (1, 10, 100)
DESCRIPTORS: Final = 1 + 2 * BACKENDS
"""Of the gateway for each session: the client's connection, and two to each backend."""
SPARE: Final = 200
AT_ONCE: Final = 50
AT_ONCE_CALLED: Final = 16
CALLS: Final = 2000
ROUNDS: Final = 5
MAX_KIB: Final = 400.0
MAX_TIMES: Final = 1.5
TEN: Final = 10
A_FEW: Final = "to a few"
IN_TURN: Final = "in turn"
SETTLED_WITHIN: Final = 60.0


@define
class Held:
    """A gateway with so many sessions, which wait for calls."""

    sessions: int
    ours: Running
    generator: Generator
    before: Sample


async def run(bench: Bench) -> Result:
    """Measure."""
    figures = Figures()
    sizes, notes = _sizes(bench)
    rounds = bench.rounds(ROUNDS)
    bench.expect(2 * len(sizes) + rounds)
    async with open_world() as world:
        held = []
        for sessions, ours in (await _gateways(world, sizes)).items():
            bench.step(f"starting {sessions} sessions")
            held.append(await _hold(world, figures, ours, sessions))
        for number in range(rounds):
            bench.step(f"calls: round {number + 1} of {rounds}")
            for one in held:
                await _call(figures, one)
        for one in held:
            bench.step(f"ending {one.sessions} sessions")
            await _give_back(figures, one)
    most = max(sizes)
    for whom in (A_FEW, IN_TURN):
        figures.relate(
            f"{_cpu(most, whom)} / {TEN} sessions",
            _cpu(most, whom),
            _cpu(TEN, whom),
            "lower",
            bound=MAX_TIMES,
            group="calls",
        )
    notes.append(
        "When sessions are called in turn, what they hold has to come from memory again: no cache holds them all."
    )
    notes.append("Starts and memory are of one gateway each, so they have one sample; calls alternate.")
    return Result(figures.all(), notes, _plots(figures, sizes))


def _sizes(bench: Bench) -> tuple[list[int], list[str]]:
    """How many sessions to hold, as far as there are descriptors for them."""
    limit = raise_limit()
    most = (limit - SPARE) // DESCRIPTORS
    wanted = bench.choose(SESSIONS, QUICK_SESSIONS)
    sizes = sorted({min(size, most) for size in wanted})
    if most >= max(wanted):
        return sizes, []
    return sizes, [f"{max(wanted)} sessions would need more than the {limit} descriptors allowed: {most} are held."]


def _cpu(sessions: int, whom: str) -> str:
    return f"CPU per call {whom}, {sessions} sessions"


async def _gateways(world: World, sizes: list[int]) -> dict[int, Running]:
    """One for each number of sessions, with a backend of its own: it, too, has only so many descriptors."""
    wanted = {}
    for size in sizes:
        echo = await world.backend()
        wanted[size] = {"backends": over_http([echo.url] * BACKENDS), "sessions": {"readyTimeout": "60s"}}
    return await world.gateways(wanted)


async def _hold(world: World, figures: Figures, ours: Running, sessions: int) -> Held:
    """Start so many sessions, while another one calls now and then."""
    async with started(ours, tool="b0_echo") as warm:
        await warm.call(500)
        alone = await warm.call(500)
    before = await _settled_empty(ours)
    generator = await world.waiting_generator(ours, sessions=sessions, tool="b0_echo")
    async with load(ours, tool="b0_echo") as probe:
        await probe.start()
        await probe.begin_calling(pause=0.002)
        begun = await generator.start(at_once=AT_ONCE)
        probed = await probe.stop_calling()
        await probe.end()
    await _streams_open(ours, sessions)
    kib = (ours.resident_bytes() - before.resident) / sessions / 1024
    bound = MAX_KIB if sessions >= 100 else None
    figures.add(f"idle session, {sessions} sessions", kib, "KiB", "lower", bound=bound, group="memory")
    figures.add(f"idle connection, {sessions} sessions", kib / BACKENDS, "KiB", "lower", group="memory")
    figures.add(f"starts per second, {sessions} sessions", sessions / begun.seconds, "1/s", "higher", group="start")
    for what, outcome in (("alone", alone), (f"while {sessions} sessions start", probed)):
        p99 = percentile(outcome.latencies, 0.99) * 1000
        figures.add(f"p99 of another's call, {what}", p99, "ms", "lower", group="start")
    return Held(sessions, ours, generator, before)


async def _settled_empty(ours: Running) -> Sample:
    """What a gateway holds that has no session."""
    await status_until(ours, lambda now: not now["sessions"])
    return await trio.to_thread.run_sync(lambda: take(ours, seconds=0.0, operations=0))


async def _streams_open(ours: Running, sessions: int) -> None:
    """Wait until the streams that sessions open after their start are open too, and the probe's session has ended."""
    before = -1
    while True:
        sample = await trio.to_thread.run_sync(lambda: take(ours, seconds=0.0, operations=0))
        if sample.sessions == sessions and sample.files == before:
            return
        before = sample.files
        await trio.sleep(0.2)


async def _call(figures: Figures, held: Held) -> None:
    """Some sessions at a time: all of them in turn, then ten or a few more, as often in all."""
    for whom, of in ((IN_TURN, held.sessions), (A_FEW, min(TEN, held.sessions))):
        each = max(1, CALLS // of)
        calls = each * of
        outcome = await held.generator.call(calls, each=each, at_once=AT_ONCE_CALLED, watch=held.ours)
        figures.add(_cpu(held.sessions, whom), outcome.cpu / calls * 1000, "ms", "lower", group="calls")


async def _give_back(figures: Figures, held: Held) -> None:
    await held.generator.end()
    after = await settled(held.ours, held.before, SETTLED_WITHIN)
    left = left_behind(held.before, after)
    if left:
        raise RuntimeError(f"after {held.sessions} sessions {', '.join(left)}")
    figures.add("left behind", len(left), "kinds of things", "lower", bound=0.0, group="afterwards")


def _plots(figures: Figures, sizes: list[int]) -> list[Plot]:
    kib = [figures.get(f"idle session, {size} sessions", "memory") for size in sizes]
    cpu = {
        whom: medians([figures.get(_cpu(size, whom), "calls") for size in sizes], sizes) for whom in (A_FEW, IN_TURN)
    }
    return [
        Plot("scale-memory", "lines", "Memory of an idle session", "sessions", "KiB", {"": medians(kib, sizes)}, "x"),
        Plot("scale-cpu", "lines", "CPU of a call", "sessions", "ms", cpu, "x"),
    ]
