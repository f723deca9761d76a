"""Health and breaker over sessions: fed by what really happens, and stopping what would fail anyway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from tests.sessions.harness import backend, supervised, text_of
from vmcp_actors.errors import BackendReplied, BackendTimeout, BackendUnavailable, VmcpError
from vmcp_actors.health import HealthStatistics
from vmcp_actors.model import Era, JsonObject
from vmcp_actors.sessions import SessionSupervisor
from vmcp_actors.settings import BreakerSettings, HealthSettings
from vmcp_actors.testing import MemorySession

NEVER = 1e9
QUIET = HealthSettings(check_interval=NEVER, breaker=BreakerSettings(enabled=True))


def health_of(supervisor: SessionSupervisor, name: str) -> HealthStatistics:
    return next(health for health in supervisor.health if health.backend == name)


async def failing(times: int, call: Callable[[], Awaitable[Any]], error: type[VmcpError]) -> None:
    for _ in range(times):
        with pytest.raises(error):
            await call()


async def test_calls_that_time_out_open_the_circuit_for_all_sessions(autojump_clock: MockClock) -> None:
    """Then they fail at once, saying why and when the next try is; and the backend is left alone."""
    a = backend("a")
    async with supervised([a], health=QUIET) as supervisor:
        one, other = await supervisor.start_session(), await supervisor.start_session()
        a.silent = True
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(failing, 1, lambda: one.call_tool("a_echo", {"text": "x"}), BackendTimeout)
        calls = a.counts["tools/call"]
        began = trio.current_time()
        refusal = r"backend a: unavailable: no answer to tools/call .* \(circuit open\), next try in 60 s"
        for session in (one, other):
            with pytest.raises(BackendUnavailable, match=refusal):
                await session.call_tool("a_echo", {"text": "x"})
        assert trio.current_time() == began
        assert a.counts["tools/call"] == calls
        assert health_of(supervisor, "a").circuit == "open"


async def test_after_its_time_one_call_passes_and_closes_it(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with supervised([a], health=QUIET) as supervisor:
        session = await supervisor.start_session()
        a.silent = True
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(failing, 1, lambda: session.call_tool("a_echo", {}), BackendTimeout)
        a.silent = False
        await trio.sleep(61)
        calls = a.counts["tools/call"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call_tool, "a_sleep", {"seconds": 1})
            await trio.sleep(0.5)
            await failing(3, lambda: session.call_tool("a_echo", {}), BackendUnavailable)
        assert a.counts["tools/call"] == calls + 1
        assert text_of(await session.call_tool("a_echo", {"text": "x"})) == "x"
        assert health_of(supervisor, "a").circuit == "closed"


async def test_an_open_circuit_stops_connection_attempts_too(autojump_clock: MockClock) -> None:
    """A backend that is down is not besieged by all sessions that come back to it."""
    a = backend("a", down="refused")
    async with supervised([a], health=QUIET, ready_timeout=1.0) as supervisor:
        for _ in range(8):
            await supervisor.start_session()
        await trio.sleep(20)
        tried = a.counts["connect"]
        await trio.sleep(30)
        assert a.counts["connect"] == tried
        a.down = None
        await trio.sleep(100)
        states = [session.backends[0].state for session in supervisor.sessions()]
        assert states == ["ready"] * 8


async def test_a_tool_that_fails_and_an_error_of_the_backends_own_are_no_failures(autojump_clock: MockClock) -> None:
    async def bad(_: MemorySession, __: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        return {"isError": True, "content": []}

    async def worse(_: MemorySession, __: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        raise MCPError(-32603, "their own bug")

    a = backend("a")
    a.tools |= {"bad": bad, "worse": worse}
    async with supervised([a], health=QUIET) as supervisor:
        session = await supervisor.start_session()
        for _ in range(10):
            assert (await session.call_tool("a_bad"))["isError"]
        await failing(10, lambda: session.call_tool("a_worse"), BackendReplied)
        assert health_of(supervisor, "a").status == "healthy"
        assert health_of(supervisor, "a").failures == 0


async def test_without_the_breaker_every_call_is_tried(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with supervised([a], health=HealthSettings(check_interval=NEVER)) as supervisor:
        session = await supervisor.start_session()
        a.silent = True
        await failing(10, lambda: session.call_tool("a_echo"), BackendTimeout)
        assert a.counts["tools/call"] == 10
        assert health_of(supervisor, "a").status == "unhealthy"


@pytest.mark.parametrize(("era", "method"), [(Era.STATEFUL, "ping"), (Era.STATELESS, "server/discover")])
async def test_each_backend_is_pinged_once_an_interval_however_many_sessions_there_are(
    autojump_clock: MockClock, era: Era, method: str
) -> None:
    """And nothing is listed."""
    doubles = [backend(name, eras=(era,)) for name in "ab"]
    settings = HealthSettings(check_interval=10.0)
    async with supervised(doubles, health=settings, idle_timeout=NEVER, ttl=NEVER) as supervisor:
        for _ in range(5):
            await supervisor.start_session()
        before = [double.counts[method] for double in doubles]
        lists = [double.counts["tools/list"] for double in doubles]
        await trio.sleep(1000)
        pings = [double.counts[method] - count for double, count in zip(doubles, before, strict=True)]
        assert all(90 <= count <= 112 for count in pings)
        assert [double.counts["tools/list"] for double in doubles] == lists


async def test_pings_find_out_what_no_call_does(autojump_clock: MockClock) -> None:
    a = backend("a")
    settings = HealthSettings(check_interval=10.0, check_timeout=1.0, breaker=BreakerSettings(enabled=True))
    async with supervised([a], health=settings, idle_timeout=NEVER) as supervisor:
        session = await supervisor.start_session()
        assert health_of(supervisor, "a").status == "healthy"
        a.silent = True
        await trio.sleep(15)
        assert health_of(supervisor, "a").status == "degraded"
        await trio.sleep(30)
        assert health_of(supervisor, "a").status == "unhealthy"
        await trio.sleep(30)
        await failing(1, lambda: session.call_tool("a_echo"), BackendUnavailable)
        a.silent = False
        await trio.sleep(80)
        assert health_of(supervisor, "a").status == "healthy"
        assert text_of(await session.call_tool("a_echo", {"text": "x"})) == "x"


async def test_a_session_must_be_complete_where_that_is_asked_for(autojump_clock: MockClock) -> None:
    """It does not start then, nothing is left of it, and it does not count."""
    doubles = [backend("a"), backend("b", down="refused"), backend("c", silent=True)]
    settings = HealthSettings(partial_failure_mode="fail")
    async with supervised(doubles, health=settings, ready_timeout=2.0, max_sessions=1) as supervisor:
        for _ in range(2):
            with pytest.raises(
                BackendUnavailable, match=r"backend b: unavailable: refused, .*; backend c: unavailable"
            ):
                await supervisor.start_session()
        await trio.sleep(10)
        assert doubles[0].sessions == {}
        assert supervisor.statistics().sessions == 0
        doubles[1].down, doubles[2].silent = None, False
        assert len((await supervisor.start_session()).tools) == 9
