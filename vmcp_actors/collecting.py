"""Garbage collection in a process that holds many sessions: what lasts is looked at once, not again and again.

Python's full collection looks at every object that may be in a cycle, and nobody is served meanwhile: with a thousand
sessions it takes a second, and starting them brings one after the other. Here, what has survived a full collection is
set aside (`gc.freeze`), and the next one looks only at what is newer: some milliseconds, however many sessions there
are.

Objects that were set aside are freed as usual when the last reference to them goes: sessions, connections and calls
leave nothing behind in cycles, and tests hold them to that. For what others might leave, libraries or the decorators of
an embedding program, there is a thorough collection now and then.

These are settings of the process, so programs choose them, not the library: `serve` and the ASGI application do.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from attrs import frozen

from .sessions import SupervisorStatistics

logger = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between two thorough collections, at the least."""
MIN_ENDED: Final = 1000
ENDED_PER_LIVE: Final = 4
"""So many sessions have ended for each that lives, and `MIN_ENDED` at the least, when it is time for a thorough one."""

_FULL: Final = 2
_MIDDLE_PER_FULL: Final = 2
"""Collections of the middle generation for each full one: a full one is cheap here, if it comes often."""


@frozen
class CollectorStatistics:
    """What has been collected since the collector was put to work. `longest` is in seconds; nobody was served then."""

    full: int
    thorough: int
    found: int
    longest: float


class Collector:
    """Sets aside what survives full collections, while it is entered. One for a process."""

    def __init__(self) -> None:
        self._full = 0
        self._thorough = 0
        self._found = 0
        self._longest = 0.0
        self._began = 0.0

    def __enter__(self) -> Collector:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], _MIDDLE_PER_FULL)
        gc.callbacks.append(self._observe)
        self.collect_thoroughly()
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._observe)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def collect_thoroughly(self) -> None:
        """Look at everything, also at what was set aside. Nobody is served for 0.6 µs for each object."""
        gc.unfreeze()
        self._thorough += 1
        gc.collect()

    def _observe(self, phase: str, info: dict[str, Any]) -> None:
        if info["generation"] != _FULL:
            return
        if phase == "start":
            self._began = time.perf_counter()
            return
        gc.freeze()
        self._full += 1
        self._found += info["collected"]
        self._longest = max(self._longest, time.perf_counter() - self._began)

    def statistics(self) -> CollectorStatistics:
        """Counts as of now."""
        return CollectorStatistics(self._full, self._thorough, self._found, self._longest)

    def __repr__(self) -> str:
        return f"<Collector: {self._full} full collections, {self._thorough} thorough, {self._found} objects found>"


@asynccontextmanager
async def collecting(supervisor: Callable[[], SupervisorStatistics]) -> AsyncIterator[Collector]:
    """Put a collector to work while the body runs, with a thorough collection when it is due.

    It is due when enough sessions have ended that what they might have left is worth the time; or when some have, and
    nobody is there to wait for it.

    Args:
        supervisor: tells how many sessions live, and how many have ended so far.
    """
    with Collector() as collector:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_collect_when_due, collector, supervisor)
            yield collector
            nursery.cancel_scope.cancel("the server has ended")


async def _collect_when_due(collector: Collector, supervisor: Callable[[], SupervisorStatistics]) -> None:
    ended_before = 0
    while True:
        await trio.sleep(INTERVAL)
        statistics = supervisor()
        live, ended = statistics.sessions, sum(statistics.ended.values())
        more = ended - ended_before
        if more and (live == 0 or more >= max(MIN_ENDED, ENDED_PER_LIVE * live)):
            ended_before = ended
            collector.collect_thoroughly()
            logger.debug("after %d sessions: %r", ended, collector)


__all__ = ["Collector", "CollectorStatistics", "collecting"]
