"""The configuration file as it is written. Attributes are the keys in snake_case; None is a key that is not there.

`converter.py` says what each of the types accepts; `docs/reference/configuration.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NewType

from attrs import field, frozen

from ..model import Secret
from ..settings import Strategy

NonEmpty = NewType("NonEmpty", str)
BackendName = NewType("BackendName", str)
Workload = NewType("Workload", str)
Url = NewType("Url", str)
Argument = NewType("Argument", str)
HeaderName = NewType("HeaderName", str)
HeaderValue = NewType("HeaderValue", Secret[str])
VariableName = NewType("VariableName", str)
VariableValue = NewType("VariableValue", Secret[str])
PrefixFormat = NewType("PrefixFormat", str)
EndpointPath = NewType("EndpointPath", str)
Origin = NewType("Origin", str)
Host = NewType("Host", str)
Seconds = NewType("Seconds", float)
SecondsOrZero = NewType("SecondsOrZero", float)
Count = NewType("Count", int)
Port = NewType("Port", int)

TransportName = Literal["streamable-http", "sse", "stdio"]
SessionLoss = Literal["retry", "error"]
Revisions = Literal["auto", "stateful", "stateless"]
HttpServer = Literal["fast", "hypercorn"]


@frozen
class Source:
    """A value of `backends[].headersFrom`: one of the two."""

    env: VariableName | None = None
    file: NonEmpty | None = None


@frozen
class Backend:
    """An entry of `backends`."""

    name: BackendName
    transport: TransportName
    url: Url | None = None
    headers: Mapping[HeaderName, HeaderValue] = field(factory=dict)
    headers_from: Mapping[HeaderName, Source] = field(factory=dict)
    command: NonEmpty | None = None
    args: tuple[Argument, ...] = ()
    env: Mapping[VariableName, VariableValue] = field(factory=dict)
    cwd: NonEmpty | None = None
    session_loss: SessionLoss = "retry"
    revisions: Revisions = "auto"
    keepalive: Seconds | None = None


@frozen
class ConflictResolution:
    """`aggregation.conflictResolutionConfig`."""

    prefix_format: PrefixFormat | None = None
    priority_order: tuple[Workload, ...] = ()


@frozen
class Override:
    """A value of `aggregation.tools[].overrides`."""

    name: NonEmpty | None = None
    description: str | None = None
    annotations: Mapping[str, Any] | None = None


@frozen
class ToolRules:
    """An entry of `aggregation.tools`."""

    workload: Workload
    filter: tuple[NonEmpty, ...] = ()
    overrides: Mapping[str, Override] = field(factory=dict)
    exclude_all: bool = False


@frozen
class FilterRules:
    """An entry of `aggregation.resources` and `aggregation.prompts`."""

    workload: Workload
    filter: tuple[NonEmpty, ...] = ()


@frozen
class Aggregation:
    """`aggregation`."""

    conflict_resolution: Strategy | None = None
    conflict_resolution_config: ConflictResolution = ConflictResolution()
    tools: tuple[ToolRules, ...] = ()
    resources: tuple[FilterRules, ...] = ()
    prompts: tuple[FilterRules, ...] = ()
    exclude_all_tools: bool = False
    default_tool_visibility: Literal["allow", "deny"] = "allow"


@frozen
class Timeouts:
    """`operational.timeouts`."""

    default: Seconds | None = None
    per_workload: Mapping[Workload, Seconds] = field(factory=dict)


@frozen
class CircuitBreaker:
    """`operational.failureHandling.circuitBreaker`. The attributes are those of `settings.BreakerSettings`."""

    enabled: bool | None = None
    failure_threshold: Count | None = None
    timeout: Seconds | None = None


@frozen
class FailureHandling:
    """`operational.failureHandling`."""

    health_check_interval: Seconds | None = None
    health_check_timeout: Seconds | None = None
    unhealthy_threshold: Count | None = None
    partial_failure_mode: Literal["best_effort", "fail"] | None = None
    circuit_breaker: CircuitBreaker = CircuitBreaker()


@frozen
class Operational:
    """`operational`."""

    timeouts: Timeouts = Timeouts()
    failure_handling: FailureHandling = FailureHandling()


@frozen
class Sessions:
    """`sessions`. The attributes are those of `settings.SessionSettings`, which has the defaults."""

    ttl: Seconds | None = None
    idle_timeout: Seconds | None = None
    ready_timeout: Seconds | None = None
    drain_timeout: SecondsOrZero | None = None
    max_sessions: Count | None = None
    max_per_client: Count | None = None
    backend_init_concurrency: Count | None = None
    global_backend_init_concurrency: Count | None = None


@frozen
class Stateless:
    """`stateless`. The attributes are those of `settings.StatelessSettings`, which has the defaults."""

    mode: Literal["auto", "lease", "off"] | None = None
    idle_timeout: Seconds | None = None


@frozen
class Server:
    """`server`. The attributes are those of `settings.ServerSettings`, which has the defaults."""

    host: NonEmpty | None = None
    port: Port | None = None
    path: EndpointPath | None = None
    max_body_bytes: Count | None = None
    allowed_origins: tuple[Origin, ...] | None = None
    allowed_hosts: tuple[Host, ...] | None = None
    send_timeout: Seconds | None = None
    http: HttpServer | None = None


@frozen
class File:
    """The whole file, without the keys that `toolhive.py` takes out."""

    name: NonEmpty | None = None
    group_ref: str | None = None
    backends: tuple[Backend, ...] = ()
    aggregation: Aggregation = Aggregation()
    operational: Operational = Operational()
    sessions: Sessions = Sessions()
    stateless: Stateless = Stateless()
    server: Server = Server()
