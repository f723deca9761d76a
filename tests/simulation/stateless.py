"""Clients of the stateless revision at the HTTP endpoint: closing a stream cancels, answers come with a new request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import trio

from vmcp_actors.model import JsonObject, Notice
from vmcp_actors.wire.stateless import PROTOCOL_VERSION, mirrored_headers

from .clients import Client, Operation, Plan
from .http import Exchange, scope_of
from .lease import CAPABILITIES, PARKED
from .ledger import ORIGIN, CallRecord, Invariant, Origin
from .world import CALL_BOUND

INVALID_PARAMS = -32602


class StatelessClient(Client):
    """Sends requests that each say all that is needed; listens for changes."""

    @property
    def owner(self) -> str:
        """The principal: an address."""
        return f"principal at {self.person}"

    def operations(self) -> Sequence[Operation]:
        return ((8, self.call), (1, self.burst), (1.5, self._request), (1.5, self._listen), (1, self._think))

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    def _begin(self, method: str, params: JsonObject, record: CallRecord | None, answers: list[JsonObject]) -> Exchange:
        meta: JsonObject = {
            **params.get("_meta", {}),
            PROTOCOL_VERSION: "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
            "io.modelcontextprotocol/clientInfo": {"name": "sim", "version": "1"},
        }
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        exchange = Exchange(partial(self._message, record, answers))
        if self.world.ending:
            exchange.refuse()
            return exchange
        scope = scope_of("POST", self.person, mirrored_headers(method, params))
        token = ORIGIN.set(Origin(self.owner, f"address {self.person}"))
        try:
            body = json.dumps(message).encode()
            self.world.requests.start_soon(exchange.run, self.world.app, scope, body, name=f"{method} request")
        finally:
            ORIGIN.reset(token)
        return exchange

    def _message(self, record: CallRecord | None, answers: list[JsonObject], _: Exchange, message: JsonObject) -> None:
        method = message.get("method")
        if method is not None:
            self.world.check("id" not in message, Invariant.STREAMS, f"{self.owner} is asked {message}")
            self.heard(Notice(method, message.get("params")), self.owner, record)
        else:
            self.world.check(not answers, Invariant.ONE_OUTCOME, f"{record}: a second answer: {message}")
            answers.append(message)

    async def _until_over(self, exchange: Exchange, patience: float, what: str) -> None:
        """Until the response is complete, or the client has no more patience."""
        with trio.move_on_after(max(0.0, min(patience, CALL_BOUND))):
            await exchange.over.wait()
        if not exchange.over.is_set():
            self.world.check(patience < CALL_BOUND, Invariant.ONE_OUTCOME, f"{what} was not answered")
            exchange.hang_up()
            with trio.move_on_after(CALL_BOUND) as bound:
                await exchange.over.wait()
            self.world.check(not bound.cancelled_caught, Invariant.NOTHING_LEFT, f"{what}: its request goes on")
        elif not self.world.ending:
            self.world.check(exchange.complete, Invariant.ONE_OUTCOME, f"{what} got no complete response")
            self.world.check(exchange.status != 500, Invariant.NO_SURPRISE, f"{what} got HTTP 500: {exchange.body!r}")

    # --- calls --------------------------------------------------------------------------------------------------------

    def begin_call(self, plan: Plan) -> None:
        record, params = self.record(plan, self.owner, None)
        record.cuttable = self.world.config.stateless.mode == "auto"
        if plan.patience is not None:
            record.gives_up_at = trio.current_time() + plan.patience
        self.tasks.start_soon(self._until_outcome, record, params)

    async def _until_outcome(self, record: CallRecord, params: JsonObject) -> None:
        """Round by round, until there is an outcome, or the client has enough."""
        while not self.world.ending:
            answers: list[JsonObject] = []
            exchange = self._begin("tools/call", params, record, answers)
            twin: list[JsonObject] = []
            if str(params.get("requestState", "")).startswith(PARKED) and self.random.random() < 0.5:
                await self._until_over(self._begin("tools/call", params, record, twin), CALL_BOUND, "a twin")
            await self._until_over(exchange, record.gives_up_at - trio.current_time(), str(record))
            if not answers:
                break
            self._check_twins(record, answers, twin)
            result = answers[0].get("result")
            if twin:
                break  # it does not matter here which of them went on
            if result is None:
                self.world.ledger.ended(record, f"error {answers[0]['error']['code']}")
                return
            if result.get("resultType") != "input_required":
                record.progress_heard = record.progress_sent  # a slow reader may lose some
                self.succeeded(record, result)
                return
            if self.random.random() < 0.2:
                break
            await self.pause()
            if trio.current_time() >= record.gives_up_at:
                break
            given = {key: {"action": "accept"} for key in result["inputRequests"]}
            params = {**params, "requestState": result["requestState"], "inputResponses": given}
        record.left = True

    def _check_twins(self, record: CallRecord, answers: list[JsonObject], twin: list[JsonObject]) -> None:
        """Of two requests with the same handle one at most goes on."""
        if twin and not self.world.ending:
            refused = [answer for answer in (*answers, *twin) if "error" in answer]
            self.world.check(bool(refused), Invariant.ONE_USE, f"the handle of {record} was good for a second use")

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _request(self) -> None:
        uri = f"x://{self.random.choice(self.world.doubles).name}"
        method, params = self.random.choice(
            (("server/discover", {}), ("tools/list", {}), ("resources/list", {}), ("resources/read", {"uri": uri}))
        )
        self.tasks.start_soon(self._until_over, self._begin(method, params, None, []), CALL_BOUND, method)
        await trio.lowlevel.checkpoint()

    async def _listen(self) -> None:
        """Listen for changes for a while."""
        uris = [f"x://{double.name}" for double in self.world.doubles if self.random.random() < 0.5]
        wanted = {"toolsListChanged": True, "resourceSubscriptions": uris}
        exchange = self._begin("subscriptions/listen", {"notifications": wanted}, None, [])
        patience = self.random.choice((0.0, 1.0, self.random.uniform(0.0, 60.0)))
        self.tasks.start_soon(self._until_over, exchange, patience, "subscriptions/listen")
        await trio.lowlevel.checkpoint()
