"""Stateless clients without a server in between: requests in a leased session, parked calls and their handles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from vmcp_actors.errors import InvalidParams, VmcpError
from vmcp_actors.model import ClientProfile, Era, Identity, JsonObject, RequestContext
from vmcp_actors.sessions import InteractiveCall, Session

from .clients import Client, Operation, Plan
from .ledger import ORIGIN, CallRecord, Invariant, Origin
from .world import CALL_BOUND

CAPABILITIES: JsonObject = {"elicitation": {}}
PARKED = "vmcp-parked."
ROUNDS = 5


class LeaseClient(Client):
    """Calls tools in the session of its principal, which it shares with others, and answers what it is asked."""

    @property
    def owner(self) -> str:
        """The principal."""
        return f"principal of {self.person}"

    def operations(self) -> Sequence[Operation]:
        return ((8, self.call), (1, self.burst), (3, self._list), (1, self._think))

    async def _list(self) -> None:
        """What backends of the stateless revision offer may have to be asked anew, outside of any call to them."""
        self.tasks.start_soon(self._until_listed)
        await trio.lowlevel.checkpoint()

    async def _until_listed(self) -> None:
        with trio.move_on_after(CALL_BOUND) as bound:
            try:
                session = await self._lease()
                if session is not None:
                    context = RequestContext(era=Era.STATELESS, capabilities=CAPABILITIES)
                    await session.interact("tools/list", {}, context).result()
            except VmcpError as error:
                self.world.note(f"tools/list: {type(error).__name__}")
        self.world.check(not bound.cancelled_caught, Invariant.ONE_OUTCOME, "tools/list has no outcome")

    def begin_call(self, plan: Plan) -> None:
        record, params = self.record(plan, self.owner, None)
        record.cuttable = self.world.config.stateless.mode == "auto"
        self.tasks.start_soon(self._until_outcome, record, params, plan)

    async def _until_outcome(self, record: CallRecord, params: JsonObject, plan: Plan) -> None:
        with trio.move_on_after(CALL_BOUND) as bound:
            try:
                session = await self._lease()
                if session is None:
                    self.world.ledger.ended(record, "the gateway has ended")
                    return
                record.origin = self.world.sessions.get(session)
                await self._interact(session, record, params, plan)
            except VmcpError as error:
                self.world.ledger.ended(record, type(error).__name__, error=error)
        self.world.check(not bound.cancelled_caught, Invariant.ONE_OUTCOME, f"{record} has no outcome")

    async def _lease(self) -> Session | None:
        if self.world.ending:
            return None
        origin = Origin(self.owner, self.person)
        token = ORIGIN.set(origin)
        try:
            profile = ClientProfile(capabilities=CAPABILITIES, address=self.person)
            session = await self.world.supervisor.lease(Identity("sim", self.person), profile)
        finally:
            ORIGIN.reset(token)
        self.world.sessions.setdefault(session, origin)
        self.world.observe()
        return session

    async def _interact(self, session: Session, record: CallRecord, params: JsonObject, plan: Plan) -> None:
        """Round by round, until there is a result, or the client has enough."""
        if plan.patience is not None:
            record.gives_up_at = trio.current_time() + plan.patience
        for _ in range(ROUNDS):
            call = session.interact("tools/call", params, self._context(record))
            state = params.get("requestState")
            if isinstance(state, str) and state.startswith(PARKED):
                self._once_only(session, params, record)
            result: JsonObject | None = None
            with trio.CancelScope(deadline=record.gives_up_at) as scope:
                self.after_passes(plan.passes, partial(self.give_up, record, scope.cancel))
                result = await call.result()
            if result is None:
                self.world.ledger.ended(record, "left")
                return
            if result.get("resultType") != "input_required":
                self.succeeded(record, result)
                return
            if self.random.random() < 0.2:
                break
            await trio.sleep(self.random.choice((0.0, 1.0, self.random.uniform(0.0, 400.0))))
            params = {**params, "requestState": result["requestState"], "inputResponses": self._answers(result)}
        record.left = True

    def _answers(self, result: JsonObject) -> JsonObject:
        """Answers to what is asked; not always to all of it."""
        answers: JsonObject = {}
        for key, request in result["inputRequests"].items():
            own = request["params"].get("owner") == self.owner
            self.world.check(own, Invariant.OWN_NOTICES, f"{self.owner} is asked {request}")
            if self.random.random() < 0.8:
                answers[key] = {"action": "accept"}
        return answers

    def _once_only(self, session: Session, params: JsonObject, record: CallRecord) -> None:
        """A handle that was used is good for nothing: not here, and not in another's session."""
        others = [other for other in self.world.sessions if not other.closing]
        for where in (session, self.random.choice([session, *others])):
            try:
                call: InteractiveCall = where.interact("tools/call", params, self._context(record))
            except VmcpError as error:
                used = isinstance(error, InvalidParams) or where.closing
                self.world.check(used, Invariant.ONE_USE, f"the used handle of {record} gives {error!r}")
            else:
                call.cancel("it should not be")
                self.world.check(False, Invariant.ONE_USE, f"the handle of {record} was good for a second use")

    def _context(self, record: CallRecord) -> RequestContext:
        return RequestContext(
            self.hears(record), era=Era.STATELESS, capabilities=CAPABILITIES, progress_token=record.token
        )
