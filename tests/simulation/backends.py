"""Backends in memory that can be made to misbehave, and that write down what arrives."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError

from vmcp_actors.errors import BackendError, BackendSessionLost, BackendUnauthorized
from vmcp_actors.model import BackendSpec, JsonObject, Secret
from vmcp_actors.testing import MemoryBackend, MemorySession
from vmcp_actors.transports import OpenTransport, Transport
from vmcp_actors.wire.folding import unfolded
from vmcp_actors.wire.stateless import PROTOCOL_VERSION

from .ledger import EPSILON, ORIGIN, CallRecord, Invariant, Ledger, Origin

REFUSED = -32050
CAPABILITIES: JsonObject = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
}
QUESTION: JsonObject = {"message": "?", "requestedSchema": {"type": "object"}}


@define(eq=False)
class SimBackend(MemoryBackend):
    """A memory backend with more faults.

    Attributes:
        delay: seconds before every answer.
        refuses: tool calls are answered with an error.
        unauthorized: tool calls are answered with HTTP 401.
        goodbye_delay: seconds that a goodbye takes.
        changed: how often its revisions were changed.
    """

    board: Board = field(kw_only=True)
    delay: float = 0.0
    refuses: bool = False
    unauthorized: bool = False
    goodbye_delay: float = 0.0
    changed: int = 0

    async def answer(self, session: MemorySession, request_id: Any, method: str, params: JsonObject) -> JsonObject:
        """As a memory backend, late or not at all."""
        if self.delay:
            await trio.sleep(self.delay)
        if self.refuses and method == "tools/call":
            raise MCPError(REFUSED, f"{self.name} refuses")
        if self.unauthorized and method == "tools/call":
            raise BackendUnauthorized(self.name, "refused our credentials (HTTP 401)")
        return await MemoryBackend.answer(self, session, request_id, method, params)

    def heal(self) -> None:
        """Be well again."""
        self.delay = self.connect_delay = self.goodbye_delay = 0.0
        self.down = None
        self.silent = self.refuses = self.unauthorized = False


@define(eq=False)
class Connection:
    """What is known of one connection to a backend. `cut_by` is from when on its calls may be cut off."""

    backend: SimBackend
    origin: Origin
    changed: int
    lost: bool = False
    goodbyes: int = 0
    closed: bool = False
    running: int = 0
    cut_by: float = math.inf

    def __str__(self) -> str:
        return f"connection of {self.origin.owner} to {self.backend.name}"


class Board:
    """All connections of a world, and the tools behind them.

    Args:
        call_timeout: seconds that a call may take since it arrived, or since its last report of progress.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        call_timeout: float,
        max_calls: int,
        max_sessions: int,
        max_per_client: int,
        partial: str,
    ) -> None:
        self.ledger = ledger
        self.connections: list[Connection] = []
        self._timeout = call_timeout
        self._max_calls = max_calls
        self.max_sessions = max_sessions
        self.max_per_client = max_per_client
        self._mode = f"partial failure mode: {partial}"
        self.tools = {
            "echo": self._echo,
            "count": self._count,
            "sleep": self._sleep,
            "ask": self._ask,
            "die": self._die,
        }

    # --- the configuration --------------------------------------------------------------------------------------------

    def allow(self, *, max_sessions: int, max_per_client: int) -> None:
        """The limits are others now."""
        self.max_sessions = max(self.max_sessions, max_sessions)
        self.max_per_client = max(self.max_per_client, max_per_client)

    def retire(self, backends: Collection[str], cut_by: float) -> None:
        """These backends are not in the configuration any more, or are reached in another way."""
        for connection in self.connections:
            if connection.backend.name in backends:
                connection.cut_by = min(connection.cut_by, cut_by)

    # --- connections --------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """A connection was made: the session may have no other to that backend, and no more sessions than allowed."""
        ledger = self.ledger
        ledger.note(f"{connection} opened")
        for other in self.connections:
            if other.origin is connection.origin and other.backend is connection.backend:
                ledger.check(False, Invariant.ONE_CONNECTION, f"a second {connection}")
        self.connections.append(connection)
        origins = {other.origin for other in self.connections}
        count = len(origins)
        ledger.check(count <= self.max_sessions, Invariant.LIMITS, f"{count} sessions have connections ({self._mode})")
        client = connection.origin.client
        count = sum(origin.client == client for origin in origins)
        few = count <= self.max_per_client
        ledger.check(few, Invariant.LIMITS, f"{count} sessions of {client} have connections ({self._mode})")

    def closed(self, connection: Connection) -> None:
        """A connection is gone: it has said goodbye, and nothing runs on it."""
        connection.closed = True
        self.connections.remove(connection)
        self.ledger.note(f"{connection} closed")
        said = connection.goodbyes
        self.ledger.check(said == 1, Invariant.GOODBYE, f"{connection} was closed after {said} goodbyes")
        self.ledger.check(not connection.running, Invariant.GOODBYE, f"{connection} was closed while calls run on it")

    # --- tools --------------------------------------------------------------------------------------------------------

    async def _run(self, session: MemorySession, arguments: JsonObject, *, again: bool = False) -> CallRecord:
        """The beginning of an execution. `again`: the call was sent once more, as it should, with what it needed."""
        record, connection = self.ledger.calls[arguments["call"]], _connection(session)
        connection.running += 1
        self.ledger.check(
            connection.running <= self._max_calls,
            Invariant.LIMITS,
            f"{connection.running} calls are executed on the {connection}",
        )
        if not again:
            self.ledger.executing(record, connection.origin.owner)
        try:
            await self._work(session, record, arguments)
        except trio.Cancelled:
            retired = trio.current_time() >= connection.cut_by - EPSILON
            excused = connection.lost or retired or connection.changed != connection.backend.changed
            self.ledger.was_cut(record, excused=excused, timeout=self._timeout)
            raise
        finally:
            connection.running -= 1
        self.ledger.finished(record)
        return record

    async def _work(self, session: MemorySession, record: CallRecord, arguments: JsonObject) -> None:
        await trio.lowlevel.checkpoint()
        token = arguments["_meta"].get("progressToken")
        for step in range(arguments.get("steps", 1)):
            if token is not None:
                record.progress_sent += 1
                record.arrived = trio.current_time()  # its time begins anew
                message = {"progressToken": token, "progress": step, "message": str(record.number)}
                session.notify("notifications/progress", message)
            for _ in range(arguments.get("logs", 0)):
                data = _connection(session).origin.owner
                session.notify("notifications/message", {"level": "error", "data": data})
            if arguments.get("breaks"):
                session.break_stream()
            if arguments.get("seconds"):
                await trio.sleep(arguments["seconds"])

    async def _echo(self, session: MemorySession, arguments: JsonObject) -> Any:
        record = await self._run(session, arguments)
        return f"echo {record.number}"

    async def _count(self, session: MemorySession, arguments: JsonObject) -> Any:
        record = await self._run(session, arguments)
        session.state["n"] = session.state.get("n", 0) + 1
        return f"count {record.number}"

    async def _sleep(self, session: MemorySession, arguments: JsonObject) -> Any:
        record = await self._run(session, arguments)
        return f"sleep {record.number}"

    async def _die(self, session: MemorySession, arguments: JsonObject) -> Any:
        """The backend crashes in the middle of the call."""
        record = await self._run(session, arguments)
        session.backend.crash(f"killed by {record}")
        record.finished = None
        await trio.sleep_forever()

    async def _ask(self, session: MemorySession, arguments: JsonObject) -> Any:
        """Needs something of the client, in the way of the revision in which it was called."""
        request, number = arguments["_params"], arguments["call"]
        question = {**QUESTION, "owner": _connection(session).origin.owner}
        if PROTOCOL_VERSION not in arguments["_meta"]:
            record = self.ledger.calls[number]
            self.ledger.executing(record, _connection(session).origin.owner)
            try:
                await session.ask("elicitation/create", question)
            except MCPError as error:
                return f"ask {number}" if error.code else ""
            return f"ask {number}"
        if "inputResponses" not in request:
            await trio.lowlevel.checkpoint()
            needs = {"q": {"method": "elicitation/create", "params": question}}
            return {"resultType": "input_required", "inputRequests": needs, "requestState": f"state {number}"}
        await self._run(session, arguments)
        return f"ask {number}"


