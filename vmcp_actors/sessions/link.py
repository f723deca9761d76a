"""One life of a backend connection: an actor that connects, discovers, serves, and says goodbye.

When it is lost it ends; `BackendConnection` (backend.py) starts the next one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from attrs import evolve
from mcp.shared.exceptions import MCPError

from ..actors import Actor, ActorRef, Call, ServiceNursery, open_service_nursery
from ..errors import (
    HEADER_MISMATCH,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    SERVER_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendReplied,
    BackendRevisionChanged,
    BackendSessionLost,
    BackendTimeout,
    BackendUnavailable,
    Delivered,
)
from ..model import BackendSpec, Catalog, Era, JsonObject, Secret
from ..transports import OpenTransport, Transport
from ..transports.base import transport_errors
from ..wire.revisions import LATEST_STATELESS
from ..wire.stateless import unusable_headers
from .backchannel import Backchannel, BackendRequest, LinkEvents
from .catalog import CatalogKeeper
from .dialect import Dialect
from .gate import ConnectGate
from .handshake import STATELESS_ONLY, Greeting, Handshake, RevisionMemory
from .listening import Listener

logger = logging.getLogger(__name__)

SESSION_LOSS_GRACE = 1.0
"""Seconds that other calls get to hear for themselves that the backend forgot the session."""
NOTIFY_TIMEOUT = 5.0

REFUSED_SESSIONS = "no longer speaks the revision of the session"

NOT_UNDERSTOOD = frozenset({UNSUPPORTED_PROTOCOL_VERSION, INVALID_REQUEST, METHOD_NOT_FOUND})
"""Errors with which a backend that no longer speaks the stateless revision may refuse a request in it."""


class BackendLink(Actor[BackendRequest, JsonObject]):
    """Connects, lists what the backend offers, and then sends requests, each in a task of its own.

    Ends with `BackendLost`, `BackendSessionLost` or `BackendRevisionChanged` when the connection is over, with
    `BackendUnavailable` when it could not be made.
    """

    def __init__(
        self,
        spec: BackendSpec,
        *,
        client_capabilities: JsonObject,
        eras: Sequence[Era],
        memory: RevisionMemory,
        events: LinkEvents,
        open_transport: OpenTransport,
        gate: ConnectGate,
        goodbye_timeout: float,
        max_calls: int,
    ) -> None:
        super().__init__(f"backend {spec.name}", capacity=max_calls, max_calls=max_calls)
        self.spec = spec
        self.greeting = Greeting(Era.STATEFUL, {})
        self._client_capabilities = client_capabilities
        self._eras = eras
        self._memory = memory
        self._events = events
        self._open_transport = open_transport
        self._gate = gate
        self._goodbye_timeout = goodbye_timeout
        self._catalog = CatalogKeeper(
            spec.name,
            self._ask,
            timeout=spec.call_timeout,
            on_listed=events.catalog_changed,
            usable=self._usable,
        )
        self._backchannel = Backchannel(
            spec,
            client_capabilities=client_capabilities,
            events=events,
            on_changed=self._catalog.list_again,
            on_acknowledged=self._acknowledged,
            tell=self.tell,
        )
        self._dialect: Dialect
        self._listener: Listener | None = None
        self._transport: Transport | None = None
        self._services: ServiceNursery | None = None
        self._over: BackendError | None = None

    @property
    def capabilities(self) -> JsonObject:
        """What the backend declared when hands were shaken."""
        capabilities = self.greeting.server.get("capabilities")
        return capabilities if isinstance(capabilities, dict) else {}

    @property
    def backend_session(self) -> Secret[str] | None:
        """The backend's own session id, if it gave one."""
        return self._transport.backend_session if self._transport is not None else None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[ActorRef[BackendRequest, JsonObject]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As any actor, and drop at the end what calls back into the link: it would be in cycles with it."""
        try:
            await super().run(task_status=task_status)
        finally:
            self._transport = self._listener = self._over = None
            for name in ("_dialect", "_backchannel", "_catalog"):
                vars(self).pop(name, None)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect, yield while calls are served, then say goodbye: in the one task that owns the transport."""
        await self._gate.enter()
        connecting = trio.CancelScope(deadline=trio.current_time() + self.spec.connect_timeout)
        at_gate = True
        try:
            # The scope stays open all the time: scopes must close in reverse order, and the transport opens nurseries.
            with connecting, transport_errors(self.spec.name, "connection"):
                async with self._open_transport(self.spec) as transport, open_service_nursery() as pumps:
                    self._transport = transport
                    self._dialect = Dialect(self.spec, transport, self._client_capabilities)
                    try:
                        await pumps.start(self._pump, transport)
                        # Whatever else sends over the connection ends before the goodbye.
                        async with open_service_nursery() as self._services:
                            await self._shake_hands(transport, self._services)
                            await self._catalog.discover(self.capabilities)
                            connecting.deadline = math.inf
                            self._gate.leave()
                            at_gate = False
                            self._services.start_soon(self._catalog.run)
                            self._events.catalog_changed(self._catalog.catalog)
                            yield
                    finally:
                        self._services = None
                        with trio.move_on_after(self._goodbye_timeout, shield=True):
                            await transport.goodbye()
            if connecting.cancelled_caught:
                self.fail(BackendUnavailable(self.spec.name, f"was not ready within {self.spec.connect_timeout:g} s"))
                await trio.lowlevel.checkpoint()
            if self._over is not None:
                raise self._over
        finally:
            if at_gate:
                self._gate.leave()

    async def _pump(self, transport: Transport, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve what the backend sends, until the connection is over; then end the link."""
        try:
            with transport_errors(self.spec.name, "connection lost", delivered=Delivered.UNKNOWN):
                backchannel = self._backchannel
                await transport.run(
                    backchannel.on_request, backchannel.on_notify, self._on_notify_intercept, task_status=task_status
                )
            self.fail(BackendLost(self.spec.name, "the connection ended"))
        except BackendSessionLost as error:
            self._end(error)
        except BackendError as error:
            self.fail(error)

    def _end(self, error: BackendError) -> None:
        """The backend answers nothing any more, in this session or in this revision.

        Others may be about to hear the same: cancelling them now would leave open whether they were run.
        """
        if self._over is None:
            self._over = error
            self.ref.request_stop(drain=SESSION_LOSS_GRACE, reason=f"ended: {error.reason}")

    async def _shake_hands(self, transport: Transport, services: ServiceNursery) -> None:
        """Agree on a revision, and have the backend tell us what changes."""
        self.greeting = await self._handshake(self._eras).run()
        if self.greeting.era is Era.STATEFUL:
            await transport.notify("notifications/initialized", None)
            return
        self._dialect.era = Era.STATELESS
        self._backchannel.may_ask = False
        self._listener = Listener(
            self.spec.name,
            capabilities=self.capabilities,
            send=self._dialect.listen,
            new_id=self._dialect.new_id,
            on_changed=self._catalog.list_again,
        )
        await services.start(self._listener.run)

    def _handshake(self, eras: Sequence[Era]) -> Handshake:
        return Handshake(
            self.spec.name,
            self._dialect.ask,
            eras=eras,
            capabilities=self._client_capabilities,
            memory=self._memory,
        )

    def _on_notify_intercept(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Called in the order of arrival. A transport that relates notifications gets its turn in `on_notify`."""
        if self._transport is not None and self._transport.relates_notifications:
            return False
        self._backchannel.notification(method, dict(params or {}), None)
        return True

    def _acknowledged(self, subscription: object, params: JsonObject) -> None:
        if self._listener is not None:
            self._listener.acknowledged(subscription, params)

    # --- what it offers -----------------------------------------------------------------------------------------------

    async def _ask(self, method: str, params: JsonObject | None) -> JsonObject:
        return await self._dialect.ask(method, params)

    async def refresh(self, kind: str) -> None:
        """List one kind again if its time is over and nobody would have told us of a change. Raises nothing."""
        if self._listener is None or self._listener.announces(kind) or self._services is None:
            return
        listed = trio.Event()
        self._services.start_soon(self._refresh, kind, listed)  # it must not outlive the connection
        await listed.wait()

    async def _refresh(self, kind: str, listed: trio.Event) -> None:
        try:
            await self._catalog.refresh(kind)
        finally:
            listed.set()

    def _usable(self, catalog: Catalog) -> Catalog:
        """Without tools whose arguments cannot be repeated in headers (MCP 2026-07-28, transports §Custom Headers)."""
        if not self._dialect.mirrors:
            return catalog
        unusable = {tool["name"]: reason for tool in catalog.tools if (reason := unusable_headers(tool))}
        for name, reason in unusable.items():
            logger.warning("backend %s: tool %s is left out: %s", self.spec.name, name, reason)
        return evolve(catalog, tools=tuple(tool for tool in catalog.tools if tool["name"] not in unusable))

    def _tool(self, request: BackendRequest) -> JsonObject | None:
        if request.method != "tools/call" or not self._dialect.mirrors:
            return None
        name = request.params.get("name")
        return next((tool for tool in self._catalog.catalog.tools if tool.get("name") == name), None)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def handle(self, request: BackendRequest, call: Call[BackendRequest, JsonObject]) -> JsonObject:
        """Send a request and wait for its result, at most `call_timeout` seconds since the start or the last progress.

        Raises `BackendReplied` for the backend's own error, `BackendTimeout`, or another `BackendError`.
        """
        if self._listener is None:
            return await self._exchange_in_session(request, call)
        try:
            if request.method in ("resources/subscribe", "resources/unsubscribe"):
                return await self._watch(request, self._listener)
            return await self._exchange(request, call)
        except (BackendReplied, BackendProtocolError) as error:
            failure = error
        try:
            mismatch = isinstance(failure, BackendReplied) and failure.code == HEADER_MISMATCH
            if mismatch and request.method == "tools/call":
                # Our definition of the tool is out of date. The request was refused, so it was not run.
                await self._catalog.refresh("tools", even_if_fresh=True)
                return await self._exchange(request, call)
            refused = failure.delivered is Delivered.NO or failure.code in NOT_UNDERSTOOD
            if (refused or failure.code == SERVER_ERROR) and await self._revision_changed() and refused:
                raise BackendRevisionChanged(self.spec.name, f"no longer speaks {LATEST_STATELESS}") from failure
            raise failure
        finally:
            del failure  # its traceback has this frame in it

    async def _exchange_in_session(self, request: BackendRequest, call: Call[BackendRequest, JsonObject]) -> JsonObject:
        try:
            return await self._exchange(request, call)
        except BackendReplied as error:
            if error.code != UNSUPPORTED_PROTOCOL_VERSION:
                raise
            refusal = error
        try:
            if await self._session_refused():
                raise BackendRevisionChanged(self.spec.name, REFUSED_SESSIONS) from refusal
            raise refusal
        finally:
            del refusal  # its traceback has this frame in it

    async def _exchange(self, request: BackendRequest, call: Call[BackendRequest, JsonObject]) -> JsonObject:
        request_id = self._dialect.new_id()
        with self._backchannel.request(request_id, request, call, timeout=self.spec.call_timeout) as under_way:
            try:
                return await self._dialect.send(request, under_way.params, request_id, self._tool(request))
            except trio.Cancelled:
                if self._dialect.tells_cancellation:
                    reason = "the client cancelled it" if call.cancelled else "timed out"
                    self.tell("notifications/cancelled", {"requestId": request_id, "reason": reason})
                raise

    async def _watch(self, request: BackendRequest, listener: Listener) -> JsonObject:
        """What the stateful revisions ask for by a request of its own, the stateless one has in its listening."""
        uri = str(request.params.get("uri"))
        if request.method == "resources/unsubscribe":
            listener.unwatch(uri)
            await trio.lowlevel.checkpoint()
            return {}
        with trio.move_on_after(self.spec.call_timeout):
            if await listener.watch(uri):
                return {}
            raise BackendReplied(self.spec.name, METHOD_NOT_FOUND, f"does not tell of changes of {uri}")
        raise BackendTimeout(self.spec.name, f"no answer to {request.method} within {self.spec.call_timeout:g} s")

    async def _revision_changed(self) -> bool:
        """After an error that may mean that the backend no longer speaks the agreed revision: ask it once more.

        If so the link ends; the next one agrees on another.
        """
        with trio.move_on_after(self.spec.connect_timeout), suppress(BackendError):
            await self._handshake(STATELESS_ONLY).run()
        changed = self._memory.speaks(self.spec.name, Era.STATELESS) is False
        if changed:
            self._end(BackendRevisionChanged(self.spec.name, f"no longer speaks {LATEST_STATELESS}"))
        return changed

    async def _session_refused(self) -> bool:
        """After an error that a backend gives that knows no sessions any more, or a tool for reasons of its own: ask
        it once more. If it is the backend the link ends, and the next one agrees on another revision.
        """
        refused = False
        with trio.move_on_after(self.spec.connect_timeout), suppress(BackendError):
            try:
                await self._dialect.ask("ping", None)
            except MCPError as error:
                refused = error.code == UNSUPPORTED_PROTOCOL_VERSION
        if refused:
            self._end(BackendRevisionChanged(self.spec.name, REFUSED_SESSIONS))
        return refused

    def tell(self, method: str, params: JsonObject) -> None:
        """Send a notification to the backend. Synchronous, best effort: it is lost if the connection is."""
        if self._services is not None:
            self._services.start_soon(self._notify, method, params)

    async def _notify(self, method: str, params: JsonObject) -> None:
        assert self._transport is not None
        with trio.move_on_after(NOTIFY_TIMEOUT):
            try:
                await self._transport.notify(method, params)
            except BackendError as error:
                logger.debug("%s not delivered: %s", method, error)
