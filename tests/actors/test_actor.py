"""The kernel keeps what docs/explain/runtime-semantics.md promises; the tests are named after its lines."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from vmcp_actors.actors import Actor, ActorRef, Call, OnCallerExit, Reply
from vmcp_actors.errors import ActorStopped, Busy, CallCancelled, CallingSelf, DeadlineExceeded, Delivered

mark: ContextVar[str] = ContextVar("mark", default="none")

Handle = Callable[[Any, Call[Any, Any]], Awaitable[Any]]


class Scripted(Actor[Any, Any]):
    """An actor whose behaviour the test supplies."""

    def __init__(self, handle: Handle, *, lifespan: Any = None, **limits: int) -> None:
        super().__init__("scripted", **limits)
        self._handle = handle
        self._lifespan = lifespan

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._lifespan is None:
            yield
        else:
            async with self._lifespan(self):
                yield

    async def handle(self, request: Any, call: Call[Any, Any]) -> Any:
        return await self._handle(request, call)


@asynccontextmanager
async def running(actor: Actor[Any, Any]) -> AsyncIterator[ActorRef[Any, Any]]:
    """Run an actor for the body; whatever happens, the test ends."""
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            ref = await nursery.start(actor.run)
            yield ref
            ref.cancel("test over")


async def echo(request: Any, _: Call[Any, Any]) -> Any:
    return request


async def sleep_for(request: Any, _: Call[Any, Any]) -> Any:
    await trio.sleep(request)
    return request


async def forever(_: Any, __: Call[Any, Any]) -> Any:
    await trio.sleep_forever()


async def test_a_call_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    """The handler's value is the caller's value."""
    async with running(Scripted(echo)) as ref:
        answer = await ref.call("hello")

    assert answer == "hello"
    assert ref.statistics().handled == 1


async def test_a_handlers_error_is_the_answer_and_the_actor_lives(autojump_clock: trio.testing.MockClock) -> None:
    """An error concerns its call only."""

    async def handle(request: Any, _: Call[Any, Any]) -> Any:
        if request == "bad":
            raise Busy("not today")
        return request

    async with running(Scripted(handle)) as ref:
        with pytest.raises(Busy, match="not today"):
            await ref.call("bad")

        assert await ref.call("good") == "good"


async def test_callers_deadline_reaches_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    """A handler that outlives the deadline is cancelled, and the caller is told that the deadline did it."""
    seen: list[float] = []

    async def handle(_: Any, __: Call[Any, Any]) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(trio.current_time())

    async with running(Scripted(handle)) as ref:
        start = trio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await ref.call("x", deadline=start + 3)

    assert seen == [start + 3]
    assert caught.value.delivered is Delivered.UNKNOWN


async def test_the_deadline_of_the_calling_task_is_the_default(autojump_clock: trio.testing.MockClock) -> None:
    """A caller inside `move_on_after` needs to say nothing."""
    async with running(Scripted(forever)) as ref:
        with trio.move_on_after(3) as scope:
            await ref.call("x")
        await wait_all_tasks_blocked()

        assert scope.cancelled_caught
        assert ref.statistics().mailbox.running == 0


async def test_callers_cancellation_reaches_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    """A caller that leaves takes its call with it."""
    ended: list[str] = []

    async def handle(_: Any, __: Call[Any, Any]) -> Any:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    async with running(Scripted(handle)) as ref:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.call, "x")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()

        assert ended == ["cancelled"]


async def test_explicit_cancel_answers_the_call(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever else waits for the reply learns that the call was cancelled, and why."""
    async with running(Scripted(forever)) as ref:
        call = ref.submit("x")
        await wait_all_tasks_blocked()
        call.cancel("the client said so")

        with pytest.raises(CallCancelled, match="the client said so"):
            await call.reply.wait()


async def test_queued_call_of_a_gone_caller_is_skipped(autojump_clock: trio.testing.MockClock) -> None:
    """What nobody wants any more is not begun."""
    handled: list[Any] = []

    async def handle(request: Any, _: Call[Any, Any]) -> Any:
        handled.append(request)

    async with running(Scripted(handle)) as ref:
        gone = ref.submit("gone")
        kept = ref.submit("kept")
        gone.caller_left()
        await kept.reply.wait()

        with pytest.raises(CallCancelled) as caught:
            await gone.reply.wait()

    assert handled == ["kept"]
    assert caught.value.delivered is Delivered.NO


async def test_full_mailbox_is_busy(autojump_clock: trio.testing.MockClock) -> None:
    """The sender is refused at once, and nothing was delivered."""
    async with running(Scripted(echo, capacity=2, max_calls=100)) as ref:
        for number in range(3):
            ref.submit(number)  # the first goes straight to the waiting actor

        with pytest.raises(Busy, match="full mailbox") as caught:
            ref.submit("one too many")

    assert caught.value.delivered is Delivered.NO


