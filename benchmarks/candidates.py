"""Candidates that are measured against each other: they alternate, round by round, in one run."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
from attrs import define, field, frozen

from .generator import Generator, LoadFailed, load, started
from .processes import Running, backend, gateway, server
from .scenario import Bench, Figures
from .statistics import percentile

if TYPE_CHECKING:
    from .peers import Peer

K = TypeVar("K")
T = TypeVar("T")

NULL_SERVER: Final = (sys.executable, "-m", "benchmarks.null_server")
ROUND_SECONDS: Final = 1.0
QUICK_SECONDS: Final = 0.15
WARM_UP: Final = 50
"""Calls of each connection before anything counts, or as many as fit into a round."""


@frozen
class Candidate:
    """Something that is called, by a load generator of its own, whose sessions stay from round to round.

    Attributes:
        watch: whose processor time counts.
        is_peer: it may fail, and is then left out; ours must not.
        bounds: by the name of the figure, without that of the candidate.
    """

    name: str
    generator: Generator
    connections: int
    watch: Running | None = None
    is_peer: bool = False
    bounds: Mapping[str, float] = field(factory=dict)


@frozen
class World:
    """Everything that runs while something is measured; all of it ends with the world, at the same time."""

    _nursery: trio.Nursery

    async def backend(self, *options: str) -> Running:
        """Start an echo backend."""
        return await self._enter(server(backend(*options)))

    async def null_server(self) -> Running:
        """Start the server that answers a constant."""
        return await self._enter(server(NULL_SERVER))

    async def gateway(self, backends: Sequence[Mapping[str, Any]], **settings: Any) -> Running:
        """Start a gateway."""
        return await self._enter(gateway(backends, **settings))

    async def gateways(self, wanted: Mapping[K, Mapping[str, Any]]) -> dict[K, Running]:
        """Start several at the same time; by their keys, the arguments of `gateway`."""
        running: dict[K, Running] = {}

        async def start(key: K) -> None:
            running[key] = await self.gateway(**wanted[key])

        async with trio.open_nursery() as nursery:
            for key in wanted:
                nursery.start_soon(start, key)
        return {key: running[key] for key in wanted}

    async def peer(self, peer: Peer, backend_url: str) -> Running:
        """Start a peer."""
        from .peers import serving  # noqa: PLC0415  # they bring packages of their own

        return await self._enter(serving(peer, backend_url))

    async def generator(self, running: Running, **clients: Any) -> Generator:
        """Start the sessions of a load generator."""
        return await self._enter(started(running, **clients))

    async def waiting_generator(self, running: Running, **clients: Any) -> Generator:
        """Start a load generator, without its sessions."""
        return await self._enter(load(running, **clients))

    async def candidate(
        self,
        name: str,
        running: Running,
        *,
        watched: bool = True,
        is_peer: bool = False,
        bounds: Mapping[str, float] | None = None,
        **clients: Any,
    ) -> Candidate:
        """Start the sessions of a load generator for somebody who is measured."""
        generator = await self.generator(running, **clients)
        connections = clients.get("sessions", 1) * clients.get("connections", 1)
        return Candidate(name, generator, connections, running if watched else None, is_peer, bounds or {})

    async def _enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        value: T = await self._nursery.start(_hold, manager)
        return value


async def _hold(manager: AbstractAsyncContextManager[T], *, task_status: trio.TaskStatus[T]) -> None:
    async with manager as value:
        task_status.started(value)
        await trio.sleep_forever()


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """A world for the body."""
    async with trio.open_nursery() as nursery:
        yield World(nursery)
        nursery.cancel_scope.cancel("it has been measured")


@define
class Contest:
    """Measures candidates against each other.

    Attributes:
        dropped: by the name of a peer that failed, why.
    """

    bench: Bench
    figures: Figures
    group: str
    percentiles: Sequence[int] = (50, 99)
    dropped: dict[str, str] = field(factory=dict, init=False)

    async def run(self, candidates: Sequence[Candidate], *, rounds: int, seconds: float = ROUND_SECONDS) -> None:
        """Warm all up, then let them alternate. A round of one of them takes about so many seconds."""
        rounds = self.bench.rounds(rounds)
        self.bench.expect(rounds + 1)
        self.bench.step(f"{self.group}: warming up")
        calls = {}
        for candidate in candidates:
            with self._excused(candidate):
                calls[candidate.name] = await self._calibrate(candidate, self.bench.choose(seconds, QUICK_SECONDS))
        for number in range(rounds):
            self.bench.step(f"{self.group}: round {number + 1} of {rounds}")
            for candidate in candidates:
                if candidate.name not in self.dropped:
                    with self._excused(candidate):
                        await self._measure(candidate, calls[candidate.name])
        for name in self.dropped:
            self.figures.forget(name, self.group)

    def _excused(self, candidate: Candidate) -> Excused:
        return Excused(candidate.name, self.dropped, candidate.is_peer)

    async def _calibrate(self, candidate: Candidate, seconds: float) -> int:
        """Warm up; how many calls it can do in so many seconds."""
        connections = candidate.connections
        first = await candidate.generator.call(connections)
        calls = min(WARM_UP * connections, max(connections, int(connections / first.seconds * seconds)))
        outcome = await candidate.generator.call(calls)
        return max(2 * connections, int(calls / outcome.seconds * seconds))

    async def _measure(self, candidate: Candidate, calls: int) -> None:
        outcome = await candidate.generator.call(calls, watch=candidate.watch)
        for part in self.percentiles:
            latency = percentile(outcome.latencies, part / 100) * 1000
            self._add(f"latency p{part}", candidate, latency, "ms", "lower")
        self._add("throughput", candidate, calls / outcome.seconds, "calls/s", "higher")
        if candidate.watch is not None:
            self._add("CPU per call", candidate, outcome.cpu / calls * 1000, "ms", "lower")

    def _add(self, quantity: str, candidate: Candidate, sample: float, unit: str, better: Any) -> None:
        bound = candidate.bounds.get(quantity)
        self.figures.add(f"{quantity}, {candidate.name}", sample, unit, better, bound=bound, group=self.group)


@frozen
class Excused:
    """What goes wrong with a peer is noted, and it is left out; what goes wrong with ours ends the run."""

    name: str
    dropped: dict[str, str]
    excused: bool

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self.excused and isinstance(error, Exception):
            self.dropped[self.name] = sole_message(error)
            return True
        return False


def sole_message(error: BaseException) -> str:
    """The text of an error, of the first one in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LoadFailed | trio.TooSlowError | RuntimeError):
        return str(error)[:300] or type(error).__name__
    return f"{type(error).__name__}: {error}"[:300]
