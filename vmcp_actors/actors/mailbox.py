"""Calls, their replies, and the bounded mailbox in which they wait."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import trio
from attrs import frozen

from ..errors import ActorStopped, Busy, CallCancelled, DeadlineExceeded, Delivered

Req = TypeVar("Req")
Res = TypeVar("Res")


class OnCallerExit(enum.Enum):
    """What becomes of a call whose caller leaves before the reply."""

    CANCEL = "cancel"
    DETACH = "detach"


class Reply(Generic[Res]):
    """A one-shot: the first value or error counts, setting it again is harmless.

    A caller that is gone costs nothing. Errors are values until somebody waits.

    Attributes:
        done: whether a value or an error is there.
    """

    __slots__ = ("_error", "_event", "_on_done", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Res | None = None
        self._error: BaseException | None = None
        self._event: trio.Event | None = None
        self._on_done: Callable[[], None] | None = None

    def set_value(self, value: Res) -> bool:
        """Answer with a value. Atomic. Returns False, and changes nothing, when an answer is there already."""
        return self._set(value, None)

    def set_error(self, error: BaseException) -> bool:
        """Answer with an error. Atomic. Returns False, and changes nothing, when an answer is there already."""
        return self._set(None, error)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the answer comes, or now if it is there. One callback; it must not block or raise."""
        if self.done:
            callback()
        else:
            self._on_done = callback

    def result(self) -> Res:
        """The value, or raises the error. Only when `done`."""
        assert self.done
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # it may be None where Res may be

    def take(self) -> Res:
        """`result`, for the only one who asks: the reply forgets it, and is still `done`.

        An error knows the frames that it has passed, and those the call. With the reply, they would be in a cycle.
        """
        try:
            return self.result()
        finally:
            self._value = self._error = None

    async def wait(self) -> Res:
        """The value, or raises the error. Always a checkpoint; cancelling it leaves the reply as it is."""
        await self.wait_done()
        return self.result()

    async def wait_done(self) -> None:
        """Wait until an answer is there, without raising it."""
        if self.done:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()

    def _set(self, value: Res | None, error: BaseException | None) -> bool:
        if self.done:
            return False
        self.done = True
        self._value, self._error = value, error
        if self._event is not None:
            self._event.set()
        # Forgotten, since it often knows the call: garbage in a cycle would keep the answer until it is collected.
        callback, self._on_done = self._on_done, None
        if callback is not None:
            callback()
        return True

    def __repr__(self) -> str:
        state = "pending" if not self.done else "value" if self._error is None else "error"
        return f"<Reply {state}>"


