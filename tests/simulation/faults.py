"""What goes wrong in a world: with its backends, with its time, with the gateway itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
from attrs import evolve

from vmcp_actors.model import HttpEndpoint, JsonObject

from .backends import SimBackend
from .config import ERAS
from .world import World

FLOOD = 40


class Faults:
    """A task that does harm: to one backend at a time, or to all of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed}/faults")
        self._kinds: tuple[tuple[float, Callable[[SimBackend], None]], ...] = (
            (2, self._crash),
            (2, self._forget),
            (1, self._slow),
            (1, self._silent),
            (1, self._down),
            (1, self._refuses),
            (0.5, self._unauthorized),
            (2, self._storm),
            (2, self._flood),
            (0.7, self._other_revisions),
            (1, self._slow_goodbye),
            (2, self._heal),
        )

    async def live(self) -> None:
        """Do harm until the world has no steps left."""
        world, rng = self._world, self._random
        if not world.config.faults:
            return
        while True:
            await trio.sleep(rng.expovariate(0.5) / world.config.faults)
            if not world.step():
                return
            if rng.random() < 0.02:
                world.note("fault: the clock jumps")
                await trio.sleep(rng.uniform(30.0, 200.0))
            elif rng.random() < 0.05:
                self._reload()
            elif rng.random() < 0.015:
                world.begin_drain(rng.choice((None, 0.0, 3.0)))
            elif rng.random() < 0.01:
                world.note("fault: the gateway is shut down")
                world.shut_down()
            else:
                (harm,) = rng.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds])
                backend = rng.choice(world.doubles)
                world.note(f"fault: {harm.__name__} {backend.name}")
                harm(backend)

    def _reload(self) -> None:
        """Some of the backends, some of them elsewhere than before; other limits."""
        world, rng = self._world, self._random
        chosen = [spec for spec in world.specs if rng.random() < 0.7] or [rng.choice(world.specs)]
        specs = [
            evolve(spec, endpoint=HttpEndpoint(f"memory://{rng.randrange(3)}")) if rng.random() < 0.2 else spec
            for spec in chosen
        ]
        settings = world.config.sessions
        if rng.random() < 0.5:
            settings = evolve(settings, max_sessions=rng.randint(1, 8), max_per_client=rng.randint(1, 3))
        world.reload(specs, settings)

    def _crash(self, backend: SimBackend) -> None:
        backend.crash()

    def _forget(self, backend: SimBackend) -> None:
        backend.forget_sessions()

    def _slow(self, backend: SimBackend) -> None:
        backend.delay = self._random.choice((0.0, 0.2, 2.0, 6.0))
        backend.connect_delay = self._random.choice((0.0, 0.5, 4.0, 7.0))

    def _silent(self, backend: SimBackend) -> None:
        backend.silent = not backend.silent

    def _down(self, backend: SimBackend) -> None:
        backend.down = None if backend.down else "refuses to connect"

    def _refuses(self, backend: SimBackend) -> None:
        backend.refuses = not backend.refuses

    def _unauthorized(self, backend: SimBackend) -> None:
        backend.unauthorized = not backend.unauthorized

    def _storm(self, backend: SimBackend) -> None:
        """Tools come and go, and the backend says so, often."""
        if not backend.tools.pop("extra", None):
            backend.tools["extra"] = backend.tools["echo"]
        for _ in range(self._random.choice((1, 5, FLOOD))):
            backend.notify("notifications/tools/list_changed")

    def _flood(self, backend: SimBackend) -> None:
        """Messages for one session, which no other may hear; and changes for all."""
        for session in list(backend.sessions.values()):
            data: JsonObject = {"level": "error", "data": session.state["connection"].origin.owner}
            for _ in range(self._random.choice((1, 5, FLOOD))):
                if not session.listens:
                    session.notify("notifications/message", data)
        backend.notify("notifications/resources/updated", {"uri": f"x://{backend.name}"})

    def _other_revisions(self, backend: SimBackend) -> None:
        eras = self._random.choice(ERAS)
        if eras != backend.eras:
            backend.eras = eras
            backend.changed += 1

    def _slow_goodbye(self, backend: SimBackend) -> None:
        backend.goodbye_delay = self._random.choice((0.0, 0.5, 100.0))

    def _heal(self, backend: SimBackend) -> None:
        backend.heal()
