"""Garbage collection of a server: what lasts is looked at once; what is left in cycles is found all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from vmcp_actors.collecting import INTERVAL, Collector, collecting
from vmcp_actors.sessions import SupervisorStatistics


class Node:
    """Something in a cycle with itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def test_what_survives_a_full_collection_is_not_looked_at_again(collector: Collector) -> None:
    kept = Node()
    assert gc.is_tracked(kept)
    gc.collect()
    assert not any(one is kept for one in gc.get_objects())
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is not None


def test_a_thorough_collection_finds_what_was_set_aside(collector: Collector) -> None:
    kept = Node()
    gc.collect()
    gone = weakref.ref(kept)
    del kept
    before = collector.statistics()
    collector.collect_thoroughly()
    after = collector.statistics()

    assert gone() is None
    assert after.thorough == before.thorough + 1
    assert after.full == before.full + 1
    assert after.found > before.found
    assert after.longest > 0


def test_what_is_set_aside_is_freed_with_its_last_reference(collector: Collector) -> None:
    kept = Plain()
    kept.content = [kept.__class__]
    gc.collect()
    gone = weakref.ref(kept)
    del kept
    assert gone() is None


class Plain:
    """Something in no cycle."""

    content: object = None


def test_the_settings_of_the_process_are_given_back() -> None:
    before = gc.get_threshold(), len(gc.callbacks), gc.get_freeze_count()
    with Collector():
        assert gc.get_freeze_count() > before[2]
        assert gc.get_threshold() != before[0]
    assert (gc.get_threshold(), len(gc.callbacks), gc.get_freeze_count()) == before


@pytest.mark.parametrize(
    ("live", "ended", "due"),
    [
        (0, 0, False),
        (0, 1, True),
        (1, 1, False),
        (1, 999, False),
        (1, 1000, True),
        (1000, 3999, False),
        (1000, 4000, True),
    ],
)
async def test_a_thorough_collection_is_due_when_enough_has_ended(
    live: int, ended: int, due: bool, autojump_clock: MockClock
) -> None:
    def counts() -> SupervisorStatistics:
        return SupervisorStatistics(
            sessions=live, starting=0, started=live + ended, refused=0, crashes=0, draining=False, ended={"idle": ended}
        )

    async with collecting(counts) as collector:
        at_first = collector.statistics().thorough
        await trio.sleep(INTERVAL * 10.5)
        more = collector.statistics().thorough - at_first

    assert more == (1 if due else 0)
