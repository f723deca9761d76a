"""A client's session: the domain object that callers hold (mission S2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce

import trio
from attrs import frozen

from ..actors import ActorRef, Call, OnCallerExit
from ..errors import ActorStopped, SessionClosed
from ..model import (
    AskClient,
    BackendSpec,
    ClientProfile,
    Freshness,
    Identity,
    JsonObject,
    McpRequest,
    NoticeSink,
    RequestContext,
    Secret,
    discard_notice,
)
from ..settings import AggregationSettings
from ..wire.folding import unfolded
from .actor import SessionActor, do_nothing, nobody_to_ask
from .parking import InteractiveCall, Parking
from .status import ConnectionStatistics

logger = logging.getLogger(__name__)

NO_CONTEXT = RequestContext()


@frozen
class SessionStatistics:
    """A snapshot of a session. Times are in seconds; `idle` is None while a call runs or a stream is open."""

    name: str
    tools: int
    running_calls: int
    handled_calls: int
    open_streams: int
    age: float
    since_use: float
    idle: float | None
    closing: bool
    backends: tuple[ConnectionStatistics, ...]


class Session:
    """A client's session with us, whatever server it came through, or none (mission S2).

    Its methods may be called from any task, in parallel. Each result is what the backend sent, as a dict. A session is
    made by `SessionFactory.make_session`, fully formed, and ends by `close`; its actor owns everything in it.

    Attributes:
        idle_timeout: seconds without a call or an open stream, after which it ends.
        leased: it is shared by the requests of a stateless principal, and cannot be reached by its id.
    """

    def __init__(
        self,
        session_id: Secret[str],
        identity: Identity,
        client: ClientProfile,
        actor: SessionActor,
        *,
        idle_timeout: float,
        leased: bool = False,
    ) -> None:
        self.id = session_id
        self.idle_timeout = idle_timeout
        self.leased = leased
        self.identity = identity
        self.client = client
        self._actor = actor
        self._created = trio.current_time()
        self._open_streams = 0
        self._parking = Parking()
        self._close_reason: str | None = None

    # --- what it offers -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """A short name for logs; it does not give the id away."""
        return self._actor.name

    @property
    def tools(self) -> tuple[JsonObject, ...]:
        """The tools of all backends, under the names that clients use."""
        return self._actor.table.tool_definitions

    def find_tool(self, name: str) -> JsonObject | None:
        """The definition of a tool, as clients see it; None if there is none of this name."""
        route = self._actor.table.tools.get(name)
        return route.definition if route is not None else None

    @property
    def resources(self) -> tuple[JsonObject, ...]:
        """The resources of all backends."""
        return self._actor.table.resource_definitions

    @property
    def resource_templates(self) -> tuple[JsonObject, ...]:
        """The resource templates of all backends."""
        return self._actor.table.resource_template_definitions

    @property
    def prompts(self) -> tuple[JsonObject, ...]:
        """The prompts of all backends, under the names that clients use."""
        return self._actor.table.prompt_definitions

    @property
    def backend_sessions(self) -> Mapping[str, Secret[str]]:
        """The backends' own session ids, of those that gave one."""
        sessions = {name: connection.backend_session for name, connection in self._actor.connections.items()}
        return {name: session for name, session in sessions.items() if session is not None}

    @property
    def capabilities(self) -> JsonObject:
        """What the session can do, for `initialize`: all that its backends declare.

        While a backend is missing, what it might bring is declared too: capabilities cannot be added later.
        """
        connections = self._actor.connections.values()
        incomplete = any(not connection.ever_ready for connection in connections)

        def some(capability: str, detail: str | None = None) -> bool:
            values = [connection.capabilities.get(capability) for connection in connections]
            present = [value for value in values if isinstance(value, dict)]
            return incomplete or any(detail is None or bool(value.get(detail)) for value in present)

        capabilities: JsonObject = {"tools": {"listChanged": True}}
        if some("resources"):
            capabilities["resources"] = {"listChanged": True, "subscribe": some("resources", "subscribe")}
        if some("prompts"):
            capabilities["prompts"] = {"listChanged": True}
        for plain in ("logging", "completions"):
            if some(plain):
                capabilities[plain] = {}
        return capabilities

    @property
    def freshness(self) -> Freshness:
        """How long all of this may be kept: what the backends say, together."""
        connections = self._actor.connections.values()
        if not all(connection.ever_ready for connection in connections):
            return Freshness()
        each = [connection.greeting.freshness for connection in connections]
        return reduce(Freshness.__and__, each, each[0]) if each else Freshness()

    @property
    def instructions(self) -> str | None:
        """What the backends tell clients in `initialize`, each under its name; None when none does."""
        parts = []
        for name, connection in self._actor.connections.items():
            text = connection.server.get("instructions")
            if isinstance(text, str) and text:
                parts.append(text if len(self._actor.connections) == 1 else f"## {name}\n{text}")
        return "\n\n".join(parts) or None

    # --- what it does -------------------------------------------------------------------------------------------------

    async def call_tool(
        self, name: str, arguments: JsonObject | None = None, *, on_notice: NoticeSink = discard_notice
    ) -> JsonObject:
        """Call a tool. Cancelling it cancels the call down to the backend. Raises `VmcpError`."""
        return await self.request("tools/call", {"name": name, "arguments": arguments or {}}, on_notice=on_notice)

    async def read_resource(self, uri: str) -> JsonObject:
        """Read a resource. Raises `VmcpError`."""
        return await self.request("resources/read", {"uri": uri})

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> JsonObject:
        """Get a prompt. Raises `VmcpError`."""
        return await self.request("prompts/get", {"name": name, "arguments": dict(arguments or {})})

    async def complete(self, ref: JsonObject, argument: JsonObject, context: JsonObject | None = None) -> JsonObject:
        """Complete an argument of a prompt or of a resource template. Raises `VmcpError`."""
        params: JsonObject = {"ref": ref, "argument": argument}
        if context is not None:
            params["context"] = context
        return await self.request("completion/complete", params)

    async def request(
        self, method: str, params: JsonObject | None = None, *, on_notice: NoticeSink = discard_notice
    ) -> JsonObject:
        """Any request of MCP, and its result. Cancelling it cancels the request down to the backend.

        Raises:
            SessionClosed: the session is ending; not delivered.
            Busy: too many calls of this session are under way; not delivered.
            VmcpError: what the routing or the backend raised.
        """
        context = RequestContext(on_notice)
        call = self.submit(method, params or {}, context, on_caller_exit=OnCallerExit.CANCEL)
        try:
            await call.reply.wait_done()
            return unfolded(call.reply.take())
        finally:
            call.caller_left()

    def submit(
        self,
        method: str,
        params: JsonObject,
        context: RequestContext = NO_CONTEXT,
        *,
        on_caller_exit: OnCallerExit = OnCallerExit.DETACH,
        deadline: float = math.inf,
    ) -> Call[McpRequest, JsonObject]:
        """Begin a request and return its call, whose reply will be set in any case. Synchronous; raises as
        `request`. The params may be folded, and the result may be (`wire.folding`).
        """
        self.touch()
        try:
            return self._ref.submit(
                McpRequest(method, params, context), on_caller_exit=on_caller_exit, deadline=deadline
            )
        except ActorStopped as error:
            raise SessionClosed from error

    def interact(self, method: str, params: JsonObject, context: RequestContext) -> InteractiveCall:
        """Begin a request of a stateless client, or go on with one that needed input. Synchronous; raises as `submit`.

        Raises also `InvalidParams` for a `requestState` that is none of ours, or not for this request.
        """
        return self._parking.begin(method, params, context, self.submit)

    def listen(
        self,
        sink: NoticeSink,
        *,
        ask: AskClient | None = None,
        on_closing: Callable[[], None] | None = None,
    ) -> None:
        """Connect the session with its client: for what belongs to no request, from now on. There is one listener.

        `sink` takes notifications, `ask` asks the client something, `on_closing` hears of the session's close.
        All are called from the session's tasks: they must not wait, and only `ask` may raise (`ClientUnreachable`).
        """
        self._actor.on_client_notice = sink
        self._actor.ask_client = ask or nobody_to_ask
        self._actor.on_closing = on_closing or do_nothing

    def tell_backends(self, method: str, params: JsonObject) -> None:
        """Send a notification of the client to every backend that is connected. Synchronous, best effort."""
        for connection in self._actor.connections.values():
            connection.tell(method, params)

    async def ping_backend(self, name: str, *, within: float) -> bool:
        """See whether a backend answers this session, within so many seconds. Returns whether it could be asked."""
        connection = self._actor.connections.get(name)
        if connection is None or not connection.ready:
            return False
        await connection.ping(within)
        return True

    def reconfigure(self, backends: Sequence[BackendSpec], aggregation: AggregationSettings) -> None:
        """Have these backends from now on, under these rules. Synchronous: see `SessionSupervisor.reconfigure`."""
        self._actor.reconfigure(backends, aggregation)

    # --- its life -----------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """The session is being used now."""
        self._actor.last_activity = trio.current_time()

    @contextmanager
    def stream_open(self) -> Iterator[None]:
        """While the body runs the client has a stream open: the session is not idle."""
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1
            self.touch()

    def request_close(self, reason: str, *, drain: float) -> None:
        """Take no new calls, and end when the running ones have, at the latest after `drain` seconds. Does not wait.

        Idempotent: a second close may only shorten.
        """
        if self._close_reason is None:
            self._close_reason = reason
            logger.info("%s closes: %s", self.name, reason)
            self._actor.on_closing()
        self._ref.request_stop(drain=drain, reason="is closing")

    async def close(self, reason: str = "closed", *, drain: float = 10.0) -> None:
        """`request_close`, then wait until everything of the session has ended: tasks, connections, processes.

        Cancelling the wait does not undo the close.
        """
        self.request_close(reason, drain=drain)
        await self._ref.wait_ended()

    async def wait_closed(self) -> None:
        """Wait until the session has ended, for whatever reason."""
        await self._ref.wait_ended()

    @property
    def closing(self) -> bool:
        """Whether the session takes no more calls."""
        return not self._ref.accepting

    @property
    def close_reason(self) -> str:
        """Why the session was closed; `crashed` when nobody closed it."""
        return self._close_reason or "crashed"

    @property
    def closed(self) -> bool:
        """Whether everything of the session has ended."""
        return self._ref.ended

    @property
    def since_use(self) -> float:
        """Seconds since the last use; 0 while a call is under way."""
        return 0.0 if self._ref.busy else trio.current_time() - self._actor.last_activity

    @property
    def idle(self) -> float | None:
        """Seconds without a call or an open stream; None while there is one (mission S12)."""
        return None if self._open_streams or self._ref.busy else self.since_use

    def statistics(self) -> SessionStatistics:
        """A snapshot."""
        actor = self._ref.statistics()
        return SessionStatistics(
            name=self.name,
            tools=len(self.tools),
            running_calls=actor.mailbox.running,
            handled_calls=actor.handled,
            open_streams=self._open_streams,
            age=trio.current_time() - self._created,
            since_use=self.since_use,
            idle=self.idle,
            closing=self.closing,
            backends=tuple(connection.statistics() for connection in self._actor.connections.values()),
        )

    @property
    def _ref(self) -> ActorRef[McpRequest, JsonObject]:
        return self._actor.ref

    def __repr__(self) -> str:
        ready = sum(connection.ready for connection in self._actor.connections.values())
        state = "closed" if self.closed else "closing" if self._close_reason else "open"
        return (
            f"<Session {self.name}: {state}, {ready}/{len(self._actor.connections)} backends, {len(self.tools)} tools>"
        )
