"""Supervision: what happens when a child ends. OTP's nouns (child spec, restart, intensity), trio's verbs."""

from __future__ import annotations

import enum
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from attrs import Factory, define, evolve, field, frozen

from ..errors import RestartsExhausted

logger = logging.getLogger(__name__)

Run = Callable[..., Awaitable[Any]]
"""What a child does: an async callable that accepts `task_status`."""


class Restart(enum.Enum):
    """When a child is started again: never, after a crash, or whatever the exit."""

    TEMPORARY = "temporary"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


class ExitKind(enum.Enum):
    """How a child ended."""

    NORMAL = "normal"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


@frozen
class ExitReason:
    """How a child ended, and the error if it crashed."""

    kind: ExitKind
    error: BaseException | None = None

    def __str__(self) -> str:
        return self.kind.value if self.error is None else f"{self.kind.value}: {self.error}"


@define
class Intensity:
    """At most `restarts` crashes within `period` seconds. Reads trio's clock; no timer."""

    restarts: int
    period: float
    _times: deque[float] = field(factory=deque, init=False)

    def crashed(self) -> bool:
        """Note a crash now. Returns whether it is still within the intensity."""
        now = trio.current_time()
        self._times.append(now)
        while self._times and self._times[0] <= now - self.period:
            self._times.popleft()
        return len(self._times) <= self.restarts

    def reset(self) -> None:
        """Forget the crashes so far."""
        self._times.clear()


@define
class Backoff:
    """Jittered exponential delays in seconds: between half and the whole of `initial * 2**n`, at most `maximum`."""

    initial: float
    maximum: float
    _random: random.Random = field(factory=random.Random)
    _attempt: int = field(default=0, init=False)

    def next_delay(self) -> float:
        """The delay before the next attempt."""
        ceiling = min(self.maximum, self.initial * 2.0 ** min(self._attempt, 63))
        self._attempt += 1
        return ceiling * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """Begin anew with the initial delay."""
        self._attempt = 0


@frozen
class Decision:
    """What follows an exit.

    Attributes:
        delay: seconds until the next start; None when there is none.
        given_up: whether the child crashed more often than its intensity allows.
    """

    delay: float | None
    given_up: bool = False


@frozen
class ChildSpec:
    """What to run, and what to do when it ends.

    Attributes:
        name: for logs and statistics.
        run: the child's body; accepts `task_status`.
        restart: when it is started again.
        intensity: how many crashes are too many; None means no number is.
        backoff: delays between a crash and the restart; None means at once.
        cool_down: after too many crashes, begin anew after this many seconds; None means give up for good.
        on_exit: told of every exit and what follows it. Synchronous.
    """

    name: str
    run: Run
    restart: Restart = Restart.TEMPORARY
    intensity: Intensity | None = None
    backoff: Backoff | None = None
    cool_down: float | None = None
    on_exit: Callable[[ExitReason, Decision], None] = Factory(lambda: _ignore_exit)


def _ignore_exit(_: ExitReason, __: Decision) -> None:
    pass


async def supervise(spec: ChildSpec, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> ExitReason:
    """Run a child, in this task, and restart it as its spec says. Returns the last exit when there is no restart.

    Until the child first calls `task_status.started()`, its exceptions leave bare: it was never there. Cancellation
    passes through and ends the child; it is not an exit to restart from.

    Raises:
        RestartsExhausted: the child crashed more often than its intensity allows, and there is no cool-down.
    """
    status = _StartedOnce(task_status)
    while True:
        try:
            await spec.run(task_status=status)
            reason = ExitReason(ExitKind.NORMAL)
        except Exception as error:
            if status.awaited and not status.done:
                raise
            reason = ExitReason(ExitKind.CRASHED, error)
        decision = _decide(spec, reason)
        spec.on_exit(reason, decision)
        if decision.delay is not None:
            del reason  # its traceback knows everything of the life that is over
            await trio.sleep(decision.delay)
        elif decision.given_up:
            raise RestartsExhausted(f"{spec.name} crashed too often, last: {reason.error}") from reason.error
        else:
            return reason


def _decide(spec: ChildSpec, reason: ExitReason) -> Decision:
    if spec.restart is Restart.TEMPORARY:
        return Decision(None)
    if reason.kind is ExitKind.NORMAL:
        return Decision(0.0 if spec.restart is Restart.PERMANENT else None)
    if spec.intensity is not None and not spec.intensity.crashed():
        spec.intensity.reset()
        if spec.backoff is not None:
            spec.backoff.reset()
        return Decision(spec.cool_down, given_up=True)
    return Decision(spec.backoff.next_delay() if spec.backoff is not None else 0.0)


class _StartedOnce:
    """Passes the first `started()` on: a restarted child starts again, its starter waited only once."""

    def __init__(self, inner: trio.TaskStatus[Any]) -> None:
        self._inner = inner
        self.awaited = inner is not trio.TASK_STATUS_IGNORED
        self.done = False

    def started(self, value: Any = None) -> None:
        if not self.done:
            self.done = True
            self._inner.started(value)


@frozen
class ChildStatistics:
    """A snapshot of one supervised child."""

    name: str
    exits: int
    last_exit: ExitReason | None


class Supervisor:
    """Children in one nursery, each guarded so that its crash leaves its siblings alone.

    The supervisor is bookkeeping, not an actor: `start` runs in the caller's task, so children start in parallel.
    A child's crash is recorded and logged once, and the child removed. Only `RestartsExhausted` of a child that is
    not temporary leaves the nursery: somebody has to hear of it.
    """

    def __init__(self, name: str, nursery: trio.Nursery) -> None:
        self.name = name
        self._nursery = nursery
        self._children: dict[object, ChildStatistics] = {}
        self._crashes = 0

    async def start(self, spec: ChildSpec) -> Any:
        """Start a child and wait until it is ready; returns what it passed to `started()`.

        Raises what the child raises before it is ready. Cancelling the wait cancels a child that is not yet ready.
        """
        return await self._nursery.start(self._run_child, spec)

    def start_soon(self, spec: ChildSpec) -> None:
        """Start a child without waiting for it."""
        self._nursery.start_soon(self._run_child, spec)

    async def _run_child(
        self, spec: ChildSpec, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        key = object()  # names are for people: two children may have the same
        self._children[key] = ChildStatistics(spec.name, exits=0, last_exit=None)

        def on_exit(reason: ExitReason, decision: Decision) -> None:
            child = self._children[key]
            self._children[key] = evolve(child, exits=child.exits + 1, last_exit=reason)
            if reason.error is not None:
                self._crashes += 1
                logger.error("%s: %s crashed", self.name, spec.name, exc_info=reason.error)
            spec.on_exit(reason, decision)

        try:
            await supervise(evolve(spec, on_exit=on_exit), task_status=task_status)
        finally:
            del self._children[key]

    @property
    def crashes(self) -> int:
        """How many children have crashed so far."""
        return self._crashes

    def children(self) -> Sequence[ChildStatistics]:
        """A snapshot of the children that are running or waiting for their restart."""
        return tuple(self._children.values())

    def __repr__(self) -> str:
        return f"<Supervisor {self.name}: {len(self._children)} children, {self._crashes} crashes>"
