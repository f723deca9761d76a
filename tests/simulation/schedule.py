"""One seed, one schedule: everything that is random or timed in a run of trio is taken from the seed."""

from __future__ import annotations

import gc
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

MAX_PASSES = 300_000
"""Passes of the scheduler in one world; one that needs more goes round in circles."""
MAX_TIME = 30_000.0


class Stuck(Exception):
    """Nothing can happen any more, or things happen without end."""


class Steps(trio.abc.Instrument):
    """Fingerprints every step of every task."""

    def __init__(self) -> None:
        self._digest = sha256()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self.count += 1
        self._digest.update(task.name.encode())

    @property
    def digest(self) -> str:
        """The fingerprint of the schedule."""
        return self._digest.hexdigest()


class _Passes(trio.abc.Instrument):
    """Counts passes of the scheduler, and ends a run that has too many."""

    def __init__(self, on_too_many: Callable[[], None]) -> None:
        self._left = MAX_PASSES
        self._on_too_many = on_too_many

    def before_io_wait(self, timeout: float) -> None:
        """A pass begins."""
        self._left -= 1
        if self._left == 0:
            self._on_too_many()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have trio's scheduler, `secrets` and every `random.Random()` take what they need from the seed."""
    entropy = random.Random(f"{seed}/entropy")
    token_bytes, seed_method = secrets.token_bytes, random.Random.seed
    deterministic, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed_method(self, entropy.getrandbits(64) if a is None else a, version)

    def predictable(nbytes: int | None = None) -> bytes:
        return entropy.randbytes(32 if nbytes is None else nbytes)

    scheduler._r.seed(f"{seed}/schedule")
    setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  # it is declared Final
    setattr(random.Random, "seed", seeded)  # noqa: B010
    setattr(secrets, "token_bytes", predictable)  # noqa: B010
    try:
        yield
    finally:
        setattr(secrets, "token_bytes", token_bytes)  # noqa: B010
        setattr(random.Random, "seed", seed_method)  # noqa: B010
        setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", deterministic)  # noqa: B010
        scheduler._r.setstate(state)


def run(
    seed: int,
    main: Callable[[], Awaitable[None]],
    *,
    on_too_many: Callable[[], None],
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> None:
    """Run a world to its end. The same seed gives the same run, in every process.

    Raises:
        Stuck: all tasks wait, and no deadline is left; or time runs on without end.
    """
    clock = MockClock(autojump_threshold=0)

    def autojump() -> None:
        to_next = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if to_next == float("inf") or clock.current_time() > MAX_TIME:
            raise Stuck(f"at {clock.current_time():.1f} s all tasks wait, the next deadline is in {to_next} s")
        clock.jump(max(to_next, 0.0))

    setattr(clock, "_autojump", autojump)  # noqa: B010  # trio would wait for real when nothing is left to happen
    collecting = gc.isenabled()
    gc.disable()  # trio closes generators that are collected, at a time that is nobody's to choose
    try:
        with _seeded(seed):
            trio.run(main, clock=clock, instruments=[_Passes(on_too_many), *instruments])
    except trio.TrioInternalError as error:
        if isinstance(error.__cause__, Stuck):
            raise error.__cause__ from None
        raise
    finally:
        if collecting:
            gc.enable()