async def test_too_many_running_calls_is_busy(autojump_clock: trio.testing.MockClock) -> None:
    """Queued and running calls are counted together: the channel's bound alone would bound nothing."""
    async with running(Scripted(forever, capacity=100, max_calls=3)) as ref:
        for number in range(3):
            ref.submit(number)
        await wait_all_tasks_blocked()

        with pytest.raises(Busy, match="too many calls"):
            ref.submit("one too many")

        stats = ref.statistics().mailbox
        assert (stats.queued, stats.running) == (0, 3)


async def test_a_finished_call_makes_room(autojump_clock: trio.testing.MockClock) -> None:
    """Admission counts what is under way, not what has been."""
    async with running(Scripted(echo, max_calls=1)) as ref:
        for number in range(10):
            assert await ref.call(number) == number


async def test_slow_call_does_not_delay_others(autojump_clock: trio.testing.MockClock) -> None:
    """Four calls of a second each take a second."""
    async with running(Scripted(sleep_for)) as ref:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ref.call, 1)

        assert trio.current_time() - start == pytest.approx(1)


async def test_what_a_handler_leaves_in_its_context_is_not_for_the_next_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[str, str]] = []

    async def handle(request: Any, _: Call[Any, Any]) -> None:
        before = mark.get()
        mark.set(request)
        await trio.sleep(1)
        seen.append((before, mark.get()))

    async with running(Scripted(handle)) as ref:
        for request in ("a", "b", "c", "d"):
            await ref.call(request)
    assert seen == [("none", request) for request in ("a", "b", "c", "d")]
    assert mark.get() == "none"


async def test_tasks_of_a_burst_of_calls_do_not_stay(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Scripted(sleep_for)) as ref:
        before = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ref.call, 1)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living - before <= 4
        assert await ref.call(1) == 1


async def test_an_answer_is_gone_with_its_last_user(autojump_clock: trio.testing.MockClock) -> None:
    class Large:
        """What somebody asked for."""

    async def handle(_: Any, __: Call[Any, Any]) -> Large:
        await trio.sleep(1)
        return Large()

    gc.disable()  # garbage in cycles would stay for long in a process that makes little of it
    try:
        async with running(Scripted(handle)) as ref:

            def ask() -> Reply[Large]:
                call = ref.submit("anything", on_caller_exit=OnCallerExit.DETACH)
                call.reply.on_done(lambda: repr(call))
                return call.reply

            answer = weakref.ref(await ask().wait())
            await wait_all_tasks_blocked()
            assert answer() is None
    finally:
        gc.enable()


async def test_crash_wakes_running_callers(autojump_clock: trio.testing.MockClock) -> None:
    """When the actor fails, each of its callers gets the failure instead of waiting for ever."""
    actor = Scripted(forever)
    failures: list[Exception] = []

    async def caller(ref: ActorRef[Any, Any]) -> None:
        try:
            await ref.call("x")
        except ActorStopped as error:
            failures.append(error)

    with pytest.RaisesGroup(pytest.RaisesExc(ActorStopped, match="on fire")):
        async with trio.open_nursery() as nursery:
            ref = await nursery.start(actor.run)
            async with trio.open_nursery() as callers:
                for _ in range(3):
                    callers.start_soon(caller, ref)
                await wait_all_tasks_blocked()
                actor.fail(ActorStopped("on fire"))
                with trio.CancelScope(shield=True):
                    await ref.wait_ended()

    assert [str(error) for error in failures] == ["on fire"] * 3


async def test_crash_of_a_service_wakes_running_callers(autojump_clock: trio.testing.MockClock) -> None:
    """The same holds when the crash comes out of the lifespan."""

    @asynccontextmanager
    async def lifespan(_: Actor[Any, Any]) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:

            async def bomb() -> None:
                await trio.sleep(5)
                raise ValueError("boom")

            nursery.start_soon(bomb)
            yield

    actor = Scripted(forever, lifespan=lifespan)
    caught: list[ActorStopped] = []
    with pytest.RaisesGroup(pytest.RaisesGroup(ValueError)):
        async with trio.open_nursery() as nursery:
            ref = await nursery.start(actor.run)
            call = ref.submit("x")
            with trio.CancelScope(shield=True):
                try:
                    await call.reply.wait()
                except ActorStopped as error:
                    caught.append(error)

    assert [error.delivered for error in caught] == [Delivered.UNKNOWN]


