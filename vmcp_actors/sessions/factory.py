"""Makes fully formed sessions: connections in parallel, capabilities discovered over them, one table (mission S3)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import trio

from ..errors import BackendUnavailable
from ..health import Health
from ..model import BackendSpec, ClientProfile, Decorator, Era, Identity, Secret
from ..settings import AggregationSettings, HealthSettings, RestartSettings, SessionSettings
from ..store import SessionStore
from ..transports import OpenTransport, open_transport
from .actor import SessionActor
from .backend import BackendConnection
from .gate import ConnectGate
from .handshake import STATEFUL_FIRST, RevisionMemory
from .keepalive import Keepalive
from .request_state import StateSeal
from .session import Session
from .status import ConnectionEvents

NOT_RELAYED = frozenset({"tasks", "io.modelcontextprotocol/tasks"})
"""What a client may declare and backends are not told, because it is not relayed."""

StartTask = Callable[[Callable[..., Awaitable[Any]]], Awaitable[Any]]
"""Starts an async function that accepts `task_status`, as `nursery.start` does."""


def new_session_id() -> Secret[str]:
    """An unguessable id of visible ASCII: 256 random bits (MCP 2025-11-25, transports §Session Management)."""
    return Secret(secrets.token_urlsafe(32))


class SessionFactory:
    """Makes sessions that share nothing of their clients: only the bound on how many backends the process connects at
    once, what was found out about the backends (revisions, health), and the key that seals request states.

    Attributes:
        settings, aggregation, restart: how sessions are made. `reconfigure` replaces them.
        memory: which kinds of revisions each backend was found to speak.
        health: how each backend is, learnt from all sessions.
    """

    def __init__(
        self,
        *,
        settings: SessionSettings | None = None,
        aggregation: AggregationSettings | None = None,
        restart: RestartSettings | None = None,
        decorators: Sequence[Decorator] = (),
        store: SessionStore | None = None,
        transport: OpenTransport = open_transport,
        health: HealthSettings | None = None,
    ) -> None:
        self.settings = settings or SessionSettings()
        self.aggregation = aggregation or AggregationSettings()
        self.restart = restart or RestartSettings()
        self._decorators = tuple(decorators)
        self._store = store
        self._transport = transport
        self.memory = RevisionMemory()
        self.health = Health(health)
        self._seal = StateSeal()
        self._keepalives: dict[str, Keepalive] = {}
        self._connecting = trio.CapacityLimiter(self.settings.global_backend_init_concurrency)

    async def make_session(
        self,
        identity: Identity,
        backends: Sequence[BackendSpec],
        *,
        start: StartTask,
        client: ClientProfile | None = None,
        session_id: Secret[str] | None = None,
        eras: Sequence[Era] = STATEFUL_FIRST,
        idle_timeout: float | None = None,
        leased: bool = False,
    ) -> Session:
        """Make a session, ready to be used: the connections that discovered its capabilities serve its calls.

        A backend that is slow or down holds this up for at most `ready_timeout`; it joins later by itself.

        Args:
            start: where the session's task lives: `nursery.start` of a nursery of the caller's.
            eras: which kinds of revisions may be spoken with the backends, the preferred one first. A backend that
                speaks both is met in the client's own, so that the client cannot tell it from the gateway.
            idle_timeout: seconds, instead of those in the settings.
            leased: see `Session.leased`.

        Cancelling it ends all that had been started.

        Raises:
            UnresolvedConflicts: names clash (strategy `manual`).
            BackendUnavailable: a backend did not come up (`partial_failure_mode` is `fail`).
        """
        settings = self.settings
        session_id = session_id or new_session_id()
        client = client or ClientProfile()
        capabilities = {name: value for name, value in client.capabilities.items() if name not in NOT_RELAYED}
        gate = ConnectGate(trio.CapacityLimiter(settings.backend_init_concurrency), self._connecting)

        def connect(
            events: ConnectionEvents, spec: BackendSpec, predecessor: BackendConnection | None
        ) -> BackendConnection:
            return BackendConnection(
                spec,
                client_capabilities=capabilities,
                eras=[era for era in eras if era in spec.eras],
                memory=self.memory,
                health=self.health.of(spec.name),
                events=events,
                open_transport=self._transport,
                gate=gate,
                sessions=settings,
                restart=self.restart,
                predecessor=predecessor,
            )

        actor = SessionActor(
            session_id,
            backends=backends,
            connect=connect,
            client_capabilities=capabilities,
            principal=None if identity.anonymous else identity.binding,
            seal=self._seal,
            keepalive_of=self._keepalive_of,
            aggregation=self.aggregation,
            settings=settings,
            decorators=self._decorators,
            store=self._store,
        )
        await start(actor.run)
        if self.health.settings.partial_failure_mode == "fail":
            await _check_complete(actor)
        return Session(
            session_id,
            identity,
            client,
            actor,
            idle_timeout=settings.idle_timeout if idle_timeout is None else idle_timeout,
            leased=leased,
        )

    def reconfigure(
        self,
        *,
        settings: SessionSettings,
        aggregation: AggregationSettings,
        restart: RestartSettings,
        health: HealthSettings,
        known: Collection[str],
    ) -> None:
        """Make sessions in this way from now on. What is known of backends that are not called `known` is forgotten."""
        self.settings = settings
        self.aggregation = aggregation
        self.restart = restart
        self._connecting.total_tokens = settings.global_backend_init_concurrency
        self.health.reconfigure(health, known)
        self.memory.keep(known)

    def _keepalive_of(self, spec: BackendSpec) -> Keepalive | None:
        """The keepalive towards a backend, one for all sessions; sessions that have begun go on with theirs."""
        if spec.keepalive is None:
            return None
        keepalive = self._keepalives.get(spec.name)
        if keepalive is None or keepalive.interval != spec.keepalive:
            keepalive = self._keepalives[spec.name] = Keepalive(spec.name, spec.keepalive)
        return keepalive

    def __repr__(self) -> str:
        return f"<SessionFactory: {self._connecting.borrowed_tokens} backends being connected>"


async def _check_complete(actor: SessionActor) -> None:
    """End the session, and raise `BackendUnavailable` when it has ended, if any of its backends is not there."""
    missing = {
        name: connection.unavailable_text() for name, connection in actor.connections.items() if not connection.ready
    }
    if missing:
        with trio.CancelScope(shield=True):  # until it has ended it counts, and that takes `goodbye_timeout` at most
            await actor.ref.stop(drain=0.0, reason="is incomplete")
        (first, reason), *others = sorted(missing.items())
        more = "".join(f"; backend {name}: {text}" for name, text in others)
        raise BackendUnavailable(first, reason + more)
