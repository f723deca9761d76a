"""Owns all sessions: admits, starts, finds, reaps and drains them."""

from __future__ import annotations

import hmac
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import field, frozen

from ..actors import Backoff, ChildSpec, Intensity, Restart, Supervisor
from ..errors import Draining, SessionLimitReached, SessionNotFound
from ..health import HealthStatistics
from ..model import ANONYMOUS, BackendSpec, ClientProfile, Era, Identity, Secret, SessionRecord, short_hash
from ..settings import AggregationSettings, HealthSettings, RestartSettings, SessionSettings, StatelessSettings
from ..store import SessionStore
from .factory import SessionFactory, StartTask, new_session_id
from .handshake import STATEFUL_FIRST
from .leases import Leases
from .monitor import HealthMonitor
from .reaper import Reaper
from .session import Session, SessionStatistics

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 5.0


@frozen
class SupervisorStatistics:
    """A snapshot of all sessions. `ended` counts by reason."""

    sessions: int
    starting: int
    started: int
    refused: int
    crashes: int
    draining: bool
    ended: dict[str, int] = field(factory=dict)


class SessionSupervisor:
    """Bookkeeping and a nursery; no mailbox. Starting happens in the caller's task, so sessions start in parallel.

    Identity is checked in `lookup`, so no path reaches a session unchecked (mission X2).
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        factory: SessionFactory,
        backends: Sequence[BackendSpec],
        store: SessionStore,
        stateless: StatelessSettings | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.backends = tuple(backends)
        self._factory = factory
        self._store = store
        self._wall_clock = wall_clock
        self._children = Supervisor("sessions", nursery)
        self._live: dict[str, Session] = {}
        self._per_client: Counter[str] = Counter()
        self._starting: set[trio.CancelScope] = set()
        self._started = self._refused = 0
        self._ended: Counter[str] = Counter()
        self._draining = False
        self._none_left = trio.Event()
        self._watching = trio.CancelScope()
        self._stateless = stateless or StatelessSettings()
        self._leases = Leases(
            self._stateless,
            backends=self.backends,
            memory=factory.memory,
            start=self._start_leased,
            spawn=lambda run: self._children.start_soon(ChildSpec("lease", lambda **_: run())),
        )

    @property
    def settings(self) -> SessionSettings:
        """The lifetimes and limits of sessions."""
        return self._factory.settings

    def reconfigure(
        self,
        *,
        backends: Sequence[BackendSpec] | None = None,
        settings: SessionSettings | None = None,
        aggregation: AggregationSettings | None = None,
        restart: RestartSettings | None = None,
        health: HealthSettings | None = None,
        stateless: StatelessSettings | None = None,
    ) -> None:
        """Go by these from now on; what is None stays as it is. Synchronous, and sessions live on.

        New backends join the sessions there are, removed ones are drained and leave them, and clients hear of it
        (`list_changed`). Lifetimes and limits hold at once, but for `max_calls` and the times of connecting and ending,
        which are those of the next session. Where there are now more sessions than allowed, the longest idle ones end.
        """
        factory, old_settings, old_stateless = self._factory, self.settings, self._stateless
        known = {spec.name: spec for spec in self.backends}
        if backends is not None:
            # An equal one stays the one it was: it may hold a credential.
            self.backends = tuple(known[spec.name] if spec == known.get(spec.name) else spec for spec in backends)
        same = {
            spec.name for spec in self.backends if spec.name in known and known[spec.name].endpoint == spec.endpoint
        }
        self._stateless = stateless or old_stateless
        factory.reconfigure(
            settings=settings or old_settings,
            aggregation=aggregation or factory.aggregation,
            restart=restart or factory.restart,
            health=health or factory.health.settings,
            known=same,
        )
        self._leases.reconfigure(self._stateless, self.backends)
        for session in self._live.values():
            was, becomes = old_settings.idle_timeout, self.settings.idle_timeout
            if session.leased:
                was, becomes = old_stateless.idle_timeout, self._stateless.idle_timeout
            if session.idle_timeout == was:
                session.idle_timeout = becomes
            session.reconfigure(self.backends, factory.aggregation)
        self._watching.cancel("the configuration has changed")

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start_session(
        self,
        identity: Identity = ANONYMOUS,
        client: ClientProfile | None = None,
        *,
        eras: Sequence[Era] = STATEFUL_FIRST,
        idle_timeout: float | None = None,
        leased: bool = False,
    ) -> Session:
        """Admit, make and register a session. Cancelling it ends what had been started of it.

        Args:
            eras, idle_timeout, leased: see `SessionFactory.make_session`.

        Raises:
            SessionLimitReached: too many sessions in all, or of this client. Nothing queues.
            Draining: the gateway is shutting down.
            UnresolvedConflicts: see `SessionFactory.make_session`.
        """
        client = client or ClientProfile()
        key = _client_key(identity, client)
        self._admit(key)
        with trio.CancelScope() as starting:
            self._starting.add(starting)
            session_id = new_session_id()
            try:
                record = self._record(session_id, identity, client)
                await self._store.create(record)
                session = await self._factory.make_session(
                    identity,
                    self.backends,
                    start=self._starter(session_id),
                    client=client,
                    session_id=session_id,
                    eras=eras,
                    idle_timeout=idle_timeout,
                    leased=leased,
                )
                self._register(session)
            except BaseException:
                self._release(key)
                with trio.move_on_after(STORE_TIMEOUT, shield=True):
                    await self._forget(session_id)
                raise
            finally:
                self._starting.discard(starting)
                self._check_none_left()
            if not self._draining:
                return session
        raise Draining

    def _admit(self, key: str) -> None:
        """Count the session in, or refuse it. Synchronous: two starts cannot both take the last place."""
        if self._draining:
            raise Draining
        if (
            len(self._live) + len(self._starting) >= self.settings.max_sessions
            or self._per_client[key] >= self.settings.max_per_client
        ):
            self._refused += 1
            raise SessionLimitReached
        self._per_client[key] += 1

    def _release(self, key: str) -> None:
        self._per_client[key] -= 1
        if not self._per_client[key]:
            del self._per_client[key]

    def _record(self, session_id: Secret[str], identity: Identity, client: ClientProfile) -> SessionRecord:
        now = self._wall_clock()
        return SessionRecord(
            session_id=session_id,
            identity_binding=identity.binding,
            client=client,
            backends=tuple(spec.name for spec in self.backends),
            created_at=now,
            last_used_at=now,
        )

    def _starter(self, session_id: Secret[str]) -> StartTask:
        name = f"session {short_hash(session_id.reveal())}"

        async def start(run: Callable[..., object]) -> object:
            return await self._children.start(ChildSpec(name, run, restart=Restart.TEMPORARY))  # type: ignore[arg-type]

        return start

    async def lease(self, identity: Identity, client: ClientProfile) -> Session:
        """The session under which the requests of a stateless client run, by its principal: found, or started.

        Cancelling it leaves the session to other requests.

        Raises:
            UnsupportedProtocolVersion: the stateless revision is not served here (`stateless.mode`).
            SessionLimitReached, Draining, UnresolvedConflicts: as `start_session`.
        """
        return await self._leases.get(identity, client)

    def find_leased(self, identity: Identity, client: ClientProfile) -> Session | None:
        """What `lease` would give without waiting; None if it would have to wait, or would raise."""
        return self._leases.find(identity, client)

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions of MCP that clients can speak with us now, oldest first."""
        return self._leases.revisions

    async def _start_leased(self, identity: Identity, client: ClientProfile, eras: tuple[Era, ...]) -> Session:
        return await self.start_session(
            identity, client, eras=eras, idle_timeout=self._stateless.idle_timeout, leased=True
        )

    def _register(self, session: Session) -> None:
        """From now on the session is found, counted as live, and forgotten when it ends."""
        self._started += 1
        self._live[session.id.reveal()] = session
        name = f"{session.name} · registry"
        self._children.start_soon(ChildSpec(name, lambda **_: self._forget_when_closed(session)))
        logger.info("%s started: %r", session.name, session)
        session.reconfigure(self.backends, self._factory.aggregation)  # they may have changed while it started
        if self._draining:
            # The drain came when the session was already there, but not yet registered: it could not know of it.
            session.request_close("shutdown", drain=0.0)

    async def _forget_when_closed(self, session: Session) -> None:
        """Take the session out of the registry when it has ended, whatever ended it."""
        try:
            await session.wait_closed()
        finally:
            del self._live[session.id.reveal()]
            self._leases.forget(session)
            self._release(_client_key(session.identity, session.client))
            self._ended[session.close_reason] += 1
            self._check_none_left()
            with trio.move_on_after(STORE_TIMEOUT, shield=True):
                await self._forget(session.id)

    async def _forget(self, session_id: Secret[str]) -> None:
        """Take a session out of the store; one that fails keeps it."""
        try:
            await self._store.delete(session_id)
        except Exception:
            logger.exception("a session was not deleted from the store")

    # --- finding ------------------------------------------------------------------------------------------------------

    def lookup(self, session_id: str, identity: Identity = ANONYMOUS) -> Session:
        """The live session of this id, if it is bound to this identity.

        Raises:
            SessionNotFound: unknown, ended, ending, leased, or somebody else's; they look the same from outside.
        """
        session = self._live.get(session_id)
        if session is None or session.closing or session.leased:
            raise SessionNotFound
        if session.identity is identity:
            return session
        if not hmac.compare_digest(session.identity.binding.encode(), identity.binding.encode()):
            raise SessionNotFound
        return session

    async def monitor(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the health of the backends, until cancelled."""
        task_status.started()
        while True:
            with trio.CancelScope() as self._watching:
                monitor = HealthMonitor(
                    self._factory.health.settings,
                    backends=[spec.name for spec in self.backends],
                    sessions=self._live.values,
                )
                await monitor.run()
                await trio.sleep_forever()  # there are no backends

    def sessions(self) -> tuple[SessionStatistics, ...]:
        """A snapshot of every live session."""
        return tuple(session.statistics() for session in self._live.values())

    @property
    def health(self) -> tuple[HealthStatistics, ...]:
        """How each backend is, as far as it is known."""
        return self._factory.health.statistics()

    # --- ending -------------------------------------------------------------------------------------------------------

    async def reap(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End sessions that are idle or past their lifetime, or too many, until cancelled: one task for all (S12)."""
        reaper = Reaper(
            sessions=lambda: list(self._live.values()),
            settings=lambda: self.settings,
            idle_timeouts=lambda: (self.settings.idle_timeout, self._stateless.idle_timeout),
            store=self._store,
            wall_clock=self._wall_clock,
        )
        await reaper.run(task_status=task_status)

    async def drain(self, *, drain: float | None = None) -> None:
        """Start no more sessions, close all of them, and wait until the last has ended.

        A second drain may only shorten. Cancelling the wait leaves them closing.
        """
        self._draining = True
        for scope in list(self._starting):
            scope.cancel("the gateway is shutting down")
        for session in list(self._live.values()):
            session.request_close("shutdown", drain=self.settings.drain_timeout if drain is None else drain)
        self._check_none_left()
        await self._none_left.wait()

    def _check_none_left(self) -> None:
        if self._draining and not self._live and not self._starting:
            self._none_left.set()

    @property
    def draining(self) -> bool:
        """Whether the supervisor is shutting down."""
        return self._draining

    def statistics(self) -> SupervisorStatistics:
        """A snapshot."""
        return SupervisorStatistics(
            sessions=len(self._live),
            starting=len(self._starting),
            started=self._started,
            refused=self._refused,
            crashes=self._children.crashes,
            draining=self._draining,
            ended=dict(self._ended),
        )

    def __repr__(self) -> str:
        return f"<SessionSupervisor: {len(self._live)} sessions, {len(self._starting)} starting>"


def _client_key(identity: Identity, client: ClientProfile) -> str:
    """Whom a session counts against: the identity, or the address of a client that has none (mission S13)."""
    return f"address {client.address}" if identity.anonymous else f"identity {identity.binding}"


@asynccontextmanager
async def open_supervisor(
    *,
    factory: SessionFactory,
    backends: Sequence[BackendSpec],
    store: SessionStore,
    stateless: StatelessSettings | None = None,
) -> AsyncIterator[SessionSupervisor]:
    """Run a supervisor for the body; at the end, also when cancelled, every session is closed.

    Exceptions: those of the body leave in an exception group, as from any nursery. Besides them only
    `RestartsExhausted` of the reaper and the monitor leaves it, and bugs of the supervisor.
    """
    async with trio.open_nursery() as infrastructure:
        async with trio.open_nursery() as nursery:
            supervisor = SessionSupervisor(
                nursery, factory=factory, backends=backends, store=store, stateless=stateless
            )
            services = Supervisor("infrastructure", infrastructure)
            for name, run in (("reaper", supervisor.reap), ("health monitor", supervisor.monitor)):
                services.start_soon(ChildSpec(name, run, Restart.PERMANENT, Intensity(3, 30.0), Backoff(0.1, 1.0)))
            try:
                yield supervisor
            finally:
                settings = supervisor.settings
                with trio.CancelScope(shield=True) as scope:
                    # Whatever does not end in its own time is cancelled: nothing may keep the program from ending.
                    scope.deadline = trio.current_time() + settings.drain_timeout + 2 * settings.goodbye_timeout
                    await supervisor.drain()
                nursery.cancel_scope.cancel("the supervisor has ended")
        infrastructure.cancel_scope.cancel("the supervisor has ended")