async def test_crash_wakes_queued_callers(autojump_clock: trio.testing.MockClock) -> None:
    """A call that was never begun is answered too, as not delivered. Senders are never blocked, so none can hang."""
    actor = Scripted(echo, capacity=8)
    with pytest.RaisesGroup(ActorStopped):
        async with trio.open_nursery() as nursery:
            ref = await nursery.start(actor.run)
            ref.submit("handed over")
            call = ref.submit("queued")
            actor.fail(ActorStopped("on fire"))
            with trio.CancelScope(shield=True):
                await ref.wait_ended()

    with pytest.raises(ActorStopped, match="before handling") as caught:
        await call.reply.wait()
    assert caught.value.delivered is Delivered.NO


async def test_never_started_actor_fails_senders() -> None:
    """Nobody can wait on an actor that is not there."""
    ref = Scripted(echo).ref

    with pytest.raises(ActorStopped, match="was not started") as caught:
        ref.submit("x")
    assert caught.value.delivered is Delivered.NO
    await ref.wait_ended()


async def test_an_actor_that_cannot_open_fails_its_starter_bare() -> None:
    """No exception group, and senders are refused afterwards."""

    @asynccontextmanager
    async def lifespan(_: Actor[Any, Any]) -> AsyncIterator[None]:
        raise OSError("no such thing")
        yield

    actor = Scripted(echo, lifespan=lifespan)
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="no such thing"):
            await nursery.start(actor.run)

    with pytest.raises(ActorStopped):
        actor.ref.submit("x")
    assert actor.ref.ended


async def test_stop_lets_running_calls_finish(autojump_clock: trio.testing.MockClock) -> None:
    """Draining refuses what is new and waits for what runs."""
    async with running(Scripted(sleep_for)) as ref:
        call = ref.submit(3)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        ref.request_stop(drain=10)

        with pytest.raises(ActorStopped, match="is stopping"):
            ref.submit("late")
        await ref.wait_ended()

        assert trio.current_time() - start == pytest.approx(3)
        assert await call.reply.wait() == 3


async def test_stop_handles_what_is_queued(autojump_clock: trio.testing.MockClock) -> None:
    """A call that was accepted before the stop is not lost."""
    async with running(Scripted(echo)) as ref:
        call = ref.submit("accepted")
        await ref.stop(drain=10)

        assert await call.reply.wait() == "accepted"


async def test_drain_deadline_cancels_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """A call that does not finish in the drain time is cancelled, and its caller told."""
    async with running(Scripted(forever)) as ref:
        call = ref.submit("x")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await ref.stop(drain=10)

        assert trio.current_time() - start == pytest.approx(10)
        with pytest.raises(ActorStopped, match="while the call was running"):
            await call.reply.wait()


async def test_stop_is_idempotent_and_may_only_shorten(autojump_clock: trio.testing.MockClock) -> None:
    """A second stop ends it earlier, never later."""
    async with running(Scripted(forever)) as ref:
        ref.submit("x")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        ref.request_stop(drain=10)
        ref.request_stop(drain=100)
        ref.request_stop(drain=2)
        await ref.stop(drain=50)

        assert trio.current_time() - start == pytest.approx(2)


async def test_stop_while_opening_ends_it_as_soon_as_it_is_open(autojump_clock: trio.testing.MockClock) -> None:
    """An actor that is stopped before it is ready never takes a call."""

    @asynccontextmanager
    async def lifespan(_: Actor[Any, Any]) -> AsyncIterator[None]:
        await trio.sleep(5)
        yield

    actor = Scripted(echo, lifespan=lifespan)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await wait_all_tasks_blocked()
        await actor.ref.stop(drain=1)

        with pytest.raises(ActorStopped):
            actor.ref.submit("x")


async def test_kill_closes_what_the_lifespan_opened(autojump_clock: trio.testing.MockClock) -> None:
    """A killed actor still says goodbye, within its own shield."""
    said: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Actor[Any, Any]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.sleep(0.5)
                said.append("goodbye")

    async with running(Scripted(forever, lifespan=lifespan)) as ref:
        ref.submit("x")
        await wait_all_tasks_blocked()
        ref.cancel("enough")
        await ref.wait_ended()

    assert said == ["goodbye"]


async def test_self_call_raises(autojump_clock: trio.testing.MockClock) -> None:
    """An actor that asks itself would wait for ever; it gets an error instead."""

    async def handle(request: Any, call: Call[Any, Any]) -> Any:
        return await actor.ref.call("again", parent=call) if request == "first" else request

    actor = Scripted(handle)
    async with running(actor) as ref:
        with pytest.raises(CallingSelf):
            await ref.call("first")


async def test_self_call_through_another_actor_raises(autojump_clock: trio.testing.MockClock) -> None:
    """A → B → A is found by the chain that the call carries."""

    async def ask_b(_: Any, call: Call[Any, Any]) -> Any:
        return await b.ref.call("x", parent=call)

    async def ask_a(_: Any, call: Call[Any, Any]) -> Any:
        return await a.ref.call("x", parent=call)

    a, b = Scripted(ask_b), Scripted(ask_a)
    async with running(a) as ref, running(b):
        with pytest.raises(CallingSelf):
            await ref.call("start")


