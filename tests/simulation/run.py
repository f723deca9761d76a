"""Runs the world of a seed, and says what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import frozen

from vmcp_actors.server import front, stateful

from . import schedule
from .clients import Client
from .config import Config, Kind
from .faults import Faults
from .lease import LeaseClient
from .ledger import Invariant, Surprises, Violation
from .library import LibraryClient
from .stateless import StatelessClient
from .web import WebClient
from .world import REPLAY_EVENTS, World

CLIENTS: dict[Kind, Callable[[World, int], Client]] = {
    "library": LibraryClient,
    "lease": LeaseClient,
    "web": WebClient,
    "stateless": StatelessClient,
}


@frozen
class Result:
    """What came of one seed."""

    seed: int
    steps: int
    violations: tuple[Violation, ...]
    digest: str
    trace: tuple[str, ...]
    counts: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether all invariants held."""
        return not self.violations

    @property
    def replay(self) -> str:
        """The command that shows it again."""
        return f"python -m tests.simulation --seed {self.seed} --steps {self.steps}"


def simulate(
    seed: int,
    steps: int | None = None,
    *,
    keep: bool = False,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> Result:
    """Run the world of a seed. `steps` ends it earlier; up to there it is the same.

    Args:
        keep: the whole trace is kept, and not only its end.
    """
    config = Config.drawn(seed, steps)
    world = World(seed, config, _inhabitants, keep=keep)
    surprises = Surprises(world.ledger)
    logger = logging.getLogger("vmcp_actors")
    level, propagate, bound = logger.level, logger.propagate, front.REPLAY_EVENTS

    class ObservedFront(front.Front):
        def __init__(self, capacity: int) -> None:
            super().__init__(capacity)
            world.fronts.append(self)

    logger.addHandler(surprises)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    setattr(stateful, "Front", ObservedFront)  # noqa: B010
    setattr(front, "REPLAY_EVENTS", REPLAY_EVENTS)  # noqa: B010  # small, so that small worlds reach it
    try:
        schedule.run(
            seed,
            world.run,
            on_too_many=lambda: _circles(world),
            instruments=instruments,
        )
    except Exception as error:
        invariant = Invariant.NO_DEADLOCK if isinstance(error, schedule.Stuck) else Invariant.NO_SURPRISE
        if not world.ledger.violations:
            world.ledger.violations.append(Violation(invariant, f"{type(error).__name__}: {error}", math.nan))
    finally:
        setattr(front, "REPLAY_EVENTS", bound)  # noqa: B010
        setattr(stateful, "Front", front.Front)  # noqa: B010
        logger.removeHandler(surprises)
        logger.setLevel(level)
        logger.propagate = propagate
    ledger = world.ledger
    return Result(seed, config.steps, tuple(ledger.violations), ledger.digest, tuple(ledger.tail), dict(ledger.counts))


def _inhabitants(world: World) -> Sequence[Callable[[], Awaitable[None]]]:
    clients = [CLIENTS[kind](world, number).live for number, kind in enumerate(world.config.clients)]
    return [*clients, Faults(world).live]


def _circles(world: World) -> None:
    world.check(False, Invariant.NO_DEADLOCK, "it goes round in circles")
