"""A session's connection to one backend, over all its lives: connected, lost, connected again (mission S5, S7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from ..actors import Backoff, ChildSpec, Decision, ExitReason, Intensity, Restart, supervise
from ..errors import (
    ActorStopped,
    BackendError,
    BackendLost,
    BackendReplied,
    BackendRevisionChanged,
    BackendRevisionRefused,
    BackendSessionLost,
    BackendTimeout,
    BackendUnavailable,
    Delivered,
    VmcpError,
)
from ..health import BackendHealth
from ..model import (
    EMPTY_CATALOG,
    BackendSpec,
    Catalog,
    CatalogKind,
    Era,
    Freshness,
    JsonObject,
    Notice,
    PendingAnswer,
    Secret,
)
from ..settings import RestartSettings, SessionSettings
from ..transports import OpenTransport
from .backchannel import BackendRequest
from .gate import ConnectGate
from .handshake import Greeting, RevisionMemory
from .link import BackendLink
from .status import ConnectionEvents, ConnectionState, ConnectionStatistics

logger = logging.getLogger(__name__)

REINITIALIZED = "io.vmcp-actors/backendReinitialized"
"""In the `_meta` of a result: the backend forgot our session, and this ran in a new one (mission S8)."""


class BackendConnection:
    """Keeps one backend connected for one session, and sends its requests there.

    The session runs it as a service. While it connects, comes back, or has given up for the moment, its catalog stays
    what it was: a tool that was listed does not vanish because its backend restarts, its calls say what is wrong.

    Args:
        predecessor: a connection of the same name that this one replaces; what is known from it is kept until then.

    Attributes:
        watched: the resources that the client is subscribed to, by the backend's own URIs, in the order of subscribing.
        last_used: when the last request of the client began, on trio's clock.
    """

    def __init__(
        self,
        spec: BackendSpec,
        *,
        client_capabilities: JsonObject,
        eras: Sequence[Era],
        memory: RevisionMemory,
        health: BackendHealth,
        events: ConnectionEvents,
        open_transport: OpenTransport,
        gate: ConnectGate,
        sessions: SessionSettings,
        restart: RestartSettings,
        predecessor: BackendConnection | None = None,
    ) -> None:
        self.spec = spec
        self.state = ConnectionState.CONNECTING
        self.catalog: Catalog = predecessor.catalog if predecessor else EMPTY_CATALOG
        self.greeting: Greeting = predecessor.greeting if predecessor else Greeting(Era.STATEFUL, {})
        self.reason: str | None = None
        self.watched: dict[str, None] = predecessor.watched if predecessor else {}
        self.last_used = trio.current_time()
        self._client_capabilities = client_capabilities
        self._eras = eras
        self._memory = memory
        self._health = health
        self._events = events
        self._open_transport = open_transport
        self._gate = gate
        self._sessions = sessions
        self._restart = restart
        self._intensity = Intensity(restart.intensity, restart.period)
        self._backoff = Backoff(restart.initial_delay, restart.max_delay)
        self._link: BackendLink | None = None
        self._changed = trio.Event()
        self._next_try: float | None = None
        self._settled = False
        self._known = predecessor is not None and predecessor.ever_ready
        self._retiring = False
        self._scope = trio.CancelScope()
        self._connects = 0
        self._handled = 0

    # --- the task -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled or retired."""
        spec = ChildSpec(
            name=self.spec.name,
            run=self._live_once,
            restart=Restart.TRANSIENT,
            intensity=self._intensity,
            backoff=self._backoff,
            cool_down=self._restart.unavailable_retry,
            on_exit=self._exited,
        )
        try:
            with self._scope:
                await supervise(spec)
        finally:
            self._enter(ConnectionState.CLOSED)
            del self._events  # nothing will happen any more; the session would be in a cycle with it

    async def _live_once(self, *, task_status: trio.TaskStatus[object]) -> None:
        link = BackendLink(
            self.spec,
            client_capabilities=self._client_capabilities,
            eras=self._eras,
            memory=self._memory,
            events=self,
            open_transport=self._open_transport,
            gate=self._gate,
            goodbye_timeout=self._sessions.goodbye_timeout,
            max_calls=self._sessions.max_calls,
        )
        self._enter(ConnectionState.CONNECTING)
        attempt = self._health.begin()

        def ready() -> None:
            attempt.succeeded()
            self._ready(link)

        try:
            await link.run(task_status=_OnStart(ready))
        except BackendRevisionRefused:
            raise  # it is not what was looked for, and nothing is wrong with it
        except BackendError as error:
            attempt.failed(error)
            if self._link is link:
                # It may come back as another version.
                self._memory.doubt(self.spec.name)
            raise
        finally:
            attempt.undecided()
            self._handled += link.ref.statistics().handled
            if self._link is not link:
                # A backend that is not there yet is asked again and again (S5); only losing it counts as a crash (S7).
                self._intensity.reset()
            self._link = None

    def _ready(self, link: BackendLink) -> None:
        self._link = link
        self._connects += 1
        self.greeting = link.greeting
        self._backoff.reset()
        self.reason = self._next_try = None
        logger.info("backend %s is connected", self.spec.name)
        self._enter(ConnectionState.READY)

    def _exited(self, exit_reason: ExitReason, decision: Decision) -> None:
        if self._retiring:
            self._scope.cancel("it is not wanted any more")
            return
        error = exit_reason.error
        reason = error.reason if isinstance(error, BackendError) else str(error or "ended")
        if not isinstance(error, VmcpError) and error is not None:
            logger.error("backend %s: its connection crashed", self.spec.name, exc_info=error)
        if reason != self.reason:
            level = logging.INFO if isinstance(error, BackendRevisionRefused) else logging.WARNING
            logger.log(level, "backend %s: %s; next try in %.1f s", self.spec.name, reason, decision.delay or 0)
        self.reason = reason
        self._next_try = trio.current_time() + (decision.delay or 0.0)
        self._settled = True
        self._enter(ConnectionState.UNAVAILABLE if decision.given_up else ConnectionState.WAITING)

    def _enter(self, state: ConnectionState) -> None:
        self.state = state
        if state is ConnectionState.READY:
            self._settled = True
        self._changed.set()
        self._changed = trio.Event()
        self._events.backend_changed(self.spec.name)

    # --- from the link ------------------------------------------------------------------------------------------------

    def catalog_changed(self, catalog: Catalog, announced: str | None = None) -> None:
        """The link has listed the backend."""
        self.catalog = catalog
        if self.state is ConnectionState.READY:
            self._events.backend_changed(self.spec.name, announced)

    def notice(self, notice: Notice) -> None:
        """The backend sent a notification of its own."""
        self._events.backend_notice(self.spec.name, notice)

    def ask(self, method: str, params: JsonObject) -> PendingAnswer:
        """The backend asks the client something of its own accord."""
        return self._events.backend_asks(method, params)

    # --- for the session ----------------------------------------------------------------------------------------------

    def adopt(self, spec: BackendSpec) -> None:
        """The configuration has changed in what needs no new connection: times, and what becomes of lost sessions."""
        self.spec = spec
        if self._link is not None:
            self._link.spec = spec

    def retire(self, *, drain: float) -> None:
        """Take no new requests, and end when those under way have, at the latest after `drain` seconds. Synchronous."""
        self._retiring = True
        self.reason = "it was taken out of the configuration"
        if self._link is None:
            self._scope.cancel("it is not wanted any more")
        else:
            self._link.ref.request_stop(drain=drain, reason=self.reason)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_closed(self) -> None:
        """Wait until it has ended, after `retire`."""
        while self.state is not ConnectionState.CLOSED:
            await self._changed.wait()

    @property
    def ready(self) -> bool:
        """Whether requests can be sent now."""
        return self._link is not None and self.state is ConnectionState.READY and not self._retiring

    @property
    def ever_ready(self) -> bool:
        """Whether it, or the one that it replaces, has been connected at least once, so that its catalog is known."""
        return self._known or self._connects > 0

    @property
    def connects(self) -> int:
        """How often it has been connected."""
        return self._connects

    @property
    def era(self) -> Era:
        """The kind of revision that was agreed when it was last connected."""
        return self.greeting.era

    @property
    def server(self) -> JsonObject:
        """What the backend said of itself when it was last connected, as in the result of `initialize`."""
        return self.greeting.server

    @property
    def capabilities(self) -> JsonObject:
        """What the backend declared when it was last connected."""
        capabilities = self.server.get("capabilities")
        return capabilities if isinstance(capabilities, dict) else {}

    @property
    def backend_session(self) -> Secret[str] | None:
        """The backend's own session id, if there is one now."""
        return self._link.backend_session if self._link is not None else None

    def tell(self, method: str, params: JsonObject) -> None:
        """Send a notification of the client to the backend, if it is connected. Synchronous, best effort.

        The stateless revision knows none.
        """
        if self._link is not None and self.era is Era.STATEFUL:
            self._link.tell(method, params)

    def freshness(self, kind: CatalogKind) -> Freshness | None:
        """How long one of its lists may be kept, as it said when it was last listed; None if it has no such list."""
        return self.catalog.freshness.get(kind)

    async def refresh(self, kind: str) -> None:
        """List one kind again if what we have of it may be out of date. Raises nothing."""
        if self._link is not None:
            await self._link.refresh(kind)

    async def wait_settled(self) -> None:
        """Wait until the first attempt to connect has succeeded or failed."""
        while not self._settled:
            await self._changed.wait()

    async def request(self, request: BackendRequest) -> JsonObject:
        """Send a request to the backend and wait for its result.

        A request that the backend provably did not run, since it forgot our session, no longer speaks the revision,
        or the connection ended before the request was sent, is sent once more over the next connection, unless the
        backend's `session_loss` says that it fails then. Nothing else is ever sent twice (mission S10).

        Raises:
            BackendReplied: the backend's own JSON-RPC error.
            BackendUnavailable: not connected, and not soon; or the circuit is open. Not delivered.
            BackendError: as `BackendLink.handle`.
            Busy: too many requests to this backend are under way. Not delivered.
        """
        self.last_used = trio.current_time()
        with self._health.begin():
            return await self._request(request)

    async def ping(self, within: float) -> bool:
        """Whether the backend answers, within so many seconds; its health learns of it. Raises nothing.

        The stateless revision has no ping, and is asked what it always answers.
        """
        if not self.ready:
            return False
        method = "ping" if self.era is Era.STATEFUL else "server/discover"
        try:
            with self._health.begin():
                with trio.move_on_after(within):
                    await self._request(BackendRequest(method, {}))
                    return True
                raise BackendTimeout(self.spec.name, f"no answer to {method} within {within:g} s")
        except VmcpError as error:
            return isinstance(error, BackendReplied)

    async def _request(self, request: BackendRequest) -> JsonObject:
        link = await self._ready_link()
        try:
            return await link.ref.call(request)
        except (BackendSessionLost, BackendRevisionChanged, ActorStopped) as error:
            if error.delivered is not Delivered.NO:
                reason = self.reason if self._retiring else f"connection lost during {request.method}"
                raise BackendLost(self.spec.name, reason or "connection lost") from error
            forgotten = isinstance(error, BackendSessionLost)
            if forgotten and self.spec.session_loss == "error":
                raise BackendSessionLost(self.spec.name, "backend session lost, its state is gone") from error
        link = await self._ready_link(after=link)
        try:
            result = await link.ref.call(request)
        except (BackendSessionLost, BackendRevisionChanged, ActorStopped) as error:
            raise BackendLost(self.spec.name, "connection lost again", delivered=error.delivered) from error
        return _marked(result) if forgotten else result

    async def _ready_link(self, after: BackendLink | None = None) -> BackendLink:
        """The connected link, one that comes after `after`; waits for it a little when it is on its way."""
        if self.ready and self._link is not None and self._link is not after:
            return self._link
        patience = trio.current_time() + self._sessions.ready_timeout
        with trio.move_on_at(patience):
            while True:
                if self.ready and self._link is not None and self._link is not after:
                    return self._link
                if self._retiring or (self._link is None and self._next_try_is_later_than(patience)):
                    break
                await self._changed.wait()
        raise BackendUnavailable(self.spec.name, self.unavailable_text())

    def _next_try_is_later_than(self, moment: float) -> bool:
        waiting = self.state in (ConnectionState.WAITING, ConnectionState.UNAVAILABLE)
        return self.state is ConnectionState.CLOSED or (waiting and (self._next_try or 0.0) > moment)

    def unavailable_text(self) -> str:
        """Why requests cannot be sent now, and when the next attempt is."""
        text = f"unavailable: {self.reason or 'still connecting'}"
        if self._next_try is not None and self.state is not ConnectionState.CLOSED and not self._retiring:
            text += f", next try in {max(0.0, self._next_try - trio.current_time()):.0f} s"
        return text

    def statistics(self) -> ConnectionStatistics:
        """A snapshot."""
        running = self._link.ref.statistics() if self._link is not None else None
        waits = self.state in (ConnectionState.WAITING, ConnectionState.UNAVAILABLE)
        return ConnectionStatistics(
            backend=self.spec.name,
            state=self.state.value,
            era=self.era.value if self.ever_ready else None,
            tools=len(self.catalog.tools),
            running_calls=running.mailbox.running if running else 0,
            handled_calls=self._handled + (running.handled if running else 0),
            connects=self._connects,
            reason=self.reason,
            next_try=max(0.0, self._next_try - trio.current_time()) if waits and self._next_try is not None else None,
        )

    def __repr__(self) -> str:
        return f"<BackendConnection {self.spec.name}: {self.state.value}, {self._connects} connects>"


class _OnStart:
    """A task status that calls back."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def started(self, value: object = None) -> None:
        self._callback()


def _marked(result: JsonObject) -> JsonObject:
    meta = result.get("_meta")
    return {**result, "_meta": {**(meta if isinstance(meta, dict) else {}), REINITIALIZED: True}}


__all__ = ["BackendConnection", "BackendRequest", "ConnectionEvents", "ConnectionState", "ConnectionStatistics"]
