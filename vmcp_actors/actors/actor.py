"""The actor: one task with a mailbox, a nursery for its calls, and a lifespan for what it owns."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import trio
from attrs import frozen

from ..errors import ActorStopped, CallingSelf, Delivered, VmcpError
from .mailbox import Call, Mailbox, MailboxStatistics, OnCallerExit

Req = TypeVar("Req")
Res = TypeVar("Res")

logger = logging.getLogger(__name__)

MAX_IDLE_WORKERS: Final = 4
"""Tasks of an actor that wait for calls. With one alone, every call would have to start another."""


@frozen
class ActorStatistics:
    """A snapshot of an actor: its mailbox, how many calls it has ended, and whether it runs."""

    name: str
    mailbox: MailboxStatistics
    handled: int
    running: bool
    stopping: bool


class Actor(ABC, Generic[Req, Res]):
    """A task that owns something and is asked things through its mailbox.

    Subclasses say what is owned (`lifespan`) and how a call is answered (`handle`). Callers hold `ref`.

    Exception policy of `run`: what a handler raises is the answer to its call and goes no further. What `lifespan`
    raises before its yield leaves `run` before it has started, so the starter gets it. After `fail(error)` that error
    leaves `run`, bare. Anything else that leaves `run` is a crash, and the supervisor's business.
    """

    def __init__(self, name: str, *, capacity: int = 64, max_calls: int = 256) -> None:
        self.name = name
        self._mailbox: Mailbox[Req, Res] = Mailbox(name, capacity=capacity, max_calls=max_calls)
        self._scope = trio.CancelScope()
        self._calls_scope: trio.CancelScope | None = None
        self._drain_deadline = math.inf
        self._ended = trio.Event()
        self._failure: Exception | None = None
        self._handled = 0
        self._idle_workers = 0
        self._begun = False
        self._running = False

    @property
    def ref(self) -> ActorRef[Req, Res]:
        """What callers get to hold. Made when asked for: kept, it would tie the ended actor into a cycle."""
        return ActorRef(self)

    # --- for subclasses -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """What the actor needs for its life, opened before it takes calls and closed after the last of them.

        Runs in the actor's own task, so context managers that hide cancel scopes are safe in it. When the actor is
        killed, the part after the yield runs cancelled: goodbyes there need a shield with a deadline.
        """
        yield

    @abstractmethod
    async def handle(self, request: Req, call: Call[Req, Res]) -> Res:
        """Answer one call, in a task that does nothing else meanwhile. What it raises is the answer.

        It is cancelled when the call is, and at the call's deadline.
        """

    def fail(self, error: Exception) -> None:
        """End the actor because of `error`: running and queued calls are answered with it or with ActorStopped.

        Synchronous, for use from the actor's own services. The first error counts.
        """
        if self._failure is None:
            self._failure = error
            self._mailbox.close(f"ended: {error}")
            self._scope.cancel(f"failed: {error}")

    # --- the task -----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[ActorRef[Req, Res]] = trio.TASK_STATUS_IGNORED) -> None:
        """Live: open, take calls until stopped, close. Start it with `await nursery.start(actor.run)`, once."""
        assert not self._begun, "an actor runs once"
        self._begun = True
        try:
            await self._live(task_status)
        except Exception as error:
            if self._failure is not None and error is not self._failure:
                raise self._failure from error
            raise
        finally:
            self._failure = None  # it has our frames in its traceback: a cycle
            self._running = False
            self._mailbox.close("has ended")
            self._mailbox.fail_queued()
            self._ended.set()

    async def _live(self, task_status: trio.TaskStatus[ActorRef[Req, Res]]) -> None:
        with self._scope:
            async with self.lifespan():
                await self._take_calls(task_status)
        if self._failure is not None:
            raise self._failure

    async def _take_calls(self, task_status: trio.TaskStatus[ActorRef[Req, Res]]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._calls_scope = nursery.cancel_scope
                nursery.cancel_scope.deadline = self._drain_deadline
                if self._drain_deadline == math.inf:
                    self._mailbox.open()
                self._running = True
                task_status.started(self.ref)
                await self._work(nursery)
        finally:
            self._mailbox.close("is ending")

    async def _work(self, nursery: trio.Nursery) -> None:
        """Take calls and run them, one after the other, while another worker waits for the next.

        So a call has a task and a cancel scope to itself while it runs, and mostly neither has to be made for it. A
        worker whose scope was cancelled with a call is of no further use, and ends.
        """
        task = trio.lowlevel.current_task()
        context = task.context
        with trio.CancelScope() as scope:
            while self._idle_workers < MAX_IDLE_WORKERS:
                # What a handler leaves in its context is not for the next call. In force from the next step on.
                task.context = context.copy()
                self._idle_workers += 1
                try:
                    call = await self._mailbox.take()
                except trio.EndOfChannel:
                    break
                finally:
                    self._idle_workers -= 1
                if not self._idle_workers:
                    nursery.start_soon(self._work, nursery)
                await self._run_call(call, scope)
                del call  # it may hold much, and the next may be long in coming
        task.context = context

    async def _run_call(self, call: Call[Req, Res], scope: trio.CancelScope) -> None:
        try:
            if call.given_up:
                call.reply.set_error(call.cancellation_error(Delivered.NO))
                return
            call.begin(scope)
            call.reply.set_value(await self.handle(call.request, call))
        except Exception as error:
            self._answer_with(call, error)
        except BaseException as error:
            _, failure = error.split(trio.Cancelled) if isinstance(error, BaseExceptionGroup) else (None, None)
            if isinstance(failure, Exception):
                self._answer_with(call, failure)  # it failed while it was being cancelled
            elif scope.cancel_called:
                call.reply.set_error(call.cancellation_error(Delivered.UNKNOWN))
            else:
                call.reply.set_error(self._ending_error())
            raise
        finally:
            call.end()
            self._handled += 1
            self._mailbox.finished()

    def _answer_with(self, call: Call[Req, Res], error: Exception) -> None:
        cause = _sole_error(error)
        if not isinstance(cause, VmcpError):
            logger.exception("%s: a handler failed unexpectedly", self.name)
        call.reply.set_error(cause)

    def _ending_error(self) -> Exception:
        if self._failure is not None:
            return self._failure
        return ActorStopped(f"{self.name} ended while the call was running", delivered=Delivered.UNKNOWN)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _request_stop(self, drain: float, reason: str) -> None:
        self._mailbox.close(reason)
        self._drain_deadline = min(self._drain_deadline, trio.current_time() + drain)
        if self._calls_scope is not None:
            self._calls_scope.deadline = self._drain_deadline

    def _statistics(self) -> ActorStatistics:
        return ActorStatistics(
            name=self.name,
            mailbox=self._mailbox.statistics(),
            handled=self._handled,
            running=self._running,
            stopping=self._running and not self._mailbox.statistics().accepting,
        )

    def __repr__(self) -> str:
        stats = self._statistics()
        state = "stopping" if stats.stopping else "running" if stats.running else "not running"
        return (
            f"<{type(self).__name__} {self.name}: {state}, {stats.mailbox.queued} queued, "
            f"{stats.mailbox.running} running, {stats.handled} handled>"
        )


def _sole_error(error: Exception) -> Exception:
    """The one error inside nested groups, or the group when there are several: a handler may use a nursery."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class ActorRef(Generic[Req, Res]):
    """What callers hold of an actor. Typed methods of the owner wrap it; it is not passed around raw."""

    __slots__ = ("_actor",)

    def __init__(self, actor: Actor[Req, Res]) -> None:
        self._actor = actor

    def submit(
        self,
        request: Req,
        *,
        deadline: float = math.inf,
        context: object = None,
        on_caller_exit: OnCallerExit = OnCallerExit.CANCEL,
        parent: Call[object, object] | None = None,
    ) -> Call[Req, Res]:
        """Queue a call and return it at once; its `reply` will be set, whatever happens.

        Synchronous: it is either queued or refused. The caller that stops waiting says so with `call.caller_left()`.

        Args:
            deadline: absolute, on trio's clock.
            parent: the call on whose behalf this one is made.

        Raises:
            Busy: too much is queued or running. Not delivered.
            ActorStopped: not started, ending or ended. Not delivered.
            CallingSelf: the actor is already handling a call of this chain.
        """
        chain: tuple[object, ...] = ()
        if parent is not None:
            chain = parent.chain
            if self._actor in chain:
                raise CallingSelf(f"{self._actor.name} would wait for itself")
        call: Call[Req, Res] = Call(
            request, deadline=deadline, context=context, on_caller_exit=on_caller_exit, chain=(*chain, self._actor)
        )
        self._actor._mailbox.put(call)
        return call

    async def call(
        self,
        request: Req,
        *,
        deadline: float | None = None,
        context: object = None,
        on_caller_exit: OnCallerExit = OnCallerExit.CANCEL,
        parent: Call[object, object] | None = None,
    ) -> Res:
        """Ask, and wait for the answer.

        Cancelling it cancels the call (`CANCEL`) or leaves it running (`DETACH`); the work is then `unknown`. The
        default deadline is the caller's own. Raises what `submit` raises, and what the handler raised.
        """
        if deadline is None:
            deadline = trio.current_effective_deadline()
        call = self.submit(request, deadline=deadline, context=context, on_caller_exit=on_caller_exit, parent=parent)
        try:
            await call.reply.wait_done()
            return call.reply.take()
        finally:
            call.caller_left()

    def request_stop(self, *, drain: float, reason: str = "is stopping") -> None:
        """Refuse new calls and end when the running ones have, at the latest after `drain` seconds. Does not wait.

        Idempotent; a later, earlier-ending request shortens, never lengthens.
        """
        self._actor._request_stop(drain, reason)

    async def stop(self, *, drain: float, reason: str = "is stopping") -> None:
        """`request_stop`, and wait until the actor has ended. Cancelling the wait does not undo the request."""
        self.request_stop(drain=drain, reason=reason)
        await self.wait_ended()

    def cancel(self, reason: str) -> None:
        """Kill: cancel everything in the actor now. Does not wait."""
        self._actor._mailbox.close(f"was cancelled: {reason}")
        self._actor._scope.cancel(reason)

    async def wait_ended(self) -> None:
        """Wait until the actor has ended; at once if it never started."""
        if self._actor._begun:
            await self._actor._ended.wait()
        else:
            await trio.lowlevel.checkpoint()

    @property
    def busy(self) -> bool:
        """Whether any call is queued or running."""
        return self._actor._mailbox.under_way > 0

    @property
    def accepting(self) -> bool:
        """Whether the actor takes new calls: it was started, and is not ending."""
        return self._actor._mailbox.accepting

    @property
    def ended(self) -> bool:
        """Whether the actor has ended."""
        return self._actor._ended.is_set()

    def statistics(self) -> ActorStatistics:
        """A snapshot."""
        return self._actor._statistics()

    def __repr__(self) -> str:
        return f"<ActorRef {self._actor.name}>"
