"""Doubles for programs that embed the gateway, and for our own tests: backends in memory, without sockets or processes.

backend = MemoryBackend("notes", tools={"echo": lambda arguments: arguments["text"]})
async with open_gateway(config, transport=backends([backend])) as gateway: ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Literal

import trio
from attrs import define, field
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest, run_notify_intercept
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION

from .actors import Reply
from .errors import BackendError, BackendLost, BackendSessionLost, BackendUnavailable
from .model import BackendSpec, Era, HttpEndpoint, JsonObject, Secret, StdioCommand
from .transports import OpenTransport, Transport
from .transports.inbound import InboundContext
from .wire.folding import unfolded
from .wire.revisions import LATEST_STATEFUL, STATELESS_REVISIONS
from .wire.stateless import CACHEABLE, PROTOCOL_VERSION, for_stateless, needs_input, tagged

__all__ = ["MemoryBackend", "MemorySession", "backends"]

Tool = Callable[["MemorySession", JsonObject], Awaitable[Any]]


@define(eq=False)
class MemorySession:
    """What a memory backend keeps for one connection; tools may put their state into `state`."""

    backend: MemoryBackend
    session_id: str
    state: dict[str, Any] = field(factory=dict)
    notify: Callable[[str, JsonObject | None], None] = field(default=lambda _, __: None)
    ask: Callable[[str, JsonObject], Awaitable[JsonObject]] = field(default=lambda _, __: _nobody())
    break_stream: Callable[[], None] = field(default=lambda: None)
    lose: Callable[[BackendError], None] = field(default=lambda _: None)
    listens: dict[Any, JsonObject] = field(factory=dict)

    def disconnect(self) -> None:
        """There is nobody any more to notify or ask."""
        self.notify, self.ask = (lambda _, __: None), (lambda _, __: _nobody())
        self.break_stream, self.lose = (lambda: None), (lambda _: None)


async def _nobody() -> JsonObject:
    raise RuntimeError("the session is not connected")


@define(eq=False)
class MemoryBackend:
    """An MCP backend in memory. Its behaviour is set by attributes, also while it is in use.

    Attributes:
        tools: async functions of the session and the arguments, by name; the value becomes a text content. The whole
            params of the request are among the arguments, under `_params`.
        eras: the kinds of revisions that it speaks.
        http: its spec says that it is reached over HTTP, so that requests of the stateless revision carry headers.
        lets_listen: whether `subscriptions/listen` is served.
        caching: what its lists and resources say of how long they may be kept, in the stateless revision.
        down: connecting fails with this text.
        silent: requests are never answered.
        connect_delay: seconds that connecting takes.
        counts: how often each method, `connect` and `goodbye` happened.
        history: (session id, method, params) of every request and notification, in order.
        request_ids: the id of every request, in order.
        headers: the headers of every request that had some, in order.
        sessions: the live sessions by id.
    """

    name: str
    tools: dict[str, Tool] = field(factory=dict)
    resources: tuple[JsonObject, ...] = ()
    prompts: tuple[JsonObject, ...] = ()
    definitions: dict[str, JsonObject] = field(factory=dict)
    capabilities: JsonObject = field(factory=lambda: {"tools": {"listChanged": True}, "logging": {}})
    eras: tuple[Era, ...] = (Era.STATEFUL,)
    http: bool = False
    lets_listen: bool = True
    caching: JsonObject = field(factory=lambda: {"ttlMs": 0, "cacheScope": "private"})
    instructions: str | None = None
    down: str | None = None
    silent: bool = False
    connect_delay: float = 0.0
    session_loss: Literal["retry", "error"] = "retry"
    keepalive: float | None = None
    counts: Counter[str] = field(factory=Counter)
    history: list[tuple[str, str, JsonObject]] = field(factory=list)
    request_ids: list[tuple[str, Any]] = field(factory=list)
    headers: list[dict[str, str]] = field(factory=list)
    sessions: dict[str, MemorySession] = field(factory=dict)
    _number: int = 0

    @property
    def spec(self) -> BackendSpec:
        """A spec under this name; the transport that `backends` makes does not look at the endpoint."""
        endpoint = HttpEndpoint("http://memory/mcp") if self.http else StdioCommand("memory")
        return BackendSpec(self.name, endpoint, session_loss=self.session_loss, keepalive=self.keepalive)

    def crash(self, reason: str = "crashed") -> None:
        """Break every connection, as a process that dies."""
        for session in list(self.sessions.values()):
            session.lose(BackendLost(self.name, reason))
        self.sessions.clear()

    def forget_sessions(self) -> None:
        """Answer every live session's next request as unknown, as a server that was restarted (HTTP 404)."""
        self.sessions.clear()

    def notify(self, method: str, params: JsonObject | None = None) -> None:
        """Send a notification to every session; to those of the stateless revision if they listen for it."""
        for session in list(self.sessions.values()):
            if not session.listens:
                session.notify(method, params)
            for request_id, wanted in session.listens.items():
                if _listened_for(wanted, method, params or {}):
                    session.notify(method, tagged(params, request_id))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_MemoryTransport]:
        """A connection to this backend. Raises `BackendUnavailable` when it is down."""
        self.counts["connect"] += 1
        await trio.sleep(self.connect_delay)
        if self.down is not None:
            raise BackendUnavailable(self.name, self.down)
        self._number += 1
        session = MemorySession(self, f"{self.name}-{self._number}")
        self.sessions[session.session_id] = session
        try:
            yield _MemoryTransport(session)
        finally:
            self.sessions.pop(session.session_id, None)
            session.disconnect()

    async def answer(self, session: MemorySession, request_id: Any, method: str, params: JsonObject) -> JsonObject:
        """The backend's side of one request, in the revision in which it came."""
        params = unfolded(params)
        if not isinstance(params.get("_meta", {}), dict) or not isinstance(params.get("arguments") or {}, dict):
            raise MCPError(INVALID_PARAMS, "Invalid request parameters")
        if PROTOCOL_VERSION not in params.get("_meta", {}):
            if Era.STATEFUL not in self.eras:
                raise MCPError(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version")
            return await self._answer(session, method, params)
        if Era.STATELESS not in self.eras:
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method}")
        if method == "subscriptions/listen" and self.lets_listen:
            return await self._listen(session, request_id, params["notifications"])
        result = await self._answer(session, method, params)
        caching = self.caching if method in CACHEABLE and not needs_input(result) else {}
        return for_stateless({**caching, **result}, {"name": self.name, "version": "1"})

    async def _listen(self, session: MemorySession, request_id: Any, wanted: JsonObject) -> JsonObject:
        session.listens[request_id] = wanted
        try:
            session.notify("notifications/subscriptions/acknowledged", tagged({"notifications": wanted}, request_id))
            await trio.sleep_forever()
        finally:
            del session.listens[request_id]
        raise AssertionError("unreachable")

    async def _answer(self, session: MemorySession, method: str, params: JsonObject) -> JsonObject:
        match method:
            case "initialize":
                result: JsonObject = {
                    "protocolVersion": LATEST_STATEFUL,
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": self.name, "version": "1"},
                }
                return result if self.instructions is None else {**result, "instructions": self.instructions}
            case "server/discover":
                found: JsonObject = {
                    "supportedVersions": list(STATELESS_REVISIONS),
                    "capabilities": self.capabilities,
                }
                return found if self.instructions is None else {**found, "instructions": self.instructions}
            case "tools/list":
                return {"tools": [self._definition(name) for name in self.tools]}
            case "resources/list":
                return {"resources": list(self.resources)}
            case "resources/templates/list":
                return {"resourceTemplates": []}
            case "prompts/list":
                return {"prompts": list(self.prompts)}
            case "resources/read":
                return {"contents": [{"uri": params["uri"], "text": f"{self.name} has {params['uri']}"}]}
            case "prompts/get":
                return {"messages": [], "description": f"{self.name} has {params['name']}"}
            case "tools/call":
                return await self._call(session, params)
            case "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe":
                return {}
            case "completion/complete":
                return {"completion": {"values": [str(params["ref"])]}}
        raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method}")

    def _definition(self, name: str) -> JsonObject:
        return {"name": name, "inputSchema": {"type": "object"}, **self.definitions.get(name, {})}

    async def _call(self, session: MemorySession, params: JsonObject) -> JsonObject:
        tool = self.tools.get(str(params.get("name")))
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.get('name')}")
        arguments = {**(params.get("arguments") or {}), "_meta": params.get("_meta", {}), "_params": params}
        value = await tool(session, arguments)
        return value if isinstance(value, dict) else {"content": [{"type": "text", "text": str(value)}]}


