"""The composition root: the only place that sees the whole configuration and puts the parts together."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attrs import evolve

from .config import Config, backends_only
from .model import BackendSpec, Decorator, StdioCommand
from .server import Asgi, create_app
from .sessions import SessionFactory, SessionSupervisor, open_supervisor
from .store import MemoryStore, SessionStore
from .transports import OpenTransport, open_transport

__all__ = ["Gateway", "demo_config", "open_gateway"]


class Gateway:
    """A running gateway. Embedding programs use `supervisor`; servers use `app`.

    Attributes:
        config: what it goes by now.
        supervisor: starts and finds sessions; works without any server.
        app: the ASGI application, for hypercorn on trio or any other ASGI server on trio.
    """

    def __init__(self, config: Config, supervisor: SessionSupervisor, app: Asgi) -> None:
        self.config = config
        self.supervisor = supervisor
        self.app = app

    def reload(self, config: Config) -> tuple[str, ...]:
        """Go by another configuration from now on, with the sessions there are. Synchronous.

        See `SessionSupervisor.reconfigure`. Returns the names of the parts that differ and need a restart: the server
        is what it was, and so is the name by which the gateway calls itself to clients.
        """
        self.supervisor.reconfigure(
            backends=config.backends,
            settings=config.sessions,
            aggregation=config.aggregation,
            restart=config.restart,
            health=config.health,
            stateless=config.stateless,
        )
        left = {part: getattr(self.config, part) for part in ("name", "server")}
        needs_restart = tuple(part for part, value in left.items() if getattr(config, part) != value)
        self.config = evolve(config, **left)
        return needs_restart

    async def drain(self, *, drain: float | None = None) -> None:
        """Start no more sessions and close those there are; returns when the last has ended. See the supervisor."""
        await self.supervisor.drain(drain=drain)

    def __repr__(self) -> str:
        return f"<Gateway {self.config.name}: {self.supervisor!r}>"


@asynccontextmanager
async def open_gateway(
    config: Config,
    *,
    store: SessionStore | None = None,
    decorators: Sequence[Decorator] = (),
    transport: OpenTransport = open_transport,
) -> AsyncIterator[Gateway]:
    """Run a gateway for the body, in the caller's own trio program.

    Nothing is connected until a session starts. At the end, also when the caller is cancelled, every session is closed
    and its backends told; that takes at most `drainTimeout` plus twice five seconds.

    Exceptions: those of the body leave in an exception group, as from a nursery.
    """
    store = store or MemoryStore()
    factory = SessionFactory(
        settings=config.sessions,
        aggregation=config.aggregation,
        restart=config.restart,
        decorators=decorators,
        store=store,
        transport=transport,
        health=config.health,
    )
    async with open_supervisor(
        factory=factory, backends=config.backends, store=store, stateless=config.stateless
    ) as supervisor:
        yield Gateway(config, supervisor, create_app(supervisor, config.server, name=config.name))


def demo_config() -> Config:
    """The configuration that is served when there is none: the two demo backends, as child processes."""
    return backends_only(
        [
            BackendSpec(name, StdioCommand(sys.executable, ("-m", f"vmcp_actors.demo.{name}")), connect_timeout=30.0)
            for name in ("notes", "clock")
        ]
    )
