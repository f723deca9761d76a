"""How many HTTP requests reach the backend for a warm tool call.

Claim: exactly one, on a connection that is kept: nothing is connected, discovered or negotiated again. The backend
counts. Falsified by any other number than one, or by a connection that is opened for a call.
"""

from __future__ import annotations

from typing import Final

from ..candidates import Excused, open_world
from ..generator import Generator, started
from ..processes import Running, counts, over_http, reset_counts
from ..scenario import Bench, Figures, Plot, Result

CALLS: Final = 100
WARM_UP: Final = 10
ROUNDS: Final = 3


async def run(bench: Bench) -> Result:
    """Measure."""
    from ..peers import available  # noqa: PLC0415  # they bring packages of their own

    figures, dropped = Figures(), dict[str, str]()
    notes = []
    peers = available()
    bench.expect(1 + len(peers))
    async with open_world() as world:
        echo = await world.backend()
        bench.step("ours")
        ours = await world.gateway(over_http([echo.url]))
        async with started(ours, tool="b0_echo") as generator:
            await _count(bench, figures, "ours", generator, echo, bounds=(1.0, 0.0))
        for peer in peers:
            bench.step(peer.name)
            if peer.backend != "http":
                notes.append(f"{peer.name} has its backend as a child process: there are no requests to count.")
                continue
            with Excused(peer.name, dropped, excused=True):
                running = await world.peer(peer, echo.url)
                async with started(running, tool=peer.tool, mode=peer.modes[0]) as generator:
                    await _count(bench, figures, peer.name, generator, echo)
    ours_alone = figures.get("requests per call, ours")
    if ours_alone.range != (1.0, 1.0):
        notes.append(f"It is not always exactly one: {ours_alone.samples}.")
    notes += [f"{name} was left out: {why}" for name, why in dropped.items()]
    bars: list[tuple[float | str, float]] = [
        (_candidate(figure.name), figure.median) for figure in figures.all() if figure.unit == "requests"
    ]
    plot = Plot("wire_requests", "bars", "HTTP requests at the backend for a call", "", "requests", {"": bars})
    return Result(figures.all(), notes, [plot])


async def _count(
    bench: Bench,
    figures: Figures,
    name: str,
    generator: Generator,
    echo: Running,
    *,
    bounds: tuple[float | None, float | None] = (None, None),
) -> None:
    await generator.call(WARM_UP)
    for _ in range(bench.rounds(ROUNDS)):
        await reset_counts(echo)
        await generator.call(CALLS)
        counted = await counts(echo)
        requests = sum(count for what, count in counted.items() if what.startswith("HTTP ")) / CALLS
        figures.add(f"requests per call, {name}", requests, "requests", "lower", bound=bounds[0])
        # The one over which it was counted does not count.
        opened = (counted["connections"] - 1) / CALLS
        figures.add(f"connections opened per call, {name}", opened, "connections", "lower", bound=bounds[1])


def _candidate(name: str) -> str:
    return name.partition(", ")[2]
