"""What a world is made of, drawn from its seed."""

from __future__ import annotations

import random
from typing import Literal

from attrs import frozen

from vmcp_actors.model import Era
from vmcp_actors.settings import (
    BreakerSettings,
    HealthSettings,
    RestartSettings,
    ServerSettings,
    SessionSettings,
    StatelessSettings,
)

Kind = Literal["library", "lease", "web", "stateless"]

BOTH = (Era.STATEFUL, Era.STATELESS)
ERAS: tuple[tuple[Era, ...], ...] = ((Era.STATEFUL,), (Era.STATELESS,), BOTH)
STEPS = 40


@frozen
class BackendConfig:
    """One backend, as it is at the start."""

    name: str
    eras: tuple[Era, ...]
    http: bool
    session_loss: Literal["retry", "error"]
    keepalive: float | None
    connect_delay: float


@frozen
class Config:
    """One world."""

    backends: tuple[BackendConfig, ...]
    clients: tuple[Kind, ...]
    sessions: SessionSettings
    stateless: StatelessSettings
    restart: RestartSettings
    health: HealthSettings
    server: ServerSettings
    call_timeout: float
    steps: int
    faults: float

    @classmethod
    def drawn(cls, seed: int, steps: int | None = None) -> Config:
        """The world of a seed. `steps` changes nothing but when it ends."""
        rng = random.Random(f"{seed}/config")
        modern = rng.random() < 0.3
        backends = tuple(_backend(rng, f"b{n}", modern) for n in range(rng.choice((1, 1, 2, 2, 2, 3, 4))))
        kinds: tuple[tuple[Kind, ...], ...] = (("library",), ("library", "lease"), ("web", "stateless"), KINDS)
        of = rng.choice(kinds)
        clients = tuple(rng.choice(of) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 6))))
        modes: tuple[Literal["auto", "lease", "off"], ...] = ("lease", "auto", "off")
        (mode,) = rng.choices(modes, (8, 6 if modern else 1, 1))
        return cls(
            backends=backends,
            clients=clients,
            sessions=SessionSettings(
                ttl=rng.choice((60.0, 1800.0)),
                idle_timeout=rng.choice((20.0, 60.0, 300.0)),
                ready_timeout=rng.choice((1.0, 5.0)),
                drain_timeout=rng.choice((0.0, 2.0, 10.0)),
                goodbye_timeout=2.0,
                max_sessions=rng.randint(1, 8),
                max_per_client=rng.randint(1, 3),
                max_calls=rng.randint(2, 8),
                backend_init_concurrency=rng.randint(1, 4),
                global_backend_init_concurrency=rng.randint(1, 6),
            ),
            stateless=StatelessSettings(mode=mode, idle_timeout=rng.choice((20.0, 120.0))),
            restart=RestartSettings(intensity=rng.choice((1, 5)), unavailable_retry=rng.choice((10.0, 60.0))),
            health=HealthSettings(
                breaker=BreakerSettings(enabled=rng.random() < 0.2, failure_threshold=rng.randint(2, 5)),
                partial_failure_mode=rng.choice(("best_effort",) * 5 + ("fail",)),
            ),
            server=ServerSettings(stream_capacity=rng.choice((4, 16)), keepalive_interval=rng.choice((1.0, 15.0))),
            call_timeout=rng.choice((10.0, 20.0)),
            steps=rng.randint(STEPS // 4, STEPS) if steps is None else steps,
            faults=rng.choice((0.0, 0.3, 1.0, 1.0)),
        )


KINDS: tuple[Kind, ...] = ("library", "lease", "web", "stateless")


def _backend(rng: random.Random, name: str, modern: bool) -> BackendConfig:
    return BackendConfig(
        name,
        eras=rng.choice(ERAS) if modern else ERAS[0],
        http=rng.random() < 0.5,
        session_loss=rng.choice(("retry", "retry", "error")),
        keepalive=rng.choice((None, None, 15.0)),
        connect_delay=rng.choice((0.0, 0.0, 0.1, 3.0)),
    )