class Call(Generic[Req, Res]):
    """A request on its way through an actor, with all that belongs to it. Nothing travels beside it.

    Attributes:
        request: what is asked.
        reply: where the answer goes.
        context: whatever the caller wants the handler to see (trace, identity).
        on_caller_exit: what happens when the caller leaves.
        chain: the actors that are handling this call further up.
        timeout_error: what the caller is told when the deadline has passed; `DeadlineExceeded` if nothing is set.
    """

    __slots__ = (
        "_cancel_reason",
        "_deadline",
        "_scope",
        "chain",
        "context",
        "on_caller_exit",
        "reply",
        "request",
        "timeout_error",
    )

    def __init__(
        self,
        request: Req,
        *,
        deadline: float = math.inf,
        context: object = None,
        on_caller_exit: OnCallerExit = OnCallerExit.CANCEL,
        chain: tuple[object, ...] = (),
    ) -> None:
        self.request = request
        self.reply: Reply[Res] = Reply()
        self.context = context
        self.on_caller_exit = on_caller_exit
        self.chain = chain
        self.timeout_error: Callable[[], Exception] | None = None
        self._deadline = deadline
        self._scope: trio.CancelScope | None = None
        self._cancel_reason: str | None = None

    @property
    def deadline(self) -> float:
        """When the call is cancelled, on trio's clock. It may be changed while the call waits or runs."""
        return self._deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._deadline = moment
        if self._scope is not None:
            self._scope.deadline = moment

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the call to be cancelled."""
        return self._cancel_reason is not None

    def cancel(self, reason: str) -> None:
        """Cancel the call, wherever it is: queued, running, or (then a no-op) answered. Synchronous, idempotent."""
        if self._cancel_reason is None and not self.reply.done:
            self._cancel_reason = reason
            if self._scope is not None:
                self._scope.cancel(reason)

    def caller_left(self) -> None:
        """The caller no longer waits for the reply."""
        if self.on_caller_exit is OnCallerExit.CANCEL:
            self.cancel("the caller left")

    @property
    def given_up(self) -> bool:
        """Whether there is nothing to be done for it any more: it was cancelled, or its deadline has passed."""
        return self._cancel_reason is not None or self._deadline <= trio.current_time()

    def begin(self, scope: trio.CancelScope) -> None:
        """It runs in this scope from now on, until `end`: for the actor that handles it."""
        self._scope = scope
        if self._deadline != math.inf:
            scope.deadline = self._deadline

    def end(self) -> None:
        """It does not run any more; its scope is for others, unless it was cancelled."""
        if self._scope is not None and self._scope.deadline != math.inf:
            self._scope.deadline = math.inf
        self._scope = None
        self.timeout_error = None

    def cancellation_error(self, delivered: Delivered) -> Exception:
        """The error for the reply of a call that was given up: by its caller, or because of its deadline."""
        if self._cancel_reason is not None:
            return CallCancelled(f"cancelled: {self._cancel_reason}", delivered=delivered)
        if self.timeout_error is not None:
            return self.timeout_error()
        return DeadlineExceeded("no result by the deadline", delivered=delivered)

    def __repr__(self) -> str:
        return f"<Call {type(self.request).__name__} {self.reply!r}>"


@frozen
class MailboxStatistics:
    """Counts of a mailbox: calls waiting, calls being handled, their common limit, and the most that ever waited."""

    queued: int
    running: int
    max_calls: int
    capacity: int
    peak_queued: int
    accepting: bool


class Mailbox(Generic[Req, Res]):
    """A bounded queue of calls with admission: it counts the queued calls and the running ones.

    Only the actor that owns it reads from it. Putting is synchronous, so it either happens or raises.
    """

    def __init__(self, owner: str, *, capacity: int, max_calls: int) -> None:
        self._owner = owner
        self._capacity = capacity
        self._max_calls = max_calls
        self._send, self._receive = trio.open_memory_channel[Call[Req, Res]](capacity)
        self._under_way = 0
        self._running = 0
        self._peak_queued = 0
        self._refusal: str | None = "was not started"

    def open(self) -> None:
        """Accept calls from now on."""
        self._refusal = None

    def close(self, reason: str) -> None:
        """Refuse new calls, with this reason; those in the queue stay. Idempotent: the first reason counts."""
        if self._refusal is None or self._refusal == "was not started":
            self._refusal = reason
        self._send.close()

    def put(self, call: Call[Req, Res]) -> None:
        """Queue a call. Never waits.

        Raises:
            ActorStopped: the actor was not started, is ending, or has ended. Not delivered.
            Busy: the queue is full, or too many calls are queued and running. Not delivered.
        """
        if self._refusal is not None:
            raise ActorStopped(f"{self._owner} {self._refusal}")
        if self._under_way >= self._max_calls:
            raise Busy(f"{self._owner} has too many calls under way")
        try:
            self._send.send_nowait(call)
        except trio.WouldBlock:
            raise Busy(f"{self._owner} has a full mailbox") from None
        # Counted here and not by the channel: it hands a call to a waiting receiver without buffering it.
        self._under_way += 1
        self._peak_queued = max(self._peak_queued, self._under_way - self._running)

    async def take(self) -> Call[Req, Res]:
        """The next call in the order of arrival; it counts as running until `finished()`.

        Raises:
            trio.EndOfChannel: the mailbox is closed and empty.
        """
        call = await self._receive.receive()
        self._running += 1
        return call

    def finished(self) -> None:
        """A call that `take()` gave out has ended."""
        self._running -= 1
        self._under_way -= 1

    @property
    def under_way(self) -> int:
        """How many calls are queued or running."""
        return self._under_way

    @property
    def accepting(self) -> bool:
        """Whether calls can be put."""
        return self._refusal is None

    def fail_queued(self) -> None:
        """Answer every call still in the queue with ActorStopped: closing a channel would drop them silently."""
        while True:
            try:
                call = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            self._under_way -= 1
            call.reply.set_error(ActorStopped(f"{self._owner} stopped before handling the call"))
        self._receive.close()

    def statistics(self) -> MailboxStatistics:
        """A snapshot."""
        return MailboxStatistics(
            queued=self._under_way - self._running,
            running=self._running,
            max_calls=self._max_calls,
            capacity=self._capacity,
            peak_queued=self._peak_queued,
            accepting=self.accepting,
        )

    def __repr__(self) -> str:
        stats = self.statistics()
        state = "accepting" if stats.accepting else self._refusal
        return f"<Mailbox of {self._owner}: {stats.queued} queued, {stats.running} running, {state}>"
