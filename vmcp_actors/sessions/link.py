"""One life of a backend connection: an actor that connects, discovers, serves, and says goodbye.

When it is lost it ends; `BackendConnection` (backend.py) starts the next one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from .. import __version__
from ..actors import Actor, Call, ServiceNursery, open_service_nursery
from ..errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendReplied,
    BackendSessionLost,
    BackendTimeout,
    BackendUnavailable,
    Delivered,
)
from ..model import (
    EMPTY_CATALOG,
    BackendSpec,
    JsonObject,
    Secret,
)
from ..transports import OpenTransport, Transport
from ..transports.base import RequestOptions, transport_errors
from ..wire.revisions import LATEST_STATEFUL, STATEFUL_REVISIONS
from .backchannel import Backchannel, BackendRequest, LinkEvents
from .discovery import discover, relist

logger = logging.getLogger(__name__)

COALESCE = 0.05
"""Seconds to wait after a `list_changed` for more of them, before listing again."""
SESSION_LOSS_GRACE = 1.0
"""Seconds that other calls get to hear for themselves that the backend forgot the session."""
NOTIFY_TIMEOUT = 5.0
RELIST_DELAY = 5.0
"""Seconds after which a list that could not be had is asked for again."""


class ConnectGate:
    """Bounds how many backends are being connected: in one session, and in the whole process (mission S4)."""

    def __init__(self, session: trio.CapacityLimiter, process: trio.CapacityLimiter) -> None:
        self._limiters = (session, process)

    async def enter(self) -> None:
        """Wait for a place. Cancelling it takes none."""
        first, second = self._limiters
        await first.acquire()
        try:
            await second.acquire()
        except BaseException:
            first.release()
            raise

    def leave(self) -> None:
        """Give the place back; from the task that entered."""
        for limiter in reversed(self._limiters):
            limiter.release()


class BackendLink(Actor[BackendRequest, JsonObject]):
    """Connects, lists what the backend offers, and then sends requests, each in a task of its own.

    Ends with `BackendLost` or `BackendSessionLost` when the connection is over, with `BackendUnavailable` when it
    could not be made.
    """

    def __init__(
        self,
        spec: BackendSpec,
        *,
        client_capabilities: JsonObject,
        events: LinkEvents,
        open_transport: OpenTransport,
        gate: ConnectGate,
        goodbye_timeout: float,
        max_calls: int,
    ) -> None:
        super().__init__(f"backend {spec.name}", capacity=max_calls, max_calls=max_calls)
        self.spec = spec
        self.server: JsonObject = {}
        self._client_capabilities = client_capabilities
        self._events = events
        self._open_transport = open_transport
        self._gate = gate
        self._goodbye_timeout = goodbye_timeout
        self._catalog = EMPTY_CATALOG
        self._dirty: set[str] = set()
        self._has_dirty = trio.Event()
        self._backchannel = Backchannel(
            spec, client_capabilities=client_capabilities, events=events, on_changed=self._list_again
        )
        self._next_id = 0
        self._transport: Transport | None = None
        self._services: ServiceNursery | None = None
        self._session_lost: BackendSessionLost | None = None

    @property
    def capabilities(self) -> JsonObject:
        """What the backend declared in `initialize`."""
        capabilities = self.server.get("capabilities")
        return capabilities if isinstance(capabilities, dict) else {}

    @property
    def backend_session(self) -> Secret[str] | None:
        """The backend's own session id, if it gave one."""
        return self._transport.backend_session if self._transport is not None else None

    # --- life ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect, yield while calls are served, then say goodbye: in the one task that owns the transport."""
        await self._gate.enter()
        connecting = trio.CancelScope(deadline=trio.current_time() + self.spec.connect_timeout)
        at_gate = True
        try:
            # The scope stays open all the time: scopes must close in reverse order, and the transport opens nurseries.
            with connecting, transport_errors(self.spec.name, "connection"):
                async with self._open_transport(self.spec) as transport, open_service_nursery() as services:
                    self._transport, self._services = transport, services
                    try:
                        await services.start(self._pump, transport)
                        await self._handshake(transport)
                        self._catalog = await discover(self.spec.name, self._ask, self.capabilities)
                        connecting.deadline = math.inf
                        self._gate.leave()
                        at_gate = False
                        services.start_soon(self._keep_catalog)
                        self._events.catalog_changed(self._catalog)
                        yield
                    finally:
                        with trio.move_on_after(self._goodbye_timeout, shield=True):
                            await transport.goodbye()
                        self._services = None
            if connecting.cancelled_caught:
                self.fail(BackendUnavailable(self.spec.name, f"was not ready within {self.spec.connect_timeout:g} s"))
                await trio.lowlevel.checkpoint()
            if self._session_lost is not None:
                raise self._session_lost
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
            # Others may be about to hear the same 404: cancelling them now would leave open whether they were run.
            self._session_lost = error
            self.ref.request_stop(drain=SESSION_LOSS_GRACE, reason=f"ended: {error.reason}")
        except BackendError as error:
            self.fail(error)

    async def _handshake(self, transport: Transport) -> None:
        params = {
            "protocolVersion": LATEST_STATEFUL,
            "capabilities": self._client_capabilities,
            "clientInfo": {"name": "vmcp-actors", "version": __version__},
        }
        try:
            self.server = await self._ask("initialize", params)
        except MCPError as error:
            if _is_closed(error):
                raise BackendUnavailable(self.spec.name, "ended before it was initialized") from error
            raise BackendUnavailable(self.spec.name, f"refused to initialize: {error.message}") from error
        version = self.server.get("protocolVersion")
        if version not in STATEFUL_REVISIONS:
            raise BackendProtocolError(self.spec.name, f"speaks protocol version {version!r}, which is not supported")
        await transport.notify("notifications/initialized", None)

    def _on_notify_intercept(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Called in the order of arrival. A transport that relates notifications gets its turn in `on_notify`."""
        if self._transport is not None and self._transport.relates_notifications:
            return False
        self._backchannel.notification(method, dict(params or {}), None)
        return True

    def _list_again(self, kinds: Iterable[str]) -> None:
        self._dirty.update(kinds)
        self._has_dirty.set()

    async def _keep_catalog(self) -> None:
        """List again what the backend says has changed: only that, and once for many notices."""
        while True:
            await self._has_dirty.wait()
            await trio.sleep(COALESCE)
            kinds, self._dirty, self._has_dirty = self._dirty, set(), trio.Event()
            for kind in sorted(kinds):
                await self._relist(kind)

    async def _relist(self, kind: str) -> None:
        """One list anew. If that fails the old one stays, until it is tried again."""
        failure = f"did not answer within {self.spec.call_timeout:g} s"
        with trio.move_on_after(self.spec.call_timeout):
            try:
                self._catalog = await relist(self.spec.name, self._ask, self._catalog, kind)
                self._events.catalog_changed(self._catalog)
                return
            except BackendError as error:
                failure = error.reason
        logger.warning("backend %s: %s could not be listed again: %s", self.spec.name, kind, failure)
        await trio.sleep(RELIST_DELAY)
        self._list_again({kind})

    # --- requests -----------------------------------------------------------------------------------------------------

    async def handle(self, request: BackendRequest, call: Call[BackendRequest, JsonObject]) -> JsonObject:
        """Send a request and wait for its result, at most `call_timeout` seconds since the start or the last progress.

        Raises `BackendReplied` for the backend's own error, `BackendTimeout`, or another `BackendError`.
        """
        request_id = self._new_request_id()
        timeout = self.spec.call_timeout
        with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
            with self._backchannel.request(request_id, request, scope) as params:
                try:
                    return await self._send(request, params, request_id)
                except trio.Cancelled:
                    reason = "the client cancelled it" if call.cancelled else "timed out"
                    self.tell("notifications/cancelled", {"requestId": request_id, "reason": reason})
                    raise
        raise BackendTimeout(self.spec.name, f"no answer to {request.method} within {timeout:g} s")

    def _new_request_id(self) -> int:
        """An id that this connection has not used before, for whatever request (MCP 2025-11-25, basic §Requests)."""
        self._next_id += 1
        return self._next_id

    async def _ask(self, method: str, params: JsonObject | None) -> JsonObject:
        """A request of the link's own: the handshake and the lists. Raises `MCPError` or `BackendError`."""
        assert self._transport is not None
        options: CallOptions = {"request_id": self._new_request_id(), "cancel_on_abandon": False}
        return await self._transport.send_raw_request(method, params, options)

    async def _send(self, request: BackendRequest, params: JsonObject, request_id: int) -> JsonObject:
        assert self._transport is not None
        options: RequestOptions = {"request_id": request_id, "cancel_on_abandon": False}
        if request.on_break is not None:
            options["on_stream_break"] = request.on_break
        try:
            return await self._transport.send_raw_request(request.method, params, options)
        except MCPError as error:
            if _is_closed(error):
                raise BackendLost(self.spec.name, f"connection lost during {request.method}") from error
            raise BackendReplied(self.spec.name, error.code, error.message, error.data) from error

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


def _is_closed(error: MCPError) -> bool:
    """Whether the SDK's dispatcher says that its stream ended, rather than the backend something of its own."""
    return error.code == CONNECTION_CLOSED and error.message == "Connection closed"
