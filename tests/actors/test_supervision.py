"""Supervision and service nurseries, in virtual time."""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vmcp_actors.actors import (
    Backoff,
    ChildSpec,
    Decision,
    ExitKind,
    ExitReason,
    Intensity,
    Restart,
    Supervisor,
    open_service_nursery,
    supervise,
)
from vmcp_actors.errors import RestartsExhausted


def crashing(times: int, log: list[float]) -> Any:
    """A child that crashes at once `times` times and then stays."""

    async def run(*, task_status: Any) -> None:
        log.append(trio.current_time())
        task_status.started(len(log))
        if len(log) <= times:
            raise ValueError("boom")
        await trio.sleep_forever()

    return run


async def test_child_crash_leaves_siblings(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """One for one: the sibling never notices; the crash is logged once, and the child is gone."""
    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor("top", nursery)
            sibling_log: list[float] = []
            await supervisor.start(ChildSpec("sibling", crashing(0, sibling_log)))
            await supervisor.start(ChildSpec("victim", crashing(1, [])))
            await wait_all_tasks_blocked()

            assert [child.name for child in supervisor.children()] == ["sibling"]
            assert supervisor.crashes == 1
            assert repr(supervisor) == "<Supervisor top: 1 children, 1 crashes>"
            nursery.cancel_scope.cancel()

    assert [record.getMessage() for record in caplog.records] == ["top: victim crashed"]


async def test_start_failure_reaches_the_starter_bare(autojump_clock: MockClock) -> None:
    """A child that was never ready is the starter's problem, whatever its restart kind."""

    async def run(*, task_status: Any) -> None:
        raise OSError("not ready")

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor("top", nursery)
        for restart in Restart:
            with pytest.raises(OSError, match="not ready"):
                await supervisor.start(ChildSpec("child", run, restart=restart))

        assert supervisor.children() == ()


async def test_transient_child_is_restarted_with_back_off(autojump_clock: MockClock) -> None:
    """Delays grow, jittered between half and the whole, up to the maximum."""
    log: list[float] = []
    spec = ChildSpec("child", crashing(4, log), restart=Restart.TRANSIENT, backoff=Backoff(1, 4, random.Random(7)))
    with trio.move_on_after(100):
        await supervise(spec)

    delays = [after - before for before, after in pairwise(log)]
    assert len(delays) == 4
    assert all(ceiling / 2 <= delay <= ceiling for delay, ceiling in zip(delays, [1, 2, 4, 4], strict=True))


async def test_intensity_gives_up_and_reports(autojump_clock: MockClock) -> None:
    """The sixth crash within the period is too many: an outcome, not a log line."""
    log: list[float] = []
    exits: list[tuple[ExitReason, Decision]] = []
    spec = ChildSpec(
        "child",
        crashing(100, log),
        restart=Restart.TRANSIENT,
        intensity=Intensity(5, 30),
        on_exit=lambda reason, decision: exits.append((reason, decision)),
    )
    with pytest.raises(RestartsExhausted, match="child crashed too often, last: boom"):
        await supervise(spec)

    assert len(log) == 6
    assert [decision.given_up for _, decision in exits] == [False] * 5 + [True]
    assert exits[-1][1].delay is None
    assert str(exits[-1][0]) == "crashed: boom"


async def test_crashes_far_apart_are_within_the_intensity(autojump_clock: MockClock) -> None:
    """The period slides."""
    intensity = Intensity(1, 10)
    verdicts = []
    for _ in range(5):
        verdicts.append(intensity.crashed())
        await trio.sleep(11)

    assert verdicts == [True] * 5
    assert intensity.crashed()
    assert not intensity.crashed()


async def test_cool_down_begins_anew_after_giving_up(autojump_clock: MockClock) -> None:
    """A backend that was given up comes back by itself."""
    log: list[float] = []
    decisions: list[Decision] = []
    spec = ChildSpec(
        "child",
        crashing(3, log),
        restart=Restart.TRANSIENT,
        intensity=Intensity(1, 30),
        backoff=Backoff(1, 1),
        cool_down=60,
        on_exit=lambda _, decision: decisions.append(decision),
    )
    with trio.move_on_after(200):
        await supervise(spec)

    assert len(log) == 4
    assert decisions[1] == Decision(60, given_up=True)


async def test_permanent_child_is_restarted_after_a_normal_exit(autojump_clock: MockClock) -> None:
    """Transient and temporary ones are not."""

    async def once(*, task_status: Any) -> None:
        starts.append(trio.current_time())
        await trio.sleep(1)

    starts: list[float] = []
    with trio.move_on_after(3.5):
        await supervise(ChildSpec("child", once, restart=Restart.PERMANENT))
    assert len(starts) == 4

    for restart in (Restart.TRANSIENT, Restart.TEMPORARY):
        reason = await supervise(ChildSpec("child", once, restart=restart))
        assert reason.kind is ExitKind.NORMAL
        assert str(reason) == "normal"


async def test_services_outlive_the_body_when_cancelled_from_above(autojump_clock: MockClock) -> None:
    """In a plain nursery the order would be random; here it is not, however often one tries."""
    for _ in range(20):
        order: list[str] = []

        async def service(order: list[str] = order) -> None:
            try:
                await trio.sleep_forever()
            finally:
                order.append("service")

        with trio.move_on_after(5):
            async with open_service_nursery() as services:
                services.start_soon(service)
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(1, shield=True):
                        await trio.sleep(0.5)
                    order.append("body")

        assert order == ["body", "service"]


async def test_a_started_service_is_shielded_from_then_on(autojump_clock: MockClock) -> None:
    """`start` gives its value, and the service outlives the body as well."""
    order: list[str] = []

    async def service(*, task_status: Any) -> None:
        await trio.sleep(1)
        task_status.started("ready")
        try:
            await trio.sleep_forever()
        finally:
            order.append("service")

    with trio.move_on_after(5):
        async with open_service_nursery() as services:
            assert await services.start(service) == "ready"
            try:
                await trio.sleep_forever()
            finally:
                order.append("body")

    assert order == ["body", "service"]


async def test_a_service_that_is_still_starting_can_be_cancelled(autojump_clock: MockClock) -> None:
    """Otherwise a connect that hangs could not be given up."""

    async def service(*, task_status: Any) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(5) as scope:
        async with open_service_nursery() as services:
            await services.start(service)

    assert scope.cancelled_caught
    assert trio.current_time() < 10


async def test_a_crashing_service_cancels_the_body(autojump_clock: MockClock) -> None:
    """A body without its service would wait for nothing."""

    async def service() -> None:
        await trio.sleep(1)
        raise ValueError("boom")

    with pytest.RaisesGroup(ValueError):
        async with open_service_nursery() as services:
            services.start_soon(service)
            await trio.sleep_forever()


async def test_services_end_with_the_body(autojump_clock: MockClock) -> None:
    """The nursery does not wait for a service that would run for ever."""
    async with open_service_nursery() as services:
        services.start_soon(trio.sleep_forever)
        await wait_all_tasks_blocked()


async def test_a_start_that_is_already_cancelled_is_not_shielded(autojump_clock: MockClock) -> None:
    """A service that says it has started in that very moment would otherwise be out of everybody's reach."""

    async def service(*, task_status: Any) -> None:
        task_status.started()
        await trio.sleep_forever()

    with trio.fail_after(100), trio.CancelScope() as scope:
        async with open_service_nursery() as services:
            scope.cancel()
            await services.start(service)

    assert scope.cancelled_caught


async def test_two_children_may_have_the_same_name(autojump_clock: MockClock) -> None:
    """Names are for people."""

    async def child(*, task_status: Any) -> None:
        task_status.started()
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor("top", nursery)
        await supervisor.start(ChildSpec("same", child))
        await supervisor.start(ChildSpec("same", child))
        assert [stats.name for stats in supervisor.children()] == ["same", "same"]

    assert supervisor.children() == ()
