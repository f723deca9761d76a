"""Clients that hold sessions of their own, without any server in between."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from vmcp_actors.errors import ClientUnreachable, SessionClosed, VmcpError
from vmcp_actors.model import ClientProfile, JsonObject, PendingAnswer, RequestContext
from vmcp_actors.sessions import Session

from .clients import LEVELS, Answer, Client, Operation, Plan
from .ledger import CallRecord, Invariant, Origin
from .world import CALL_BOUND, World

ABLE = ClientProfile(capabilities={"elicitation": {}})
MAX_OWN = 3
Way = Callable[[Session, CallRecord, JsonObject, Plan], Awaitable[JsonObject | None]]


class LibraryClient(Client):
    """Starts sessions, calls tools in parallel, cancels, closes, and sometimes simply goes away."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.own: list[Session] = []
        self._started = 0

    def operations(self) -> Sequence[Operation]:
        if not self.own:
            return ((5, self._start), (1, self._think))
        return (
            (1 if len(self.own) < MAX_OWN else 0, self._start),
            (8, self.call),
            (1, self.burst),
            (2, self._request),
            (1, self._close),
            (0.4, self._vanish),
            (1, self._think),
        )

    async def leave(self) -> None:
        for session in self.own:
            manner = self.random.random()
            if manner < 0.3:
                await self._end(session, self.random.choice((0.0, 5.0)))
            # Others stay, or vanish.

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._started += 1
        origin = Origin(f"client {self.number} session {self._started}", self.person)
        session: Session | None = None
        with trio.move_on_after(self.random.choice((math.inf, math.inf, self.random.uniform(0.0, 6.0)))) as patience:
            self.after_passes(self._passes(), patience.cancel)
            session = await self.world.start(origin, ABLE)
        if patience.cancelled_caught:
            left = [connection for connection in self.world.board.connections if connection.origin is origin]
            self.world.check(not left, Invariant.NOTHING_LEFT, f"a start that was cancelled left {left}")
        if session is not None:
            if self.random.random() < 0.8:
                session.listen(
                    lambda notice: self.heard(notice, origin.owner, None), ask=partial(self._asked, origin.owner)
                )
            self.own.append(session)

    def _passes(self) -> int | None:
        return self.random.choice((None, None, None, self.random.randint(0, 100)))

    def _asked(self, owner: str, method: str, params: JsonObject) -> PendingAnswer:
        own = params.get("owner") == owner
        self.world.check(own, Invariant.OWN_NOTICES, f"{owner} is asked {params}")
        if self.random.random() < 0.1:
            raise ClientUnreachable("busy")
        return Answer(self)

    async def _close(self) -> None:
        session = self.own.pop(self.random.randrange(len(self.own)))
        drain = self.random.choice((0.0, 0.5, 5.0, 20.0))
        if self.random.random() < 0.5:
            await self._end(session, drain)
            return
        self._ends(session, drain)
        session.request_close("requested", drain=drain)
        if self.random.random() < 0.5:
            await self.pause()
            await self._end(session, self.random.choice((0.0, 1.0)))

    async def _end(self, session: Session, drain: float) -> None:
        origin = self._ends(session, drain)
        with trio.move_on_after(self.random.choice((math.inf, math.inf, 0.5))) as patience:
            self.after_passes(self._passes(), patience.cancel)
            await session.close("closed by its client", drain=drain)
            left = [other for other in self.world.board.connections if other.origin is origin]
            self.world.check(not left, Invariant.NOTHING_LEFT, f"a close left {left}")
            try:
                await session.call_tool("echo")
                self.world.check(False, Invariant.REFUSED, "a closed session takes calls")
            except SessionClosed:
                pass

    def _ends(self, session: Session, drain: float) -> Origin | None:
        origin = self.world.sessions.get(session)
        if origin is not None:
            origin.cut_by = min(origin.cut_by, trio.current_time() + drain)
        return origin

    async def _vanish(self) -> None:
        self.own.pop(self.random.randrange(len(self.own)))

    # --- calls --------------------------------------------------------------------------------------------------------

    def begin_call(self, plan: Plan) -> None:
        session = self.random.choice(self.own)
        origin = self.world.sessions.get(session)
        if origin is None:
            return  # it has ended meanwhile
        record, params = self.record(plan, origin.owner, origin)
        way = self.random.choice((self._requested, self._submitted))
        self.tasks.start_soon(self._until_outcome, way, session, record, params, plan)

    async def _until_outcome(
        self, way: Way, session: Session, record: CallRecord, params: JsonObject, plan: Plan
    ) -> None:
        """Wait for the outcome of a call, which comes in any case."""
        with trio.move_on_after(CALL_BOUND) as bound:
            try:
                result = await way(session, record, params, plan)
            except VmcpError as error:
                self.world.ledger.ended(record, type(error).__name__, error=error)
            else:
                if result is None:
                    self.world.ledger.ended(record, "left")
                else:
                    self.succeeded(record, result)
        self.world.check(not bound.cancelled_caught, Invariant.ONE_OUTCOME, f"{record} has no outcome")

    async def _requested(
        self, session: Session, record: CallRecord, params: JsonObject, plan: Plan
    ) -> JsonObject | None:
        """Ask and wait; who has no more patience is cancelled, and with it the call."""
        if plan.patience is not None:
            record.gives_up_at = trio.current_time() + plan.patience
        with trio.CancelScope(deadline=record.gives_up_at) as scope:
            self.after_passes(plan.passes, partial(self.give_up, record, scope.cancel))
            return await session.request("tools/call", params, on_notice=self.hears(record))
        return None

    async def _submitted(
        self, session: Session, record: CallRecord, params: JsonObject, plan: Plan
    ) -> JsonObject | None:
        """Begin the call and cancel it, or give it a deadline: it has an outcome all the same."""
        context = RequestContext(self.hears(record), ask=partial(self._asked, record.owner))
        deadline, patience = math.inf, plan.patience
        if patience is not None and self.random.random() < 0.3:
            deadline = record.gives_up_at = trio.current_time() + patience
            patience = None
        call = session.submit("tools/call", params, context, deadline=deadline)
        cancel = partial(call.cancel, "the client cancels")
        self.after_passes(plan.passes, partial(self.give_up, record, cancel))
        if patience is not None:
            record.gives_up_at = trio.current_time() + patience
            with trio.move_on_at(record.gives_up_at):
                await call.reply.wait_done()
            cancel()
        return await call.reply.wait()

    async def _request(self) -> None:
        """Something else than a tool call."""
        backend = self.random.choice(self.world.doubles).name
        uri = {"uri": f"x://{backend}"}
        method, params = self.random.choice(
            (
                ("tools/list", {}),
                ("resources/list", {}),
                ("resources/read", uri),
                ("resources/subscribe", uri),
                ("resources/unsubscribe", uri),
                ("logging/setLevel", {"level": self.random.choice(LEVELS)}),
                ("ping", {}),
                ("no/such", {}),
            )
        )
        session = self.random.choice(self.own)
        self.tasks.start_soon(self._until_answer, session, method, params)

    async def _until_answer(self, session: Session, method: str, params: JsonObject) -> None:
        with trio.move_on_after(CALL_BOUND) as bound:
            try:
                await session.request(method, params)
            except VmcpError as error:
                self.world.note(f"{method}: {type(error).__name__}")
            else:
                self.world.note(f"{method}: ok")
        self.world.check(not bound.cancelled_caught, Invariant.ONE_OUTCOME, f"{method} has no outcome")
