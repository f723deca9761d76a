"""Sessions when something else fails at the wrong moment: each of these once ended, or hung, what it must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from vmcp_actors.errors import Draining, VmcpError
from vmcp_actors.model import ClientProfile
from vmcp_actors.settings import RestartSettings
from vmcp_actors.testing import MemoryBackend

from .harness import backend, echo, supervised, text_of


async def test_a_start_cancelled_at_any_moment_leaves_nothing_and_hangs_nothing(autojump_clock: MockClock) -> None:
    """Whatever checkpoint it has reached."""
    for checkpoints in range(30):
        a = backend("a")
        with trio.fail_after(100):
            async with supervised([a]) as supervisor, trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.start_session)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        assert a.sessions == {}


async def test_a_drain_at_any_moment_of_a_start_ends_both(autojump_clock: MockClock) -> None:
    """A session that becomes ready in that moment is closed, and its starter told that the gateway is ending."""
    for checkpoints in range(40):
        outcomes: list[str] = []
        async with supervised([backend("a")]) as supervisor, trio.open_nursery() as nursery:

            async def start(supervisor: Any = supervisor, outcomes: list[str] = outcomes) -> None:
                try:
                    await supervisor.start_session()
                    outcomes.append("started")
                except Draining:
                    outcomes.append("draining")

            nursery.start_soon(start)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            with trio.fail_after(100):
                await supervisor.drain(drain=1)
            stats = supervisor.statistics()

        assert outcomes in (["started"], ["draining"])
        assert (stats.sessions, stats.starting) == (0, 0)


async def test_a_busy_backend_does_not_end_the_session_that_sets_its_log_level(autojump_clock: MockClock) -> None:
    """Calls that waited for the backend to come back are first; the level is not worth a session."""
    a = backend("a")
    async with supervised([a], max_calls=2, restart=RestartSettings(initial_delay=1.0)) as supervisor:
        session = await supervisor.start_session()
        await session.request("logging/setLevel", {"level": "info"})
        a.crash()

        async def call() -> None:
            with suppress(VmcpError):
                await session.call_tool("a_sleep", {"seconds": 20})

        async with trio.open_nursery() as nursery:
            await trio.sleep(0.1)
            for _ in range(2):
                nursery.start_soon(call)
            await trio.sleep(5)
            assert not session.closed


async def test_a_store_that_fails_costs_notes_and_nothing_else(autojump_clock: MockClock) -> None:
    """Neither a session, nor the reaper, nor with it all sessions."""

    async def fail(*_: Any) -> bool:
        await trio.lowlevel.checkpoint()
        raise OSError("store down")

    a = backend("a")
    async with supervised([a], idle_timeout=100) as supervisor:
        store: Any = supervisor.test_store  # type: ignore[attr-defined]
        session = await supervisor.start_session()
        store.touch = store.update_backend = store.delete = fail
        a.crash()
        for _ in range(60):
            await session.call_tool("a_echo")
            await trio.sleep(1)
        assert not session.closed
        await trio.sleep(110)

        assert session.closed
        assert supervisor.statistics().ended == {"idle": 1}


async def test_a_list_that_is_not_answered_is_asked_for_again(autojump_clock: MockClock) -> None:
    """One lost answer does not leave the client with an old list for ever."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        a.silent = True
        a.tools["new"] = echo
        a.notify("notifications/tools/list_changed")
        await trio.sleep(1)
        a.silent = False
        await trio.sleep(120)

        assert text_of(await session.call_tool("a_new", {"text": "x"})) == "x"


async def test_backends_are_told_while_one_of_them_is_going_down(autojump_clock: MockClock) -> None:
    """The one that is lost hears nothing; the others do."""

    class SlowToClose(MemoryBackend):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[Any]:
            async with super().open() as transport:
                try:
                    yield transport
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(4)

    slow, other = SlowToClose("slow", tools={"echo": echo}), backend("z")
    async with supervised([slow, other]) as supervisor:
        session = await supervisor.start_session()
        slow.crash()
        await trio.sleep(1)
        session.tell_backends("notifications/roots/list_changed", {})
        await trio.sleep(1)

        assert other.counts["notifications/roots/list_changed"] == 1


async def test_a_transport_that_fails_while_it_is_ended_is_no_crash(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A close stays a close."""

    class FailsAtTheEnd(MemoryBackend):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[Any]:
            async def read() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError("read failed on close")

            async with super().open() as transport, trio.open_nursery() as nursery:
                nursery.start_soon(read)
                yield transport

    async with supervised([FailsAtTheEnd("a", tools={"echo": echo})]) as supervisor:
        session = await supervisor.start_session()
        await session.close("test")

        assert supervisor.statistics().crashes == 0
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("loss", ["forget_sessions", "crash"])
async def test_what_the_client_had_set_up_is_set_up_again_in_a_new_session(
    autojump_clock: MockClock, loss: str
) -> None:
    """Capabilities, log level, and subscriptions that were not taken back."""
    resources = ({"uri": "x://1", "name": "one"}, {"uri": "x://2", "name": "two"})
    a = backend("a", resources=resources, capabilities={"tools": {}, "resources": {"subscribe": True}, "logging": {}})
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session(client=ClientProfile(capabilities={"roots": {}}))
        await session.request("logging/setLevel", {"level": "warning"})
        await session.request("resources/subscribe", {"uri": "x://1"})
        await session.request("resources/subscribe", {"uri": "x://2"})
        await session.request("resources/unsubscribe", {"uri": "x://2"})
        before = len(a.history)
        getattr(a, loss)()
        await session.call_tool("a_echo", {"text": "x"})
        await trio.sleep(1)
        again = [(method, params) for _, method, params in a.history[before:]]
        assert [params["capabilities"] for method, params in again if method == "initialize"] == [{"roots": {}}]
        assert [params["level"] for method, params in again if method == "logging/setLevel"] == ["warning"]
        assert [params["uri"] for method, params in again if method == "resources/subscribe"] == ["x://1"]
