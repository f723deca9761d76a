"""A supervisor over memory backends, for the tests of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from vmcp_actors.model import JsonObject
from vmcp_actors.sessions import SessionFactory, SessionSupervisor, open_supervisor
from vmcp_actors.settings import (
    AggregationSettings,
    HealthSettings,
    RestartSettings,
    SessionSettings,
    StatelessSettings,
)
from vmcp_actors.store import MemoryStore
from vmcp_actors.testing import MemoryBackend, MemorySession, backends


async def echo(_: MemorySession, arguments: JsonObject) -> Any:
    await trio.lowlevel.checkpoint()
    return arguments.get("text", "")


async def count(session: MemorySession, _: JsonObject) -> Any:
    """A counter that lives in the backend's session: what a browser page or a transaction is elsewhere."""
    await trio.lowlevel.checkpoint()
    session.state["n"] = session.state.get("n", 0) + 1
    return session.state["n"]


async def sleep(_: MemorySession, arguments: JsonObject) -> Any:
    await trio.sleep(arguments["seconds"])
    return "slept"


def backend(name: str, **attributes: Any) -> MemoryBackend:
    """A backend with the tools `echo`, `count` and `sleep`."""
    return MemoryBackend(name, tools={"echo": echo, "count": count, "sleep": sleep}, **attributes)


@asynccontextmanager
async def supervised(
    doubles: Sequence[MemoryBackend],
    *,
    aggregation: AggregationSettings | None = None,
    restart: RestartSettings | None = None,
    stateless: StatelessSettings | None = None,
    health: HealthSettings | None = None,
    **settings: Any,
) -> AsyncIterator[SessionSupervisor]:
    """A running supervisor; its exceptions come bare when there is only one."""
    store = MemoryStore()
    factory = SessionFactory(
        settings=SessionSettings(**settings),
        aggregation=aggregation,
        restart=restart,
        store=store,
        transport=backends(doubles),
        health=health,
    )
    specs = [double.spec for double in doubles]
    async with open_supervisor(factory=factory, backends=specs, store=store, stateless=stateless) as supervisor:
        supervisor.test_store = store  # type: ignore[attr-defined]  # so that tests see what is stored
        yield supervisor


def text_of(result: JsonObject) -> str:
    """The text of a tool result."""
    return str(result["content"][0]["text"])
