"""Another configuration while sessions live: backends join and leave, limits and rules change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from vmcp_actors.errors import SessionLimitReached, UnknownTool
from vmcp_actors.model import BackendSpec, HttpEndpoint, Identity
from vmcp_actors.sessions import Session
from vmcp_actors.settings import (
    AggregationSettings,
    BreakerSettings,
    HealthSettings,
    SessionSettings,
    StatelessSettings,
    WorkloadRules,
)
from vmcp_actors.testing import MemoryBackend

from .harness import backend, supervised, text_of

TOOLS_CHANGED = "notifications/tools/list_changed"


@asynccontextmanager
async def begun(*doubles: MemoryBackend, use: int = 1, **settings: Any) -> AsyncIterator[Any]:
    """A supervisor whose first session has the first backends of these; the others are there to be added."""
    async with supervised(doubles, **settings) as supervisor:
        supervisor.reconfigure(backends=[double.spec for double in doubles[:use]])
        session = await supervisor.start_session()
        notices: list[str] = []
        session.listen(lambda notice: notices.append(notice.method))
        yield supervisor, session, notices


async def stored_backends(supervisor: Any) -> set[str]:
    (session_id,) = await supervisor.test_store.unused_since(float("inf"))
    record = await supervisor.test_store.load(session_id)
    return set(record.backend_sessions)


def names(session: Session) -> list[str]:
    return [tool["name"] for tool in session.tools]


async def test_a_backend_that_is_added_joins_the_sessions_there_are(autojump_clock: MockClock) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b) as (supervisor, session, notices):
        supervisor.reconfigure(backends=[a.spec, b.spec])
        await wait_all_tasks_blocked()

        assert text_of(await session.call_tool("b_count")) == "1"
        assert notices == [TOOLS_CHANGED]
        assert a.counts["initialize"] == b.counts["initialize"] == 1
        assert [spec.name for spec in supervisor.backends] == ["a", "b"]
        assert set(session.backend_sessions) == {"a", "b"}
        assert await stored_backends(supervisor) == {"a", "b"}

        later = await supervisor.start_session()
        assert "b_echo" in names(later)


async def test_a_backend_that_is_removed_is_drained(autojump_clock: MockClock) -> None:
    """No new calls, running ones end, the client hears of it, and then the backend its goodbye."""
    a, b = backend("a"), backend("b")
    async with begun(a, b, use=2) as (supervisor, session, notices), trio.open_nursery() as nursery:
        results: list[str] = []

        @nursery.start_soon
        async def slow() -> None:
            results.append(text_of(await session.call_tool("b_sleep", {"seconds": 4})))

        await wait_all_tasks_blocked()
        supervisor.reconfigure(backends=[a.spec])
        assert notices == [TOOLS_CHANGED]
        with pytest.raises(UnknownTool):
            await session.call_tool("b_echo")
        assert len(b.sessions) == 1
        await trio.sleep(5)

        assert results == ["slept"]
        assert b.sessions == {}
        assert b.counts["initialize"] == 1
        assert [health.backend for health in supervisor.health] == ["a"]
        assert text_of(await session.call_tool("a_count")) == "1"
        assert await stored_backends(supervisor) == {"a"}


async def test_a_call_that_does_not_end_is_cancelled_when_its_backend_is_removed(autojump_clock: MockClock) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b, use=2, drain_timeout=3.0) as (supervisor, session, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def slow() -> None:
            start = trio.current_time()
            with pytest.raises(Exception, match="taken out of the configuration"):
                await session.call_tool("b_sleep", {"seconds": 50})
            assert trio.current_time() - start == pytest.approx(3.0)

        await wait_all_tasks_blocked()
        supervisor.reconfigure(backends=[a.spec])
    assert b.sessions == {}


@pytest.mark.parametrize("trouble", ["down", "silent", "slow"])
async def test_a_backend_that_is_not_even_connected_can_be_removed(autojump_clock: MockClock, trouble: str) -> None:
    a, b = backend("a"), backend("b", connect_delay=1000.0 if trouble == "slow" else 0.0)
    b.down, b.silent = "no" if trouble == "down" else None, trouble == "silent"
    async with begun(a, b, use=2) as (supervisor, session, _):
        supervisor.reconfigure(backends=[a.spec])
        await wait_all_tasks_blocked()
        assert [one.backend for one in session.statistics().backends] == ["a"]
        assert b.sessions == {}
        tries = b.counts["initialize"]
        await trio.sleep(300)
        assert b.counts["initialize"] == tries


async def test_a_backend_that_is_lost_while_it_is_drained_does_not_come_back(autojump_clock: MockClock) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b, use=2) as (supervisor, session, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def slow() -> None:
            with pytest.raises(Exception, match="crashed"):
                await session.call_tool("b_sleep", {"seconds": 50})

        await wait_all_tasks_blocked()
        supervisor.reconfigure(backends=[a.spec])
        b.crash()
        await trio.sleep(100)
        assert b.counts["initialize"] == 1


async def test_a_backend_that_moves_is_met_at_its_new_place_under_its_name(autojump_clock: MockClock) -> None:
    """First the old connection ends, then the new one begins: never two. The tools stay listed meanwhile."""
    a = backend("a")
    moved = evolve(a.spec, endpoint=HttpEndpoint("memory://elsewhere"))
    async with begun(a) as (supervisor, session, notices):
        assert text_of(await session.call_tool("a_count")) == "1"
        await session.request("logging/setLevel", {"level": "error"})
        supervisor.reconfigure(backends=[moved])
        assert names(session) == ["a_echo", "a_count", "a_sleep"]
        assert text_of(await session.call_tool("a_count")) == "1"  # a new session there

        assert (a.counts["initialize"], a.counts["goodbye"], len(a.sessions)) == (2, 1, 1)
        await wait_all_tasks_blocked()
        assert a.counts["logging/setLevel"] == 2
        assert TOOLS_CHANGED not in notices


async def test_a_backend_that_comes_back_while_it_is_leaving_is_not_met_twice_at_once(
    autojump_clock: MockClock,
) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b, use=2) as (supervisor, session, _), trio.open_nursery() as nursery:
        nursery.start_soon(session.call_tool, "b_sleep", {"seconds": 4})
        await wait_all_tasks_blocked()
        for _ in range(3):
            supervisor.reconfigure(backends=[a.spec])
            await trio.sleep(0.5)
            supervisor.reconfigure(backends=[a.spec, b.spec])
            await trio.sleep(0.5)
            assert len(b.sessions) == b.counts["initialize"] == 1
        await trio.sleep(2)
        assert text_of(await session.call_tool("b_count")) == "1"
        assert (len(b.sessions), b.counts["initialize"], b.counts["goodbye"]) == (1, 2, 1)


async def test_times_change_without_a_new_connection(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with begun(a) as (supervisor, session, _):
        await session.call_tool("a_count")
        supervisor.reconfigure(backends=[evolve(a.spec, call_timeout=2.0)])
        with pytest.raises(Exception, match="within 2 s"):
            await session.call_tool("a_sleep", {"seconds": 3})
        assert text_of(await session.call_tool("a_count")) == "2"
        assert a.counts["initialize"] == 1


async def test_the_same_configuration_changes_nothing(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with begun(a) as (supervisor, session, notices):
        before, table = a.counts.copy(), session.tools
        supervisor.reconfigure(backends=[evolve(a.spec)], settings=SessionSettings())
        await wait_all_tasks_blocked()
        assert (a.counts, notices) == (before, [])
        assert session.tools is table


async def test_rules_change_what_sessions_offer(autojump_clock: MockClock) -> None:
    a = backend("a")
    rules = AggregationSettings(prefix_format="{workload}-", workloads={"a": WorkloadRules(tool_filter=("c*",))})
    async with begun(a) as (supervisor, session, notices):
        supervisor.reconfigure(aggregation=rules)
        assert names(session) == ["a-count"]
        assert notices == [TOOLS_CHANGED]
        assert text_of(await session.call_tool("a-count")) == "1"


async def test_rules_that_a_session_cannot_go_by_are_not_applied_to_it(autojump_clock: MockClock) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b, use=2) as (supervisor, session, _):
        before = names(session)
        supervisor.reconfigure(aggregation=AggregationSettings(strategy="manual"))
        assert names(session) == before
        supervisor.reconfigure(backends=[a.spec])
        assert names(session) == ["echo", "count", "sleep"]
        assert text_of(await session.call_tool("count")) == "1"


async def test_a_session_that_starts_meanwhile_has_the_new_backends(autojump_clock: MockClock) -> None:
    a, b = backend("a", connect_delay=2.0), backend("b")
    async with supervised([a, b]) as supervisor, trio.open_nursery() as nursery:
        supervisor.reconfigure(backends=[a.spec])
        started: list[Session] = []

        @nursery.start_soon
        async def start() -> None:
            started.append(await supervisor.start_session())

        await wait_all_tasks_blocked()
        supervisor.reconfigure(backends=[b.spec])
        await trio.sleep(3)
        assert names(started[0]) == ["b_echo", "b_count", "b_sleep"]
        assert a.sessions == {}


async def test_a_session_that_ends_takes_no_backends(autojump_clock: MockClock) -> None:
    a, b = backend("a"), backend("b")
    async with begun(a, b) as (supervisor, session, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def slow() -> None:
            await session.call_tool("a_sleep", {"seconds": 4})

        await wait_all_tasks_blocked()
        session.request_close("closed", drain=5.0)
        supervisor.reconfigure(backends=[b.spec])
        await session.wait_closed()
    assert b.counts["initialize"] == b.counts["goodbye"]


# --- limits and lifetimes ---------------------------------------------------------------------------------------------


async def test_limits_hold_from_now_on(autojump_clock: MockClock) -> None:
    async with begun(backend("a"), max_per_client=2) as (supervisor, _, __):
        supervisor.reconfigure(settings=SessionSettings(max_per_client=1))
        with pytest.raises(SessionLimitReached):
            await supervisor.start_session()
        supervisor.reconfigure(settings=SessionSettings(max_per_client=2))
        await supervisor.start_session()


async def test_the_longest_idle_sessions_end_when_there_are_more_than_allowed(autojump_clock: MockClock) -> None:
    """Those that are in use stay, even if they are too many."""
    async with supervised([backend("a")]) as supervisor, trio.open_nursery() as nursery:
        sessions = []
        for number in range(4):
            sessions.append(await supervisor.start_session(Identity("test", str(number))))
            await trio.sleep(1)
        nursery.start_soon(sessions[0].call_tool, "a_sleep", {"seconds": 20})
        supervisor.reconfigure(settings=SessionSettings(max_sessions=2))
        await trio.sleep(10)
        assert [session.closed for session in sessions] == [False, True, True, False]
        assert supervisor.statistics().ended == {"evicted": 2}
        supervisor.reconfigure(settings=SessionSettings(max_sessions=1))
        await trio.sleep(5.5)
        assert [session.closed for session in sessions] == [False, True, True, True]


async def test_lifetimes_hold_for_the_sessions_there_are(autojump_clock: MockClock) -> None:
    async with begun(backend("a")) as (supervisor, session, _):
        own = await supervisor.start_session(idle_timeout=100.0)
        supervisor.reconfigure(settings=SessionSettings(idle_timeout=4.0))
        await trio.sleep(10)
        assert session.closed
        assert session.close_reason == "idle"
        assert not own.closing  # its limit was not the one that has changed


async def test_how_backends_are_watched_changes(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with begun(a, health=HealthSettings(check_interval=1e9)) as (supervisor, session, _):
        await trio.sleep(100)
        assert a.counts["ping"] == 0
        breaker = BreakerSettings(enabled=True, failure_threshold=1)
        supervisor.reconfigure(health=HealthSettings(check_interval=2.0, breaker=breaker))
        await trio.sleep(20)
        assert a.counts["ping"] >= 7
        a.silent = True
        supervisor.reconfigure(backends=[evolve(a.spec, call_timeout=1.0)])
        with pytest.raises(Exception, match="within 1 s"):
            await session.call_tool("a_echo")
        with pytest.raises(Exception, match="circuit open"):
            await session.call_tool("a_echo")


async def test_how_stateless_clients_are_served_changes(autojump_clock: MockClock) -> None:
    async with begun(backend("a")) as (supervisor, _, __):
        assert "2026-07-28" in supervisor.revisions
        supervisor.reconfigure(stateless=StatelessSettings(mode="off"))
        assert "2026-07-28" not in supervisor.revisions


def test_a_spec_read_twice_is_the_same() -> None:
    """Also with credentials and headers in it."""
    from vmcp_actors.config.load import parse_config

    text = """
backends:
  - {name: a, transport: streamable-http, url: http://x/mcp, headers: {X: y}, headersFrom: {Z: {env: TOKEN}}}
"""
    first, second = (parse_config(text, source="x.yaml", environ={}).backends for _ in range(2))
    assert first == second
    assert isinstance(first[0], BackendSpec)
    other = parse_config(text.replace("TOKEN", "OTHER"), source="x.yaml", environ={}).backends
    assert first != other
