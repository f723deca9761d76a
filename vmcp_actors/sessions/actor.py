"""The actor behind a session: owns its connections, and keeps its routing table."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from ..actors import Actor, Call, ServiceNursery, open_service_nursery
from ..errors import ClientUnreachable, UnresolvedConflicts
from ..model import (
    AskClient,
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
from .backend import BackendConnection, ConnectionEvents, ConnectionState
from .discovery import CHANGED
from .keepalive import Keepalive
from .request_state import StateSeal
from .router import LOG_LEVELS, Router, set_level, subscribe_again

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 5.0

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
        connect: Callable[[ConnectionEvents], Sequence[BackendConnection]],
        client_capabilities: JsonObject,
        principal: str | None,
        seal: StateSeal,
        keepalives: Mapping[str, Keepalive],
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
        self._keepalives = keepalives
        self.connections: dict[str, BackendConnection] = {c.spec.name: c for c in connect(self)}
        self.table: RoutingTable = build_table({}, aggregation)
        self.on_client_notice: NoticeSink = discard_notice
        self.ask_client: AskClient = nobody_to_ask
        self.on_closing: Callable[[], None] = do_nothing
        self.handler: Handler = Router(self)
        for decorate in decorators:
            self.handler = decorate(self.handler)
        self._session_id = session_id
        self._aggregation = aggregation
        self._settings = settings
        self._store = store
        self._news: set[str] = set()
        self._has_news = trio.Event()
        self._left_out: frozenset[str] = frozenset()
        self._started = False
        self.last_activity = trio.current_time()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect the backends, in parallel, for at most `ready_timeout`; those that are late go on by themselves."""
        async with open_service_nursery() as services:
            for connection in self.connections.values():
                services.start_soon(connection.run, name=f"{self.name} · {connection.spec.name}")
                keepalive = self._keepalives.get(connection.spec.name)
                if keepalive is not None:
                    services.start_soon(keepalive.run, connection)
            with trio.move_on_after(self._settings.ready_timeout):
                for connection in self.connections.values():
                    await connection.wait_settled()
            try:
                self.table = self._build_table(self._left_out)
            except UnresolvedConflicts as error:
                self.fail(error)
                await trio.lowlevel.checkpoint()
            connected_at_start = {name: c.connects for name, c in self.connections.items() if c.ready}
            services.start_soon(self._follow_backends, connected_at_start, services)
            self._started = True
            self.last_activity = trio.current_time()
            try:
                yield
            finally:
                self.on_closing()

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
        connection = self.connections[name]
        if not self._started or connection.state is not ConnectionState.READY:
            return
        old, new = self.table, self._rebuild(name)
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

    def _rebuild(self, changed: str) -> RoutingTable:
        """A new table. Strategy `manual`: a backend whose names clash is left out, until they no longer do."""
        for left_out in (frozenset[str](), self._left_out, self._left_out | {changed}):
            try:
                table = self._build_table(left_out)
            except UnresolvedConflicts as error:
                logger.warning("%s: backend %s changed: %s", self.name, changed, error)
            else:
                self._left_out = left_out
                return table
        return self.table

    def _build_table(self, left_out: frozenset[str]) -> RoutingTable:
        catalogs = {
            name: connection.catalog
            for name, connection in self.connections.items()
            if connection.ever_ready and name not in left_out
        }
        return build_table(catalogs, self._aggregation, complete=len(catalogs) == len(self.connections))

    async def _follow_backends(self, connected_at_start: Mapping[str, int], services: ServiceNursery) -> None:
        """Do what a backend's new connection asks for besides the table: save its session id, tell it the log level and
        what is subscribed to. (It asks for roots itself, and the client's capabilities were in the handshake.)
        """
        saved: dict[str, int] = {}
        while True:
            await self._has_news.wait()
            names, self._news, self._has_news = self._news, set(), trio.Event()
            for name in sorted(names):
                connection = self.connections[name]
                if not connection.ready or saved.get(name) == connection.connects:
                    continue
                saved[name] = connection.connects
                await self._save(connection)
                joined_later = connection.connects != connected_at_start.get(name)
                if joined_later and connection.watched:
                    services.start_soon(subscribe_again, connection)
                if joined_later and self.log_level is not None:
                    services.start_soon(set_level, connection, self.log_level, discard_notice)

    async def _save(self, connection: BackendConnection) -> None:
        """Note the backend session in the store. One that fails or hangs costs the note, not the session."""
        if self._store is None:
            return
        with trio.move_on_after(STORE_TIMEOUT):
            try:
                await self._store.update_backend(self._session_id, connection.spec.name, connection.backend_session)
            except Exception:
                logger.exception("%s: a backend session was not noted in the store", self.name)


def nobody_to_ask(method: str, _: JsonObject) -> PendingAnswer:
    """The `AskClient` of a session that has no client who could answer."""
    raise ClientUnreachable(f"there is no client to ask for {method}")


def do_nothing() -> None:
    """The callback of those who need not know."""
