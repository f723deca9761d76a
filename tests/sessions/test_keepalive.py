"""Keepalive: only where nothing else happens, never to anybody's harm, and not against a wall (S15)."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.sessions.harness import backend, supervised, text_of
from vmcp_actors.settings import HealthSettings

NO_CHECKS = HealthSettings(check_interval=1e9)
LONG = {"idle_timeout": 1e9, "ttl": 1e9}


async def test_it_is_off_unless_asked_for(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with supervised([a], health=NO_CHECKS, **LONG) as supervisor:
        await supervisor.start_session()
        await trio.sleep(10_000)
        assert a.counts["ping"] == 0


async def test_every_idle_session_is_pinged_once_an_interval(autojump_clock: MockClock) -> None:
    a = backend("a", keepalive=100.0)
    async with supervised([a], health=NO_CHECKS, **LONG) as supervisor:
        for _ in range(3):
            await supervisor.start_session()
        await trio.sleep(1050)
        assert 27 <= a.counts["ping"] <= 30


async def test_a_session_that_is_used_is_not_pinged(autojump_clock: MockClock) -> None:
    a = backend("a", keepalive=100.0)
    async with supervised([a], health=NO_CHECKS, **LONG) as supervisor:
        session = await supervisor.start_session()
        for _ in range(50):
            await session.call_tool("a_echo", {"text": "x"})
            await trio.sleep(90)
        assert a.counts["ping"] == 0


async def test_a_ping_does_not_keep_our_own_session_alive(autojump_clock: MockClock) -> None:
    a = backend("a", keepalive=10.0)
    async with supervised([a], health=NO_CHECKS, idle_timeout=100.0) as supervisor:
        await supervisor.start_session()
        await trio.sleep(150)
        assert supervisor.statistics().ended == {"idle": 1}


async def test_without_answers_one_session_goes_on_asking_until_there_is_one(autojump_clock: MockClock) -> None:
    """And the sessions live on."""
    a = backend("a", keepalive=100.0)
    async with supervised([a], health=NO_CHECKS, **LONG) as supervisor:
        sessions = [await supervisor.start_session() for _ in range(10)]
        a.silent = True
        await trio.sleep(500)
        before = a.counts["ping"]
        await trio.sleep(1100)
        assert 9 <= a.counts["ping"] - before <= 12
        a.silent = False
        await trio.sleep(400)
        before = a.counts["ping"]
        await trio.sleep(1000)
        assert 85 <= a.counts["ping"] - before <= 110
        assert [text_of(await session.call_tool("a_echo", {"text": "x"})) for session in sessions] == ["x"] * 10
        assert a.counts["initialize"] == 10


async def test_the_one_that_asks_may_leave(autojump_clock: MockClock) -> None:
    a = backend("a", keepalive=100.0)
    async with supervised([a], health=NO_CHECKS, **LONG) as supervisor:
        sessions = [await supervisor.start_session() for _ in range(3)]
        a.silent = True
        await trio.sleep(1000)
        for session in sessions[:2]:
            await session.close(drain=0.0)
        before = a.counts["ping"]
        await trio.sleep(1000)
        assert a.counts["ping"] - before >= 8
