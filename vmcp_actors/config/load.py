"""From a file to what the gateway runs on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs
from attrs import field, frozen

from ..auth import HeadersFrom, HeaderSource, RenewingAuthorizer
from ..errors import ConfigError
from ..model import BackendSpec, Era, HttpEndpoint, StdioCommand
from ..routing.merge import static_conflicts
from ..settings import (
    AggregationSettings,
    BreakerSettings,
    HealthSettings,
    RestartSettings,
    ServerSettings,
    SessionSettings,
    StatelessSettings,
    ToolOverride,
    WorkloadRules,
)
from . import clients, environment, schema, toolhive
from .checks import backend_names, items, mapping, relations
from .converter import structure
from .documents import read_document
from .problems import Expanded, Problem, in_lines, kind, render, show

DEFAULT_NAME = "vmcp"
CALL_TIMEOUT = 60.0
HTTP_CONNECT_TIMEOUT = 5.0
STDIO_CONNECT_TIMEOUT = 30.0

ERAS: Mapping[schema.Revisions, tuple[Era, ...]] = {
    "auto": tuple(Era),
    "stateful": (Era.STATEFUL,),
    "stateless": (Era.STATELESS,),
}

S = TypeVar("S", SessionSettings, ServerSettings, StatelessSettings, BreakerSettings)


@frozen
class Config:
    """All that a gateway needs to know. Immutable; `attrs.evolve` makes variants.

    Attributes:
        name: how the gateway calls itself to clients.
        backends: at least one, unless made by `backends_only`.
        warnings: what in the file has no effect, for people; one line each.
        source: the file that it is from, or where else.
    """

    name: str = DEFAULT_NAME
    backends: tuple[BackendSpec, ...] = ()
    aggregation: AggregationSettings = field(factory=AggregationSettings)
    sessions: SessionSettings = field(factory=SessionSettings)
    stateless: StatelessSettings = field(factory=StatelessSettings)
    server: ServerSettings = field(factory=ServerSettings)
    restart: RestartSettings = field(factory=RestartSettings)
    health: HealthSettings = field(factory=HealthSettings)
    warnings: tuple[str, ...] = ()
    source: str = "<program>"


def load_config(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file: our own YAML or JSON, or the file of an MCP client.

    Args:
        path: the file. `.yaml`, `.yml`, `.json` and `.jsonc` say the format; else it is found by looking.
        environ: what `${NAME}` in values stands for; the environment of the process when it is None.

    Raises:
        ConfigError: the file cannot be read or used. `problems` has a line for each thing that is wrong, all at once.
    """
    source = os.fspath(path)
    try:
        with open(source, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError([f"top level: cannot be read: {error.strerror} (in {source})"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"top level: cannot be read: it is not UTF-8 text (in {source})"]) from None
    return parse_config(text, source=source, environ=environ)


def parse_config(text: str, *, source: str, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in a text. `source` is its name in messages, and may tell the format. See `load_config`."""
    name = os.path.basename(source)
    document = read_document(text, name)
    if not isinstance(document, dict):
        what = "the file is empty" if document is None else f"expected a mapping, got {kind(document)}"
        raise ConfigError([f"top level: {what} (in {name})"])
    key = clients.servers_key(document)
    if key is None:
        config, problems = _read(document, source, environ)
    else:
        imported = clients.translate(document, key)
        config, found = _read(imported.tree, source, environ)
        found = [] if imported.problems and not imported.origins else found
        problems = [*imported.problems, *map(imported.in_their_words, found)]
        config = config and attrs.evolve(config, warnings=imported.warnings)
    if problems or config is None:
        raise ConfigError(in_lines(problems, document, name))
    return config


def backends_only(backends: Sequence[BackendSpec], **settings: Any) -> Config:
    """A configuration for programs that embed the gateway: these backends, and defaults for all else.

    Args:
        backends: may be empty; the sessions then offer nothing.
        settings: other attributes of `Config`, such as `sessions=SessionSettings(ttl=60)`.
    """
    return Config(backends=tuple(backends), **settings)


def _read(tree: dict[str, Any], source: str, environ: Mapping[str, str] | None) -> tuple[Config | None, list[Problem]]:
    """What a tree of our own schema says; None for the configuration where there are problems."""
    tree, ignored = toolhive.set_aside(tree)
    tree, problems = environment.expand(tree, os.environ if environ is None else environ)
    tree, refused = toolhive.without_auth(tree)
    problems += refused
    if tree.get("backends") in (None, []) and not any(problem.path[-1] == "source" for problem in refused):
        problems.append(Problem(("backends",), "at least one backend is needed"))
    names = backend_names(tree)
    file, found = structure(tree, schema.File, names)
    problems += [*found, *relations(tree), *_conflicts(tree, names)]
    if problems or file is None:
        return None, problems
    texts = [f"ignored, since nothing here reads them yet: {', '.join(map(render, ignored))}"] if ignored else []
    return _config(file, tuple(texts), source), []


def _conflicts(tree: dict[str, Any], names: frozenset[str] | None) -> list[Problem]:
    """Clashes under strategy `manual`; they can be told as soon as `aggregation` itself is right."""
    section, problems = structure(tree.get("aggregation") or {}, schema.Aggregation, names)
    if section is None or problems or section.conflict_resolution != "manual":
        return []
    settings = _aggregation(section, sorted(names or ()))
    return [Problem(("aggregation",), text) for text in _without_expanded(static_conflicts(settings), tree)]


def _without_expanded(texts: list[str], tree: dict[str, Any]) -> list[str]:
    """Texts about overrides, without the names among these that came out of the environment."""
    for rules in items(mapping(tree.get("aggregation")).get("tools")):
        for override in mapping(mapping(rules).get("overrides")).values():
            name = mapping(override).get("name")
            if isinstance(name, Expanded):
                texts = [text.replace(repr(str(name)), show(name)) for text in texts]
    return texts


def _config(file: schema.File, warnings: tuple[str, ...], source: str) -> Config:
    return Config(
        name=file.name or DEFAULT_NAME,
        backends=tuple(_backend(backend, file.operational.timeouts) for backend in file.backends),
        aggregation=_aggregation(file.aggregation, [backend.name for backend in file.backends]),
        sessions=_evolved(SessionSettings(), file.sessions),
        stateless=_evolved(StatelessSettings(), file.stateless),
        server=_evolved(ServerSettings(), file.server),
        health=_health(file.operational.failure_handling),
        warnings=warnings,
        source=source,
    )


def _backend(backend: schema.Backend, timeouts: schema.Timeouts) -> BackendSpec:
    call_timeout = timeouts.per_workload.get(schema.Workload(backend.name), timeouts.default or CALL_TIMEOUT)
    endpoint: HttpEndpoint | StdioCommand
    if backend.transport == "stdio":
        assert backend.command is not None  # checks.relations
        env = {str(name): value for name, value in backend.env.items()}
        endpoint = StdioCommand(backend.command, backend.args, env, backend.cwd)
    else:
        assert backend.url is not None  # checks.relations
        headers = {str(name): value for name, value in backend.headers.items()}
        sources = {str(name): HeaderSource(source.env, source.file) for name, source in backend.headers_from.items()}
        authorizer = RenewingAuthorizer(HeadersFrom(sources)) if sources else None
        endpoint = HttpEndpoint(backend.url, backend.transport, headers, authorizer)
    return BackendSpec(
        backend.name,
        endpoint,
        call_timeout,
        STDIO_CONNECT_TIMEOUT if backend.transport == "stdio" else HTTP_CONNECT_TIMEOUT,
        backend.session_loss,
        ERAS[backend.revisions],
        backend.keepalive,
    )


def _health(section: schema.FailureHandling) -> HealthSettings:
    given = {
        "check_interval": section.health_check_interval,
        "check_timeout": section.health_check_timeout,
        "unhealthy_threshold": section.unhealthy_threshold,
        "partial_failure_mode": section.partial_failure_mode,
        "breaker": _evolved(BreakerSettings(), section.circuit_breaker),
    }
    return HealthSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _aggregation(section: schema.Aggregation, backends: Sequence[str]) -> AggregationSettings:
    rules: dict[str, WorkloadRules] = {}
    if section.default_tool_visibility == "deny":
        rules = {name: WorkloadRules(exclude_all_tools=True) for name in backends}
    for tools in section.tools:
        overrides = {
            name: ToolOverride(override.name, override.description, override.annotations)
            for name, override in tools.overrides.items()
        }
        rules[tools.workload] = WorkloadRules(tools.filter, overrides, tools.exclude_all)
    for resources in section.resources:
        known = rules.get(resources.workload, WorkloadRules())
        rules[resources.workload] = attrs.evolve(known, resource_filter=resources.filter)
    for prompts in section.prompts:
        known = rules.get(prompts.workload, WorkloadRules())
        rules[prompts.workload] = attrs.evolve(known, prompt_filter=prompts.filter)
    defaults = AggregationSettings()
    return AggregationSettings(
        strategy=section.conflict_resolution or defaults.strategy,
        prefix_format=section.conflict_resolution_config.prefix_format or defaults.prefix_format,
        priority_order=section.conflict_resolution_config.priority_order,
        workloads=rules,
        exclude_all_tools=section.exclude_all_tools,
    )


def _evolved(defaults: S, section: schema.Sessions | schema.Server | schema.Stateless | schema.CircuitBreaker) -> S:
    """Settings with what a section of the file says; the attributes of both have the same names."""
    return attrs.evolve(defaults, **{name: value for name, value in _given(section).items() if value is not None})


def _given(section: attrs.AttrsInstance) -> dict[str, Any]:
    return {attribute.name: getattr(section, attribute.name) for attribute in attrs.fields(type(section))}
