"""Calls of stateless clients that wait for their client in between: parked, and resumed by the client's next request.

A backend of a stateful revision asks in the middle of a call. A stateless client cannot be asked: its request is
answered with what is needed, and it comes again with the answers (MCP 2026-07-28, multi round-trip requests).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from attrs import frozen

from ..actors import Call, Reply
from ..errors import ClientUnreachable, InvalidParams
from ..model import JsonObject, McpRequest, Notice, NoticeSink, PendingAnswer, RequestContext, discard_notice
from ..wire.folding import unfolded
from ..wire.messages import canonical_json
from ..wire.stateless import INTERACTIVE

ANSWER_TIMEOUT: Final = 300.0
"""Seconds that a client has to come back with its answers."""
MAX_PARKED: Final = 256
HANDLE_BYTES: Final = 16
_PREFIX: Final = "vmcp-parked."

Submit = Callable[[str, JsonObject, RequestContext], Call[McpRequest, JsonObject]]
"""Begins a request in the session. Synchronous; raises as `Session.submit`."""


class Parking:
    """The interactive calls of one session. Plain bookkeeping: what waits are the calls, in their actor.

    A handle is good for the session that gave it, and so for its principal; for the very request that it answered; for
    one use; and for `ANSWER_TIMEOUT` seconds.
    """

    def __init__(self) -> None:
        self._parked: dict[str, _Parked] = {}

    def begin(self, method: str, params: JsonObject, context: RequestContext, submit: Submit) -> InteractiveCall:
        """Begin a call with `submit`, or go on with the one whose handle is in the params. Synchronous.

        Raises:
            InvalidParams: the handle is unknown, used, expired, or was given for another request.
            VmcpError: as `Session.submit`.
        """
        state = params.get("requestState")
        if method not in INTERACTIVE or not isinstance(state, str) or not state.startswith(_PREFIX):
            return InteractiveCall(self, method, params, context, submit)
        parked = self._parked.get(state)
        fits = parked is not None and parked.call.fingerprint == _fingerprint(method, params)
        if parked is None or parked.expires <= trio.current_time() or not fits:
            raise InvalidParams(f"{method}: requestState is unknown, expired, or of another request")
        del self._parked[state]
        answers = params.get("inputResponses")
        parked.call.go_on(answers if isinstance(answers, dict) else {}, context)
        return parked.call

    def park(self, call: InteractiveCall) -> str:
        """Keep a call until its client comes back; returns the handle."""
        now = trio.current_time()
        for handle in [handle for handle, parked in self._parked.items() if parked.expires <= now]:
            del self._parked[handle]
        if len(self._parked) >= MAX_PARKED:
            oldest = next(iter(self._parked))
            self._parked.pop(oldest).call.cancel("too many calls wait for their clients")
        handle = _PREFIX + secrets.token_urlsafe(HANDLE_BYTES)
        self._parked[handle] = _Parked(call, now + ANSWER_TIMEOUT)
        return handle

    def __repr__(self) -> str:
        return f"<Parking: {len(self._parked)} calls>"


class InteractiveCall:
    """One call of a stateless client, over as many of its requests as it takes."""

    def __init__(
        self,
        parking: Parking,
        method: str,
        params: JsonObject,
        context: RequestContext,
        submit: Submit,
    ) -> None:
        self._request = (method, params)
        self._parking = parking
        self._sink: NoticeSink = context.on_notice
        self._progress_token = context.progress_token
        self._questions: dict[str, _Question] = {}
        self._asked = 0
        self._news = trio.Event()
        ask = self._ask if method in INTERACTIVE else None
        call = submit(method, params, context.with_client(on_notice=self._notice, ask=ask))
        call.reply.on_done(self._tell)
        # Until it is over: it knows us, so that its result would stay until a garbage collection.
        self._call: Call[McpRequest, JsonObject] | None = call

    @property
    def fingerprint(self) -> bytes:
        """What tells its request from others."""
        return _fingerprint(*self._request)

    async def result(self) -> JsonObject:
        """The result; or, if the backend needs input, one that says so, and the call is parked.

        Cancelling it cancels the call. Raises `VmcpError`.
        """
        call = self._call
        assert call is not None, "it is over"
        try:
            while not call.reply.done and not self._questions:
                await self._news.wait()
        except trio.Cancelled:
            self.cancel("the client left")
            raise
        if call.reply.done:
            self._call = None
            return call.reply.take()
        self._sink = discard_notice
        call.deadline = trio.current_time() + ANSWER_TIMEOUT
        return {
            "resultType": "input_required",
            "inputRequests": {key: question.request for key, question in self._questions.items()},
            "requestState": self._parking.park(self),
        }

    def go_on(self, answers: Mapping[str, Any], context: RequestContext) -> None:
        """The client is back: hand over what it has answered. What it left out, it will be asked again."""
        assert self._call is not None, "it is over"
        self._call.deadline = float("inf")
        self._sink = context.on_notice
        self._progress_token = context.progress_token
        for key, answer in answers.items():
            if key in self._questions and isinstance(answer, dict):
                self._questions.pop(key).reply.set_value(answer)

    def cancel(self, reason: str) -> None:
        """Cancel the call, down to the backend. Idempotent."""
        if self._call is not None:
            self._call.cancel(reason)
            self._call = None

    def _notice(self, notice: Notice) -> None:
        """Progress goes under the token of the client's latest request, if it gave one."""
        if notice.method != "notifications/progress":
            self._sink(notice)
        elif self._progress_token is not None:
            self._sink(Notice(notice.method, {**(notice.params or {}), "progressToken": self._progress_token}))

    def _ask(self, method: str, params: JsonObject) -> PendingAnswer:
        self._asked += 1
        question = _Question(self, f"{method.partition('/')[0]}-{self._asked}", method, params)
        self._questions[question.key] = question
        self._tell()
        return question

    def forget(self, key: str) -> None:
        """A question needs no answer any more."""
        self._questions.pop(key, None)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def __repr__(self) -> str:
        call = "over" if self._call is None else repr(self._call)
        return f"<InteractiveCall {call}, {len(self._questions)} questions>"


class _Question:
    """Something the backend asks in the middle of a call: the `PendingAnswer` that its side waits for."""

    def __init__(self, call: InteractiveCall, key: str, method: str, params: JsonObject) -> None:
        self.key = key
        self.request: JsonObject = {"method": method, "params": params}
        self.reply: Reply[JsonObject] = Reply()
        self.on_progress: Callable[[JsonObject], None] = lambda _: None  # stateless clients report none
        self._call = call

    async def wait(self) -> JsonObject:
        """The client's answer. Raises `ClientUnreachable` when there will be none."""
        return await self.reply.wait()

    def give_up(self, reason: str) -> None:
        """Nobody needs the answer any more."""
        self._call.forget(self.key)
        self.reply.set_error(ClientUnreachable(reason))


@frozen
class _Parked:
    call: InteractiveCall
    expires: float


def _fingerprint(method: str, params: JsonObject) -> bytes:
    """What makes a retry the same request: everything but its envelope, the answers and the state."""
    asked = {
        key: value for key, value in unfolded(params).items() if key not in ("_meta", "inputResponses", "requestState")
    }
    return hashlib.sha256(canonical_json([method, asked])).digest()
