"""What a warm tool call costs, beside the backend called directly and beside other gateways.

Claim: a call is one request on a kept connection, so what the gateway adds is HTTP twice and a few switches of tasks:
at most 0.25 ms of its processor time with its own HTTP server, 0.60 ms under hypercorn, and at least ten times the
throughput of a proxy that makes a client for each call, be it the SDK's or our own. It holds whatever is called for:
more clients, larger results, answers as JSON or as events, either kind of revisions, a child process. A result of 10 MB
is held a few times only. Falsified by more processor time, by less throughput, or by memory that is a large multiple of
the result.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any

from .. import proc
from ..candidates import Candidate, Contest, Excused, World, open_world
from ..generator import started
from ..peers import available
from ..processes import Running, over_http, over_stdio
from ..scenario import Bench, Figures, Plot, Result, medians

CONCURRENT = 16
ROUNDS = 7
AXIS_ROUNDS = 5
AXIS_SECONDS = 0.6
CPU_BOUNDS = {"fast": 0.25, "hypercorn": 0.60}
PER_CALL_PEERS = ("client-per-call", "sdk-client-per-call")
TIMES_PER_CALL_PEER = 10.0
CLIENTS = (1, 16, 128)
SIZES = (100, 10_000, 1_000_000, 10_000_000)
LARGE = SIZES[-1]
COPIES = 6.0
"""How often a large result may be held at the same time: as received, decoded, encoded, sent."""
NEAR_LIMIT = 0.7
OURS = "b0_echo"


async def run(bench: Bench) -> Result:
    """Measure."""
    figures, notes = Figures(), []
    for mode in ("legacy", "auto"):
        notes += await _base(bench, figures, mode)
    await _axes(bench, figures)
    await _memory(bench, figures)
    limit = figures.get("throughput, load generator's limit", _base_group("legacy"))
    figures.limit("throughput", limit, NEAR_LIMIT)
    notes += [
        f"The load generator alone makes {limit.median:,.0f} calls/s against a server that answers a constant.",
        "The backend is of a stateful revision in both base cases: an `auto` client asks for the stateless revision, "
        "is refused, and begins a session as a `legacy` one does. The calls are then the same.",
        "Processor time of a gateway includes that of its child processes: over that transport, the backend's own.",
        "With fewer processors than processes, the load generator, the gateway and the backend share them: throughput "
        "is that of all three, processor time that of the gateway alone.",
    ]
    notes += [f"{peer.name} {peer.version}: {peer.note}" for peer in available()]
    return Result(figures.all(), notes, _plots(figures))


def _base_group(mode: str) -> str:
    return f"{CONCURRENT} clients, 100 B, {mode}"


# --- the base case ----------------------------------------------------------------------------------------------------


async def _base(bench: Bench, figures: Figures, mode: str) -> list[str]:
    """Everybody, with the same load. Returns which peers were left out."""
    group = _base_group(mode)
    contest = Contest(bench, figures, group, (50, 95, 99))
    clients: dict[str, Any] = {"sessions": CONCURRENT}
    async with open_world() as world:
        echo = await world.backend()
        null = await world.null_server()
        candidates = [
            await world.candidate("load generator's limit", null, watched=False, mode="bare", **clients),
            await world.candidate("direct", echo, watched=False, mode=mode, **clients),
        ]
        ours = await world.gateways({http: {"backends": over_http([echo.url]), "http": http} for http in CPU_BOUNDS})
        for http, bound in CPU_BOUNDS.items():
            bounds = {"CPU per call": bound}
            candidates.append(await world.candidate(http, ours[http], tool=OURS, mode=mode, bounds=bounds, **clients))
        candidates += await _peers(world, contest, echo, mode)
        await contest.run(candidates, rounds=ROUNDS)
    names = [candidate.name for candidate in candidates if candidate.name not in contest.dropped]
    for name in names[2:]:
        figures.relate(f"latency p50, {name} / direct", f"latency p50, {name}", "latency p50, direct", group=group)
    figures.relate(
        "CPU per call, hypercorn / fast", "CPU per call, hypercorn", "CPU per call, fast", "higher", group=group
    )
    for name in names[4:]:
        times = TIMES_PER_CALL_PEER if name in PER_CALL_PEERS else None
        figures.relate(
            f"throughput, fast / {name}", "throughput, fast", f"throughput, {name}", "higher", bound=times, group=group
        )
    return [f"{name} was left out of “{group}”: {why}" for name, why in contest.dropped.items()]


async def _peers(world: World, contest: Contest, echo: Running, mode: str) -> list[Candidate]:
    candidates = []
    for peer in available():
        if mode in peer.modes:
            with Excused(peer.name, contest.dropped, excused=True):
                running = await world.peer(peer, echo.url)
                clients: dict[str, Any] = {"sessions": CONCURRENT, "mode": mode, "tool": peer.tool}
                candidates.append(await world.candidate(peer.name, running, is_peer=True, **clients))
    return candidates


# --- one thing at a time ----------------------------------------------------------------------------------------------


async def _axes(bench: Bench, figures: Figures) -> None:
    """What else a call may be, each time against what it is mostly."""
    async with open_world() as world:
        echo, events, stateless = (
            await world.backend(),
            await world.backend("--sse"),
            await world.backend("--stateless"),
        )
        lease = {"mode": "lease"}
        child = [sys.executable, "-m", "benchmarks.stdio_backend"]
        ours = await world.gateways(
            {
                "JSON": {"backends": over_http([echo.url])},
                "events": {"backends": over_http([events.url])},
                "stateful": {"backends": over_http([echo.url]), "stateless": lease},
                "stateless": {"backends": over_http([stateless.url]), "stateless": lease},
                "child process": {"backends": over_stdio(child)},
            }
        )
        many: dict[str, Any] = {"sessions": CONCURRENT}

        async def pair(label: str, kind: str = "JSON", **clients: Any) -> list[Candidate]:
            """Directly, and through the gateway."""
            direct = events if kind == "events" else echo
            return [
                await world.candidate(f"direct, {label}", direct, watched=False, **clients),
                await world.candidate(f"fast, {label}", ours[kind], tool=OURS, **clients),
            ]

        async def contest(group: str, candidates: list[Candidate]) -> None:
            await Contest(bench, figures, group).run(candidates, rounds=AXIS_ROUNDS, seconds=AXIS_SECONDS)

        by_clients = [await pair(f"{count} clients", sessions=count) for count in CLIENTS]
        await contest("clients", [*chain(*by_clients)])
        by_size = [await pair(f"{size:,} B", sessions=4, arguments={"bytes": size}) for size in SIZES]
        await contest("bytes of a result", [*chain(*by_size)])
        answers = [*await pair("JSON", **many), *await pair("events", "events", **many)]
        await contest("answers of the backend", answers)
        revisions = [
            await world.candidate(f"fast, {client} client, {kind} backend", ours[kind], tool=OURS, mode=mode, **many)
            for kind in ("stateful", "stateless")
            for client, mode in (("stateful", "legacy"), ("stateless", "auto"))
        ]
        await contest("revisions", revisions)
        transports = [
            await world.candidate(f"fast, {name}", ours[kind], tool=OURS, **many)
            for name, kind in (("HTTP", "JSON"), ("child process", "child process"))
        ]
        await contest("transport of the backend", transports)


async def _memory(bench: Bench, figures: Figures) -> None:
    """The most that the gateway holds while it passes large results on, one at a time, over what it held before."""
    rounds = bench.rounds(AXIS_ROUNDS)
    bench.expect(rounds)
    async with open_world() as world:
        echo = await world.backend()
        for number in range(rounds):
            bench.step(f"memory: round {number + 1} of {rounds}")
            # A new gateway each time: one that has freed memory would not grow again.
            async with open_world() as fresh:
                ours = await fresh.gateway(over_http([echo.url]))
                async with started(ours, tool=OURS, arguments={"bytes": 100}) as small:
                    await small.call(100)
                async with started(ours, tool=OURS, arguments={"bytes": LARGE}) as large:
                    before = ours.resident_bytes()
                    proc.reset_peak(ours.pid)
                    await large.call(bench.choose(20, 3))
                    held = proc.peak_bytes(ours.pid) - before
            group = "memory for results of 10 MB"
            figures.add("peak over before", held / 2**20, "MiB", "lower", group=group)
            figures.add("peak over before / size", held / LARGE, "×", "lower", bound=COPIES, group=group)


# --- plots ------------------------------------------------------------------------------------------------------------


def _plots(figures: Figures) -> list[Plot]:
    base = [figure for figure in figures.all() if figure.group == _base_group("legacy")]
    bars = [
        Plot(
            name,
            "bars",
            f"{quantity}, {_base_group('legacy')}",
            "",
            f"{quantity} ({unit})",
            {"": [(figure.name.partition(", ")[2], figure.median) for figure in _of(base, quantity, unit)]},
            logarithmic="y",
        )
        for name, quantity, unit in (
            ("per_call-cpu", "CPU per call", "ms"),
            ("per_call-throughput", "throughput", "calls/s"),
        )
    ]
    return [
        *bars,
        _lines(figures, "clients", ("throughput", "calls/s"), CLIENTS, "{} clients"),
        _lines(figures, "bytes of a result", ("latency p50", "ms"), SIZES, "{:,} B"),
    ]


def _of(base: list[Any], quantity: str, unit: str) -> list[Any]:
    """The figures of a quantity, without its ratios."""
    return [figure for figure in base if figure.name.startswith(f"{quantity}, ") and figure.unit == unit]


def _lines(figures: Figures, group: str, quantity: tuple[str, str], xs: tuple[int, ...], label: str) -> Plot:
    what, unit = quantity
    series = {
        who: medians([figures.get(f"{what}, {who}, {label.format(x)}", group) for x in xs], xs)
        for who in ("direct", "fast")
    }
    name = f"per_call-{group.replace(' ', '-')}"
    return Plot(name, "lines", f"{what} by {group}", group, f"{what} ({unit})", series, logarithmic="xy")
