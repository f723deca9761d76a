"""Makes one routing table of the catalogs of all backends: select, rename, settle conflicts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from ..model import Catalog, JsonObject
from ..settings import AggregationSettings, ToolOverride, WorkloadRules
from .strategies import Claim, assign_names, prefixed
from .table import NAMESPACE, Route, RoutingTable, namespaced

_NO_RULES = WorkloadRules()
_NO_OVERRIDE = ToolOverride()


def build_table(
    catalogs: Mapping[str, Catalog], settings: AggregationSettings, *, complete: bool = False
) -> RoutingTable:
    """One table of all catalogs. Deterministic: the order in which backends came does not matter.

    The backends' own dicts are neither changed nor copied deeply: only what is renamed is replaced, in a new dict.

    Args:
        complete: these are the catalogs of all backends that there are.

    Raises:
        UnresolvedConflicts: strategy `manual`, and a name is offered twice.
    """
    tools, tool_conflicts = _named(_selected_tools(catalogs, settings), settings)
    prompts, prompt_conflicts = _named(_selected_prompts(catalogs, settings), settings)
    resources, renamed = _by_uri(catalogs, settings, "uri")
    templates, renamed_templates = _by_uri(catalogs, settings, "uriTemplate")
    return RoutingTable(
        tools=tools,
        prompts=prompts,
        resources=resources,
        resource_templates=templates,
        backends=frozenset(catalogs),
        owners=frozenset(name for name, catalog in catalogs.items() if catalog.resources or catalog.resource_templates),
        filtered=frozenset(name for name, rules in settings.workloads.items() if rules.resource_filter),
        renamed_uris=renamed,
        conflicts=tool_conflicts + prompt_conflicts + len(renamed) + len(renamed_templates),
        sole=_sole(catalogs, settings) if complete and len(catalogs) == 1 else None,
        tool_definitions=_definitions(tools),
        prompt_definitions=_definitions(prompts),
        resource_definitions=_definitions(resources),
        resource_template_definitions=_definitions(templates),
    )


def _sole(catalogs: Mapping[str, Catalog], settings: AggregationSettings) -> tuple[str, str] | None:
    """The one backend and the prefix of its names, unless anything of it is hidden or renamed."""
    (backend,) = catalogs
    if settings.exclude_all_tools or settings.workloads.get(backend, _NO_RULES) != _NO_RULES:
        return None
    return backend, prefixed(settings.prefix_format, Claim(backend, "", "")) if settings.strategy == "prefix" else ""


def static_conflicts(settings: AggregationSettings) -> list[str]:
    """What cannot work under strategy `manual` whatever the backends offer, one line each."""
    if settings.strategy != "manual":
        return []
    by_name: dict[str, list[str]] = defaultdict(list)
    for workload, rules in sorted(settings.workloads.items()):
        if settings.exclude_all_tools or rules.exclude_all_tools:
            continue
        for original, override in sorted(rules.overrides.items()):
            if override.name is not None and _kept(rules.tool_filter, original, override.name):
                by_name[override.name].append(f"{workload}.{original}")
    return [
        f"conflictResolution is manual, and {' and '.join(owners)} are all renamed to {name!r}"
        for name, owners in sorted(by_name.items())
        if len(owners) > 1
    ]


# --- by name: tools and prompts ---------------------------------------------------------------------------------------

Selected = dict[Claim, JsonObject]


def _selected_tools(catalogs: Mapping[str, Catalog], settings: AggregationSettings) -> Selected:
    selected: Selected = {}
    if settings.exclude_all_tools:
        return selected
    for backend, catalog in sorted(catalogs.items()):
        rules = settings.workloads.get(backend, _NO_RULES)
        if rules.exclude_all_tools:
            continue
        for original, definition in _unique(catalog.tools, "name"):
            override = rules.overrides.get(original, _NO_OVERRIDE)
            name = override.name or original
            if _kept(rules.tool_filter, original, name):
                selected[Claim(backend, original, name)] = _overridden(definition, override)
    return selected


def _selected_prompts(catalogs: Mapping[str, Catalog], settings: AggregationSettings) -> Selected:
    selected: Selected = {}
    for backend, catalog in sorted(catalogs.items()):
        rules = settings.workloads.get(backend, _NO_RULES)
        for name, definition in _unique(catalog.prompts, "name"):
            if _kept(rules.prompt_filter, name):
                selected[Claim(backend, name, name)] = definition
    return selected


def _named(selected: Selected, settings: AggregationSettings) -> tuple[dict[str, Route], int]:
    assignment = assign_names(list(selected), settings)
    routes = {}
    for claim, definition in selected.items():
        advertised = assignment.names[claim]
        routes[advertised] = Route(claim.backend, claim.original, {**definition, "name": advertised})
    return routes, assignment.conflicts


def _overridden(definition: JsonObject, override: ToolOverride) -> JsonObject:
    changes: JsonObject = {}
    if override.description is not None:
        changes["description"] = override.description
    if override.annotations is not None:
        annotations = definition.get("annotations")
        changes["annotations"] = {**(annotations if isinstance(annotations, dict) else {}), **override.annotations}
    return {**definition, **changes}


# --- by URI: resources and templates ----------------------------------------------------------------------------------


def _by_uri(
    catalogs: Mapping[str, Catalog], settings: AggregationSettings, key: str
) -> tuple[dict[str, Route], dict[tuple[str, str], str]]:
    """Routes by URI or template; the same one on a second backend goes under the backend's namespace.

    So does one that a backend lists in the reserved namespace: no backend can take the place of another there.
    """
    routes: dict[str, Route] = {}
    renamed: dict[tuple[str, str], str] = {}
    for backend, catalog in sorted(catalogs.items()):
        rules = settings.workloads.get(backend, _NO_RULES)
        for uri, definition in _unique(catalog.resources if key == "uri" else catalog.resource_templates, key):
            if not _kept(rules.resource_filter, uri, definition.get("name")):
                continue
            advertised = uri
            if advertised in routes or advertised.startswith(NAMESPACE):
                advertised = renamed[backend, uri] = namespaced(backend, uri)
            routes[advertised] = Route(backend, uri, {**definition, key: advertised})
    return routes, renamed


# --- shared -----------------------------------------------------------------------------------------------------------


def _unique(entries: Sequence[object], key: str) -> Iterator[tuple[str, JsonObject]]:
    """The entries that are objects with a usable key, the first of each. A backend may have sent anything."""
    seen: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        value = entry.get(key)
        if isinstance(value, str) and value and value not in seen:
            seen.add(value)
            yield value, entry


def _kept(patterns: Sequence[str], *names: object) -> bool:
    """Whether a filter keeps something of these names: any pattern for any of them; no patterns keep everything."""
    if not patterns:
        return True
    return any(isinstance(name, str) and fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _definitions(routes: Mapping[str, Route]) -> tuple[JsonObject, ...]:
    return tuple(route.definition for route in routes.values())
