"""Small settings classes, one per subsystem. Times in seconds, sizes in bytes. Only the gateway sees all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

Strategy = Literal["prefix", "priority", "manual"]


@frozen
class SessionSettings:
    """Lifetimes, limits and start-up of sessions (mission S4, S5, S11–S13)."""

    ttl: float = 1800.0
    idle_timeout: float = 300.0
    ready_timeout: float = 5.0
    drain_timeout: float = 10.0
    goodbye_timeout: float = 5.0
    max_sessions: int = 1000
    max_per_client: int = 10
    max_calls: int = 256
    backend_init_concurrency: int = 10
    global_backend_init_concurrency: int = 100


@frozen
class StatelessSettings:
    """What clients of the stateless revision get: see `sessions.leases.Leases`. The limit is in seconds."""

    mode: Literal["auto", "lease", "off"] = "auto"
    idle_timeout: float = 120.0


@frozen
class RestartSettings:
    """How a lost backend connection comes back (S7): back-off bounds, intensity, and the pace after giving up."""

    initial_delay: float = 0.2
    max_delay: float = 30.0
    intensity: int = 5
    period: float = 30.0
    unavailable_retry: float = 60.0


@frozen
class BreakerSettings:
    """When calls to a backend are stopped: after so many failures within a window; and for how long."""

    enabled: bool = False
    failure_threshold: int = 5
    window: float = 60.0
    timeout: float = 60.0


@frozen
class HealthSettings:
    """How backends are watched: a ping every interval, and from how many failures in a row on they are unhealthy.

    `partial_failure_mode` says whether a session starts when some of its backends do not come up.
    """

    check_interval: float = 30.0
    check_timeout: float = 10.0
    unhealthy_threshold: int = 3
    partial_failure_mode: Literal["best_effort", "fail"] = "best_effort"
    breaker: BreakerSettings = field(factory=BreakerSettings)


@frozen
class ToolOverride:
    """What replaces a backend's own words about a tool, or is merged into its annotations; None leaves them."""

    name: str | None = None
    description: str | None = None
    annotations: Mapping[str, object] | None = None


@frozen
class WorkloadRules:
    """Selection for one backend. Filters are globs; an empty filter keeps everything."""

    tool_filter: tuple[str, ...] = ()
    overrides: Mapping[str, ToolOverride] = field(factory=dict)
    exclude_all_tools: bool = False
    resource_filter: tuple[str, ...] = ()
    prompt_filter: tuple[str, ...] = ()


@frozen
class AggregationSettings:
    """How the backends' catalogs become one (mission A1, A2)."""

    strategy: Strategy = "prefix"
    prefix_format: str = "{workload}_"
    priority_order: tuple[str, ...] = ()
    workloads: Mapping[str, WorkloadRules] = field(factory=dict)
    exclude_all_tools: bool = False


@frozen
class ServerSettings:
    """The HTTP edge."""

    host: str = "127.0.0.1"
    port: int = 4483
    path: str = "/mcp"
    max_body_bytes: int = 4 * 1024 * 1024
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    body_timeout: float = 30.0
    keepalive_interval: float = 15.0
    stream_capacity: int = 256
    send_timeout: float = 20.0
    http: Literal["fast", "hypercorn"] = "fast"