def _connection(session: MemorySession) -> Connection:
    connection = session.state["connection"]
    assert isinstance(connection, Connection)
    return connection


class ObservedTransport:
    """A transport that writes down what goes through it, and holds it against the invariants."""

    relates_notifications = False

    def __init__(self, inner: Transport, connection: Connection, ledger: Ledger) -> None:
        self.closing_cancels = connection.backend.http
        self._inner = inner
        self._connection = connection
        self._ledger = ledger

    @property
    def backend_session(self) -> Secret[str] | None:
        return self._inner.backend_session

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self._inner.run(on_request, on_notify, on_notify_intercept, task_status=task_status)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JsonObject:
        self._sent(method)
        arguments = unfolded(dict(params or {})).get("arguments")
        record = self._ledger.calls.get(arguments.get("call", 0)) if isinstance(arguments, dict) else None
        if record is not None:
            record.arrived = trio.current_time()
        try:
            result = await self._inner.send_raw_request(method, params, opts)
        except BackendSessionLost:
            self._connection.lost = True
            raise
        assert isinstance(result, dict)
        return result

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        self._sent(method)
        await self._inner.notify(method, params, opts)

    async def goodbye(self) -> None:
        self._ledger.note(f"{self._connection} says goodbye")
        self._connection.goodbyes += 1
        await self._inner.goodbye()
        await trio.sleep(self._connection.backend.goodbye_delay)

    def _sent(self, method: str) -> None:
        connection = self._connection
        self._ledger.note(f"{connection} sends {method}")
        self._ledger.check(
            not connection.goodbyes and not connection.closed,
            Invariant.AFTER_GOODBYE,
            f"{method} is sent on the {connection}",
        )


def observed(doubles: Sequence[SimBackend], board: Board) -> OpenTransport:
    """A way to open transports that leads to these backends, by name; all that goes over them is written down."""
    by_name = {double.name: double for double in doubles}

    @asynccontextmanager
    async def open_observed(backend: SimBackend) -> AsyncIterator[Transport]:
        async with backend.open() as inner:
            assert inner.backend_session is not None
            session = backend.sessions[inner.backend_session.reveal()]
            connection = Connection(backend, ORIGIN.get(), backend.changed)
            session.state["connection"] = connection
            lose = session.lose

            def losing(error: BackendError) -> None:
                connection.lost = True
                lose(error)

            session.lose = losing
            board.opened(connection)
            try:
                yield ObservedTransport(inner, connection, board.ledger)
            finally:
                board.closed(connection)

    def open_transport(spec: BackendSpec) -> AbstractAsyncContextManager[Transport]:
        return open_observed(by_name[spec.name])

    return open_transport
