"""What ends is freed at once: nothing of an ended session is in a cycle that a garbage collection would have to find.

A collection of everything takes a second with many sessions; because of this `vmcp_actors.collecting` may do without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from tests.garbage import garbage
from vmcp_actors.errors import VmcpError
from vmcp_actors.model import ANONYMOUS, ClientProfile, Era, RequestContext
from vmcp_actors.sessions import Session, SessionSupervisor
from vmcp_actors.settings import RestartSettings
from vmcp_actors.testing import MemoryBackend

from .harness import backend, supervised

Use = Callable[[Session, MemoryBackend], Awaitable[None]]


async def calls(session: Session, _: MemoryBackend) -> None:
    for _number in range(3):
        await session.call_tool("a_echo", {"text": "x"})


async def failing_calls(session: Session, _: MemoryBackend) -> None:
    for tool in ("a_nothing", "a_echo", "nothing"):
        with suppress(VmcpError):
            await session.call_tool(tool, {"_meta": 1})


async def a_call_that_times_out(session: Session, _: MemoryBackend) -> None:
    with suppress(VmcpError):
        await session.call_tool("a_sleep", {"seconds": 1000})


async def a_call_that_is_cancelled(session: Session, _: MemoryBackend) -> None:
    with trio.move_on_after(1), suppress(VmcpError):
        await session.call_tool("a_sleep", {"seconds": 10})


async def a_backend_that_crashes(session: Session, a: MemoryBackend) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a_call_that_is_cancelled, session, a)
        await trio.sleep(0.5)
        a.crash()
    await trio.sleep(10)
    await calls(session, a)


async def a_backend_that_forgets(session: Session, a: MemoryBackend) -> None:
    a.forget_sessions()
    await calls(session, a)


async def a_backend_that_is_down_for_a_while(session: Session, a: MemoryBackend) -> None:
    a.down = "refused"
    a.crash()
    await trio.sleep(100)
    await failing_calls(session, a)
    a.down = None
    await trio.sleep(100)
    await calls(session, a)


async def a_backend_that_is_left_while_it_connects(session: Session, a: MemoryBackend) -> None:
    a.connect_delay = 1000.0
    a.crash()
    await trio.sleep(10)


async def calls_of_a_stateless_client(session: Session, _: MemoryBackend) -> None:
    for arguments in ({"text": "x"}, {"_meta": 1}):
        with suppress(VmcpError):
            context = RequestContext(era=Era.STATELESS)
            await session.interact("tools/call", {"name": "a_echo", "arguments": arguments}, context).result()
    with trio.move_on_after(1):
        await session.interact(
            "tools/call", {"name": "a_sleep", "arguments": {"seconds": 10}}, RequestContext()
        ).result()


@pytest.mark.parametrize(
    "use",
    [
        calls,
        failing_calls,
        a_call_that_times_out,
        a_call_that_is_cancelled,
        a_backend_that_crashes,
        a_backend_that_forgets,
        a_backend_that_is_down_for_a_while,
        a_backend_that_is_left_while_it_connects,
        calls_of_a_stateless_client,
    ],
)
@pytest.mark.parametrize("eras", [(Era.STATEFUL,), (Era.STATELESS,)])
async def test_an_ended_session_leaves_nothing_in_cycles(
    use: Use, eras: tuple[Era, ...], autojump_clock: MockClock
) -> None:
    a = backend("a", eras=eras)
    async with supervised([a], restart=RestartSettings(initial_delay=1.0)) as supervisor:
        await live(supervisor, a, use)  # what is made once stays
        with garbage() as found:
            await live(supervisor, a, use)

    assert found == {}


async def live(supervisor: SessionSupervisor, a: MemoryBackend, use: Use) -> None:
    """Start a session, use it, and end it."""
    a.connect_delay = 0.0
    session = await supervisor.start_session(ANONYMOUS, ClientProfile())
    await use(session, a)
    await session.close()
    del session
    await trio.sleep(10)