class _MemoryTransport:
    """The `Transport` of one connection to a memory backend."""

    relates_notifications = False
    closing_cancels = False

    def __init__(self, session: MemorySession) -> None:
        self._session = session
        self._backend = session.backend
        self._over: Reply[None] = Reply()
        self._reason = ""
        self._running: set[trio.CancelScope] = set()
        self._intercept: OnNotifyIntercept | None = None
        session.lose = self._lose
        session.notify = self._notify_client

    @property
    def backend_session(self) -> Secret[str] | None:
        return Secret(self._session.session_id)

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._intercept = on_notify_intercept
        context: Any = InboundContext(self, 0, None)
        self._session.ask = partial(on_request, context)
        task_status.started()
        await self._over.wait_done()
        self._over.take()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JsonObject:
        self._note(method, params)
        request_id = (opts or {}).get("request_id")
        self._backend.request_ids.append((self._session.session_id, request_id))
        if (opts or {}).get("headers"):
            self._backend.headers.append(dict((opts or {})["headers"]))
        if self._session.session_id not in self._backend.sessions:
            text = "the backend no longer knows our session"
            self._lose(BackendSessionLost(self._backend.name, text))
            raise BackendSessionLost(self._backend.name, text)
        on_break: Any = (opts or {}).get("on_stream_break")
        if on_break is not None:
            self._session.break_stream = on_break
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                if self._backend.silent:
                    await trio.sleep_forever()
                await trio.lowlevel.checkpoint()
                return await self._backend.answer(self._session, request_id, method, dict(params or {}))
            finally:
                self._running.discard(scope)
        raise BackendLost(self._backend.name, self._reason)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        self._note(method, params)
        await trio.lowlevel.checkpoint()

    async def goodbye(self) -> None:
        self._backend.counts["goodbye"] += 1
        await trio.lowlevel.checkpoint()

    def _note(self, method: str, params: Mapping[str, Any] | None) -> None:
        self._backend.counts[method] += 1
        self._backend.history.append((self._session.session_id, method, dict(params or {})))

    def _lose(self, error: BackendError) -> None:
        if self._over.set_error(error):
            self._reason = error.reason
            if not isinstance(error, BackendSessionLost):
                for scope in self._running:
                    scope.cancel(error.reason)

    def _notify_client(self, method: str, params: JsonObject | None) -> None:
        run_notify_intercept(self._intercept, method, params)


def _listened_for(wanted: JsonObject, method: str, params: JsonObject) -> bool:
    if method == "notifications/resources/updated":
        return params.get("uri") in wanted.get("resourceSubscriptions", [])
    kind = method.removeprefix("notifications/").removesuffix("/list_changed")
    return bool(wanted.get(f"{kind}ListChanged")) or not method.endswith("/list_changed")


def backends(doubles: Sequence[MemoryBackend]) -> OpenTransport:
    """A way to open transports that leads to these backends, by name."""
    by_name = {double.name: double for double in doubles}

    def open_transport(spec: BackendSpec) -> AbstractAsyncContextManager[Transport]:
        return by_name[spec.name].open()

    return open_transport