async def test_detached_call_goes_on_after_its_caller_left(autojump_clock: trio.testing.MockClock) -> None:
    """It finishes, counts against admission until then, and its reply is there for whoever asks."""
    finished: list[Any] = []

    async def handle(request: Any, _: Call[Any, Any]) -> Any:
        await trio.sleep(5)
        finished.append(request)

    async with running(Scripted(handle)) as ref:
        with trio.move_on_after(1):
            await ref.call("x", on_caller_exit=OnCallerExit.DETACH, deadline=math.inf)
        assert ref.statistics().mailbox.running == 1
        await trio.sleep(5)

        assert finished == ["x"]
        assert ref.statistics().mailbox.running == 0


async def test_detached_call_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits for it, but it does not run for ever."""
    async with running(Scripted(forever)) as ref:
        call = ref.submit("x", on_caller_exit=OnCallerExit.DETACH, deadline=trio.current_time() + 7)
        call.caller_left()
        await trio.sleep(6)
        assert not call.reply.done
        await trio.sleep(2)

        with pytest.raises(DeadlineExceeded):
            call.reply.result()


async def test_context_travels_with_the_call(autojump_clock: trio.testing.MockClock) -> None:
    """What the caller attaches is what the handler sees."""

    async def handle(_: Any, call: Call[Any, Any]) -> Any:
        return call.context

    async with running(Scripted(handle)) as ref:
        assert await ref.call("x", context={"traceparent": "00-1"}) == {"traceparent": "00-1"}


async def test_reply_set_twice_is_harmless() -> None:
    """The first answer counts; who waited and who comes later get the same."""
    reply: Reply[str] = Reply()
    calls: list[str] = []
    reply.on_done(lambda: calls.append("done"))

    assert reply.set_value("first")
    assert not reply.set_value("second")
    assert not reply.set_error(ValueError("third"))
    assert await reply.wait() == "first"
    assert await reply.wait() == "first"
    assert calls == ["done"]


async def test_reply_error_can_be_read_more_than_once() -> None:
    """An error is a value until somebody waits, and stays one."""
    reply: Reply[str] = Reply()
    reply.set_error(ValueError("no"))

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await reply.wait()


def test_a_reply_that_was_taken_keeps_nothing() -> None:
    reply: Reply[list[int]] = Reply()
    reply.set_value([1])
    assert reply.take() == [1]
    assert reply.done
    assert not reply.set_value([2])

    class Failure(Exception):
        """With room for a weak reference."""

    failed: Reply[None] = Reply()
    error = Failure()
    failed.set_error(error)
    left = weakref.ref(error)
    del error
    with suppress(Failure):
        failed.take()
    assert left() is None


async def test_repr_and_statistics_tell_the_truth(autojump_clock: trio.testing.MockClock) -> None:
    """What a person sees in a debugger is what is there."""
    actor = Scripted(forever, capacity=4)
    assert "not running" in repr(actor)
    async with running(actor) as ref:
        ref.submit("x")
        await wait_all_tasks_blocked()

        assert "running, 0 queued, 1 running, 0 handled" in repr(actor)
        assert repr(actor._mailbox) == "<Mailbox of scripted: 0 queued, 1 running, accepting>"
        ref.request_stop(drain=1)
        assert ref.statistics().stopping
        assert "stopping" in repr(actor)
    assert repr(ref) == "<ActorRef scripted>"
    assert repr(Reply()) == "<Reply pending>"
    assert repr(Call("x")) == "<Call str <Reply pending>>"


@pytest.mark.parametrize("delivered", list(Delivered))
def test_cancellation_error_carries_delivery(delivered: Delivered) -> None:
    """The caller's own cancellation and the deadline are told apart."""
    call: Call[str, str] = Call("x")
    assert isinstance(call.cancellation_error(delivered), DeadlineExceeded)
    call.cancel("why")
    error = call.cancellation_error(delivered)

    assert isinstance(error, CallCancelled)
    assert error.delivered is delivered
    assert call.cancelled


async def test_a_handlers_nursery_does_not_show_in_its_error(autojump_clock: trio.testing.MockClock) -> None:
    """One error in a group is that error; several stay a group."""

    async def handle(request: Any, _: Call[Any, Any]) -> Any:
        async def fail() -> None:
            raise Busy("inside")

        async with trio.open_nursery() as nursery:
            for _ in range(request):
                nursery.start_soon(fail)

    async with running(Scripted(handle)) as ref:
        with pytest.raises(Busy, match="inside"):
            await ref.call(1)
        with pytest.RaisesGroup(Busy, Busy):
            await ref.call(2)
