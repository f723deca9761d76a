"""Clients of the stateful revisions at the HTTP endpoint: they stream, hang up, resume, answer, and delete."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial

import trio
from attrs import define, field

from vmcp_actors.model import JsonObject, Notice

from .clients import LEVELS, Client, Operation, Plan
from .http import Exchange, scope_of
from .ledger import ORIGIN, CallRecord, Invariant, Origin
from .world import CALL_BOUND, World

STREAM_FIRST = "text/event-stream, application/json"
SESSION_GONE = -32001
NOT_EXECUTED = frozenset({400, 404, 503})
RESUMPTIONS = 6
NO_HEADERS: Mapping[str, str] = {}


@define(eq=False)
class WebSession:
    """What a client keeps of a session: its id, its calls, and its GET stream."""

    origin: Origin
    session_id: str
    calls: dict[int, CallRecord] = field(factory=dict)
    stream: Exchange | None = None
    deleted: bool = False
    answered: set[int] = field(factory=set)


class WebClient(Client):
    """A client with one session at a time."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.session: WebSession | None = None
        self._open: list[Exchange] = []
        self._started = 0
        self._next_id = 0

    def operations(self) -> Sequence[Operation]:
        if self.session is None:
            return ((5, self._initialize), (0.5, self._unknown_session), (1, self._think))
        return (
            (8, self.call),
            (1, self.burst),
            (2, self._stream),
            (1, self._hang_up),
            (1.5, self._request),
            (0.7, self._delete),
            (0.4, self._vanish),
            (1, self._think),
        )

    async def leave(self) -> None:
        if self.session is not None and self.random.random() < 0.3:
            await self._delete()
        await self._vanish()

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    def begin(
        self,
        method: str,
        message: JsonObject | None,
        *,
        session: WebSession | None = None,
        origin: Origin | None = None,
        record: CallRecord | None = None,
        pace: float = 0.0,
        last_event: str = "",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Exchange:
        """Begin a request. What comes back is looked at as it comes."""
        exchange = Exchange(partial(self._message, session, record), pace=pace, last_event=last_event)
        fields = dict(headers)
        if session is not None:
            fields["mcp-session-id"] = session.session_id
        body = json.dumps(message).encode() if message is not None else b""
        self._open.append(exchange)
        if self.world.ending:
            exchange.refuse()
            return exchange
        token = ORIGIN.set(origin or Origin("nobody", "nobody"))
        try:
            self.world.requests.start_soon(
                exchange.run, self.world.app, scope_of(method, self.person, fields), body, name=f"{method} request"
            )
        finally:
            ORIGIN.reset(token)
        return exchange

    async def until_over(self, exchange: Exchange, what: str) -> bool:
        """Wait until a response is complete. Returns whether it is: not if the client hung up."""
        with trio.move_on_after(CALL_BOUND) as bound:
            await exchange.over.wait()
        self.world.note(f"{what}: HTTP {exchange.status}")
        self._open.remove(exchange)
        self.world.check(not bound.cancelled_caught, Invariant.ONE_OUTCOME, f"{what} was not answered")
        if exchange.gone.is_set() or self.world.ending:
            return False
        self.world.check(exchange.complete, Invariant.ONE_OUTCOME, f"{what} got no complete response")
        self.world.check(exchange.status != 500, Invariant.NO_SURPRISE, f"{what} got HTTP 500: {exchange.body!r}")
        return exchange.complete

    def new_id(self) -> int:
        """An id that this client has not used before."""
        self._next_id += 1
        return self._next_id

    # --- the session --------------------------------------------------------------------------------------------------

    async def _initialize(self) -> None:
        self._started += 1
        origin = Origin(f"client {self.number} session {self._started}", f"address {self.person}")
        params: JsonObject = {
            "protocolVersion": self.random.choice(("2025-11-25", "2025-06-18")),
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "sim", "version": "1"},
        }
        message = {"jsonrpc": "2.0", "id": self.new_id(), "method": "initialize", "params": params}
        exchange = self.begin("POST", message, origin=origin)
        if not await self.until_over(exchange, "initialize"):
            return
        self.world.note(f"{origin.owner}: initialize got {exchange.status}")
        self.world.observe()
        if exchange.status == 200:
            self.session = WebSession(origin, exchange.headers["mcp-session-id"])
            self._notify(self.session, "notifications/initialized", {})

    def _notify(self, session: WebSession, method: str, params: JsonObject) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self._post_soon(session, message, method)

    def _post_soon(self, session: WebSession, message: JsonObject, what: str) -> None:
        exchange = self.begin("POST", message, session=session)
        self.tasks.start_soon(self.until_over, exchange, what)

    async def _unknown_session(self) -> None:
        session = WebSession(Origin("nobody", "nobody"), "no-such-session")
        message = {"jsonrpc": "2.0", "id": self.new_id(), "method": "tools/list", "params": {}}
        exchange = self.begin("POST", message, session=session)
        if await self.until_over(exchange, "an unknown session"):
            self.world.check(exchange.status == 404, Invariant.REFUSED, f"an unknown session got {exchange.status}")

    async def _delete(self) -> None:
        session, self.session = self.session, None
        assert session is not None
        drain = self.world.config.sessions.drain_timeout
        session.origin.cut_by = min(session.origin.cut_by, trio.current_time() + drain)
        exchange = self.begin("DELETE", None, session=session)
        if await self.until_over(exchange, "DELETE") and exchange.status == 204:
            left = [other for other in self.world.board.connections if other.origin is session.origin]
            self.world.check(not left, Invariant.NOTHING_LEFT, f"a DELETE left {left}")

    async def _vanish(self) -> None:
        """Go without a word: every connection is gone at once."""
        if self.session is not None:
            for record in self.session.calls.values():
                record.left = True
        for exchange in self._open:
            exchange.hang_up()
        self.session = None

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _stream(self) -> None:
        """Open a GET stream, or close the one there is and open it again where it broke off, or anew."""
        session = self.session
        assert session is not None
        headers, last = NO_HEADERS, ""
        if session.stream is not None:
            session.stream.hang_up()
            await self.pause()
            if session.stream.last_event and self.random.random() < 0.7:
                last = session.stream.last_event
                headers = {"last-event-id": last}
        session.stream = self.begin("GET", None, session=session, pace=self._pace(), last_event=last, headers=headers)
        self.tasks.start_soon(self.until_over, session.stream, "GET")

    def _pace(self) -> float:
        return self.random.choice((0.0, 0.0, 0.0, 0.2, math.inf))

    async def _hang_up(self) -> None:
        """Close the connection of any request; a call whose stream can be resumed goes on elsewhere."""
        if self._open:
            self.random.choice(self._open).hang_up()
        await trio.lowlevel.checkpoint()

    def _message(self, session: WebSession | None, record: CallRecord | None, _: Exchange, message: JsonObject) -> None:
        """A message has come, on whatever stream."""
        method, message_id, owner = message.get("method"), message.get("id"), self._owner(session)
        if method is None:
            self._answer(session, message)
        elif message_id is None:
            self.heard(Notice(method, message.get("params")), owner, record)
        elif session is not None:
            own = message["params"].get("owner") == owner
            self.world.check(own, Invariant.OWN_NOTICES, f"{owner} is asked {message['params']}")
            new = message_id not in session.answered
            self.world.check(new, Invariant.STREAMS, f"{owner} is asked question {message_id} twice")
            session.answered.add(message_id)
            self.tasks.start_soon(self._reply, session, message_id)

    def _owner(self, session: WebSession | None) -> str:
        return session.origin.owner if session is not None else "nobody"

    async def _reply(self, session: WebSession, question: int) -> None:
        """Answer what was asked, refuse it, or ignore it."""
        if self.random.random() < 0.2:
            return
        await trio.sleep(self.random.choice((0.0, 0.5, self.random.uniform(0.0, 30.0))))
        answer: JsonObject = {"jsonrpc": "2.0", "id": question, "result": {"action": "accept"}}
        if self.random.random() < 0.3:
            answer = {"jsonrpc": "2.0", "id": question, "error": {"code": -1, "message": "refused"}}
        self._post_soon(session, answer, "an answer")

    # --- calls --------------------------------------------------------------------------------------------------------

    def begin_call(self, plan: Plan) -> None:
        session = self.session
        assert session is not None
        record, params = self.record(plan, session.origin.owner, session.origin)
        request_id = self.new_id()
        session.calls[request_id] = record
        message = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
        headers = {"accept": STREAM_FIRST} if self.random.random() < 0.3 else {}
        exchange = self.begin("POST", message, session=session, record=record, pace=self._pace(), headers=headers)
        self.tasks.start_soon(self._follow, session, record, exchange)
        if plan.patience is not None:
            self.tasks.start_soon(self._cancel, session, record, request_id, plan.patience)

    async def _cancel(self, session: WebSession, record: CallRecord, request_id: int, patience: float) -> None:
        record.gives_up_at = trio.current_time() + patience
        await trio.sleep(patience)
        params = {"requestId": request_id, "reason": "impatient"}
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        exchange = self.begin("POST", message, session=session)
        if not await self.until_over(exchange, "cancelled") or exchange.status == 404:
            record.past_cancelling = True

    async def _follow(self, session: WebSession, record: CallRecord, exchange: Exchange) -> None:
        """Until the call has its outcome: over as many streams as it takes, unless the client goes away."""
        for attempt in range(RESUMPTIONS):
            slow = exchange.pace > 0
            complete = await self.until_over(exchange, str(record))
            if record.outcomes or self.world.ending or self.session is not session:
                break
            if complete and exchange.status != 200:
                refused = exchange.status in NOT_EXECUTED and not record.executions
                refused = refused or attempt > 0  # then it is the resumption that was refused
                self.world.check(refused, Invariant.REFUSED, f"{record} got HTTP {exchange.status}, and was executed")
                break
            if complete and not exchange.last_event:
                closing = trio.current_time() >= min(session.origin.cut_by, self.world.ledger.cut_by)
                ended = f"{record}: its stream ended without its outcome"
                self.world.check(slow or closing, Invariant.ONE_OUTCOME, ended)
                break
            if not exchange.last_event or self.random.random() < 0.2:
                break
            self.world.note(f"{record}: resumed after {exchange.last_event}")
            self.world.ledger.counts["resumed"] += 1
            last = exchange.last_event
            exchange = self.begin(
                "GET",
                None,
                session=session,
                record=record,
                pace=self._pace(),
                last_event=last,
                headers={"last-event-id": last},
            )
            if self.random.random() < 0.2:
                exchange.hang_up()
        record.left = record.left or not record.outcomes

    def _answer(self, session: WebSession | None, message: JsonObject) -> None:
        """The outcome of a call has come; of other requests it is not looked at."""
        record = session.calls.get(message["id"]) if session is not None else None
        if record is None:
            return
        error = message.get("error")
        if error is None:
            self._done(record, message["result"])
        else:
            refused = error["code"] == SESSION_GONE
            executed = record.executions and record.tool != "ask"
            self.world.check(not (refused and executed), Invariant.REFUSED, f"{record} got {error}, and was executed")
            self.world.ledger.ended(record, f"error {error['code']}")

    def _done(self, record: CallRecord, result: JsonObject) -> None:
        record.progress_heard = record.progress_sent  # a slow reader may lose some
        self.succeeded(record, result)

    async def _request(self) -> None:
        """Something else than a tool call."""
        session = self.session
        assert session is not None
        uri = {"uri": f"x://{self.random.choice(self.world.doubles).name}"}
        method, params = self.random.choice(
            (
                ("tools/list", {}),
                ("resources/read", uri),
                ("resources/subscribe", uri),
                ("resources/unsubscribe", uri),
                ("logging/setLevel", {"level": self.random.choice(LEVELS)}),
                ("ping", {}),
            )
        )
        message = {"jsonrpc": "2.0", "id": self.new_id(), "method": method, "params": params}
        self._post_soon(session, message, method)
