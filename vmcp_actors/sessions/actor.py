"""The actor behind a session: owns its connections, and keeps its routing table."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context

import trio

from ..actors import Actor, Call, ServiceNursery, open_service_nursery
from ..errors import ClientUnreachable, UnresolvedConflicts
from ..model import (
    AskClient,
    BackendSpec,
    Decorator,
    Handler,
    JsonObject,
    McpRequest,
    Notice,
    NoticeSink,
    PendingAnswer,
    Secret,
    discard_notice,
    short_hash,
)
from ..routing import RoutingTable, build_table
from ..settings import AggregationSettings, SessionSettings
from ..store import SessionStore
from .backend import BackendConnection
from .discovery import CHANGED
from .keepalive import Keepalive
from .request_state import StateSeal
from .router import LOG_LEVELS, Router, set_level, subscribe_again
from .status import ConnectionEvents
from .unfolding import decorated

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 5.0

Connect = Callable[[ConnectionEvents, BackendSpec, BackendConnection | None], BackendConnection]
"""Makes a connection for a session, perhaps one that replaces another. It is not run yet."""

VISIBLE: Mapping[str, Callable[[RoutingTable], object]] = {
    "notifications/tools/list_changed": lambda table: table.tool_definitions,
    "notifications/prompts/list_changed": lambda table: table.prompt_definitions,
    "notifications/resources/list_changed": lambda table: (
        table.resource_definitions,
        table.resource_template_definitions,
    ),
}
"""Which notification tells of which part of the table."""


class SessionActor(Actor[McpRequest, JsonObject]):
    """Owns the connections of one session, and keeps its routing table. `Session` is what others see of it."""

    log_level: str | None = None

    def __init__(
        self,
        session_id: Secret[str],
        *,
        backends: Sequence[BackendSpec],
        connect: Connect,
        client_capabilities: JsonObject,
        principal: str | None,
        seal: StateSeal,
        keepalive_of: Callable[[BackendSpec], Keepalive | None],
        aggregation: AggregationSettings,
        settings: SessionSettings,
        decorators: Sequence[Decorator],
        store: SessionStore | None,
    ) -> None:
        name = f"session {short_hash(session_id.reveal())}"
        super().__init__(name, capacity=settings.max_calls, max_calls=settings.max_calls)
        self.client_capabilities = client_capabilities
        self.principal = principal
        self.seal = seal
        self._leaving: dict[str, BackendConnection] = {}
        self._connect = connect
        self._keepalive_of = keepalive_of
        self.connections = {spec.name: connect(self, spec, None) for spec in backends}
        self.table: RoutingTable = build_table({}, aggregation)
        self.on_client_notice: NoticeSink = discard_notice
        self.ask_client: AskClient = nobody_to_ask
        self.on_closing: Callable[[], None] = do_nothing
        self.handler: Handler = decorated(Router(self), decorators)
        self._session_id = session_id
        self._aggregation = aggregation
        self._settings = settings
        self._store = store
        self._news: set[str] = set()
        self._has_news = trio.Event()
        self._left_out: frozenset[str] = frozenset()
        self._services: ServiceNursery | None = None
        self._context = Context()
        self.last_activity = trio.current_time()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect the backends, in parallel, for at most `ready_timeout`; those that are late go on by themselves."""
        self._context = copy_context()
        async with open_service_nursery() as services:
            for connection in self.connections.values():
                self._begin(connection, services)
            with trio.move_on_after(self._settings.ready_timeout):
                for connection in self.connections.values():
                    await connection.wait_settled()
            try:
                self.table = self._build_table(self._aggregation, self._left_out)
            except UnresolvedConflicts as error:
                self.fail(error)
                await trio.lowlevel.checkpoint()
            connected_at_start = {name: (c, c.connects) for name, c in self.connections.items() if c.ready}
            services.start_soon(self._follow_backends, connected_at_start, services)
            self._services = services
            self.last_activity = trio.current_time()
            try:
                yield
            finally:
                self._services = None
                self.on_closing()
                del self.handler  # nothing is asked any more; the session would be in a cycle with it

    def _begin(
        self, connection: BackendConnection, services: ServiceNursery, *, after: BackendConnection | None = None
    ) -> None:
        name = f"{self.name} · {connection.spec.name}"
        keepalive = self._keepalive_of(connection.spec)
        # In the context of the session, whoever has asked for it.
        self._context.run(services.start_soon, self._keep, connection, keepalive, after, name=name)

    async def _keep(
        self, connection: BackendConnection, keepalive: Keepalive | None, after: BackendConnection | None
    ) -> None:
        """Have a connection, until cancelled or until it is retired; if one of its name is leaving, after that."""
        if after is not None:
            await after.wait_closed()
        async with trio.open_nursery() as nursery:
            if keepalive is not None:
                nursery.start_soon(keepalive.run, connection)
            await connection.run()
            nursery.cancel_scope.cancel("the connection has ended")
        if self._leaving.get(connection.spec.name) is connection:
            del self._leaving[connection.spec.name]

    def _retire(self, connection: BackendConnection) -> None:
        self._leaving[connection.spec.name] = connection
        connection.retire(drain=self._settings.drain_timeout)

    def reconfigure(self, backends: Sequence[BackendSpec], aggregation: AggregationSettings) -> None:
        """Have these backends from now on. Synchronous; what follows from it happens in the session's own tasks.

        New ones are connected, and their tools appear when they are. Those that are gone take no new requests, get
        `drain_timeout` for those under way, and are told goodbye. One that is reached in another way does both, one
        after the other, and keeps its tools meanwhile.
        """
        unchanged = [connection.spec for connection in self.connections.values()] == list(backends)
        if self._services is None or (unchanged and aggregation == self._aggregation):
            return  # or it is ending
        connections, changed = {}, set(self.connections)
        for spec in backends:
            old = self.connections.pop(spec.name, None)
            if old is not None and _reached_alike(old.spec, spec):
                old.adopt(spec)
                changed.discard(spec.name)
                connections[spec.name] = old
                continue
            new = connections[spec.name] = self._connect(self, spec, old)
            if old is not None:
                self._retire(old)
            self._begin(new, self._services, after=self._leaving.get(spec.name))
        for gone in self.connections.values():
            self._retire(gone)
            self._news.add(gone.spec.name)
            self._has_news.set()
        self.connections = connections
        self._replace_table(aggregation, changed)

    async def handle(self, request: McpRequest, call: Call[McpRequest, JsonObject]) -> JsonObject:
        """Answer one request through the decorators and the router."""
        try:
            return await self.handler.handle(request)
        finally:
            self.last_activity = trio.current_time()

    # --- from the connections -----------------------------------------------------------------------------------------

    def backend_changed(self, name: str, announced: str | None = None) -> None:
        """Rebuild the table, replace it at once, and tell the client of what it can see changed.

        What the backend itself has announced is passed on in any case: it may mean more than our copy shows.
        """
        self._news.add(name)
        self._has_news.set()
        connection = self.connections.get(name)
        if self._services is not None and connection is not None and connection.ready:
            self._replace_table(self._aggregation, {name}, announced)

    def _replace_table(
        self, aggregation: AggregationSettings, changed: Collection[str], announced: str | None = None
    ) -> None:
        old, new = self.table, self._rebuild(aggregation, frozenset(changed))
        self.table = new
        for method, visible in VISIBLE.items():
            if visible(old) != visible(new) or announced in CHANGED[method]:
                self.on_client_notice(Notice(method))

    def backend_notice(self, name: str, notice: Notice) -> None:
        """Hand on a notification that belongs to no request."""
        if notice.method == "notifications/message" and self._below_log_level(notice):
            return
        params = notice.params
        if notice.method == "notifications/resources/updated" and params is not None:
            uri = params.get("uri")
            if isinstance(uri, str):
                notice = Notice(notice.method, {**params, "uri": self.table.advertised_uri(name, uri)})
        self.on_client_notice(notice)

    def backend_asks(self, method: str, params: JsonObject) -> PendingAnswer:
        """Ask the client something that belongs to no request of its own."""
        return self.ask_client(method, params)

    def _below_log_level(self, notice: Notice) -> bool:
        level = (notice.params or {}).get("level")
        if self.log_level is None or level not in LOG_LEVELS:
            return False
        return LOG_LEVELS.index(level) < LOG_LEVELS.index(self.log_level)

    def _rebuild(self, aggregation: AggregationSettings, changed: frozenset[str]) -> RoutingTable:
        """A new table. Strategy `manual`: backends whose names clash are left out, until they no longer do; and rules
        with which even that does not help are not applied.
        """
        without = self._left_out | changed
        attempts = [(aggregation, left_out) for left_out in (frozenset[str](), self._left_out, without)]
        for rules, left_out in [*attempts, (self._aggregation, without)]:
            try:
                table = self._build_table(rules, left_out)
            except UnresolvedConflicts as error:
                logger.warning("%s: %s changed: %s", self.name, ", ".join(sorted(changed)) or "the rules", error)
            else:
                self._aggregation, self._left_out = rules, left_out
                return table
        return self.table

    def _build_table(self, aggregation: AggregationSettings, left_out: frozenset[str]) -> RoutingTable:
        catalogs = {
            name: connection.catalog
            for name, connection in self.connections.items()
            if connection.ever_ready and name not in left_out
        }
        return build_table(catalogs, aggregation, complete=len(catalogs) == len(self.connections))

    async def _follow_backends(
        self, connected_at_start: Mapping[str, tuple[BackendConnection, int]], services: ServiceNursery
    ) -> None:
        """Do what a backend's new connection asks for besides the table: save its session id, tell it the log level and
        what is subscribed to. (It asks for roots itself, and the client's capabilities were in the handshake.)
        """
        seen: dict[str, tuple[BackendConnection, int]] = {}
        while True:
            await self._has_news.wait()
            names, self._news, self._has_news = self._news, set(), trio.Event()
            for name in sorted(names):
                connection = self.connections.get(name)
                if connection is None:
                    seen.pop(name, None)
                    await self._save(name, None)
                    continue
                now = (connection, connection.connects)
                if not connection.ready or seen.get(name) == now:
                    continue
                seen[name] = now
                await self._save(name, connection.backend_session)
                joined_later = connected_at_start.get(name) != now
                if joined_later and connection.watched:
                    services.start_soon(subscribe_again, connection)
                if joined_later and self.log_level is not None:
                    services.start_soon(set_level, connection, self.log_level, discard_notice)

    async def _save(self, backend: str, backend_session: Secret[str] | None) -> None:
        """Note the backend session in the store. One that fails or hangs costs the note, not the session."""
        if self._store is None:
            return
        with trio.move_on_after(STORE_TIMEOUT):
            try:
                await self._store.update_backend(self._session_id, backend, backend_session)
            except Exception:
                logger.exception("%s: a backend session was not noted in the store", self.name)


def _reached_alike(old: BackendSpec, new: BackendSpec) -> bool:
    return (old.endpoint, old.eras) == (new.endpoint, new.eras)


def nobody_to_ask(method: str, _: JsonObject) -> PendingAnswer:
    """The `AskClient` of a session that has no client who could answer."""
    raise ClientUnreachable(f"there is no client to ask for {method}")


def do_nothing() -> None:
    """The callback of those who need not know."""
