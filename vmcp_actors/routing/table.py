"""The routing table: advertised name → backend and the backend's own name. Immutable; replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from attrs import evolve, field, frozen
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

from ..errors import InvalidParams, UnknownPrompt, UnknownResource, UnknownTool
from ..model import JsonObject

NAMESPACE = "vmcp://"
"""Under `vmcp://{backend}/{uri}` every backend's resources are reachable, also those whose URI another one has too."""


@frozen
class Route:
    """Where a request goes: the backend, its own name or URI, and the definition as it is advertised."""

    backend: str
    original: str
    definition: JsonObject


@frozen
class TableStatistics:
    """A snapshot of a table."""

    tools: int
    prompts: int
    resources: int
    resource_templates: int
    conflicts: int


@frozen(repr=False)
class RoutingTable:
    """Routes by advertised name. The definitions are in the order of listing: by backend, then as the backend has them.

    Attributes:
        owners: the backends that offer any resource or template.
        renamed_uris: (backend, its URI) → the advertised URI, where they differ.
        conflicts: how many clashes had to be settled to make it.
    """

    tools: Mapping[str, Route] = field(factory=dict)
    prompts: Mapping[str, Route] = field(factory=dict)
    resources: Mapping[str, Route] = field(factory=dict)
    resource_templates: Mapping[str, Route] = field(factory=dict)
    owners: frozenset[str] = frozenset()
    renamed_uris: Mapping[tuple[str, str], str] = field(factory=dict)
    conflicts: int = 0
    tool_definitions: tuple[JsonObject, ...] = ()
    prompt_definitions: tuple[JsonObject, ...] = ()
    resource_definitions: tuple[JsonObject, ...] = ()
    resource_template_definitions: tuple[JsonObject, ...] = ()

    def tool(self, name: str) -> Route:
        """The route of a tool. Raises `UnknownTool`."""
        route = self.tools.get(name)
        if route is None:
            raise UnknownTool(f"Unknown tool: {name}")
        return route

    def prompt(self, name: str) -> Route:
        """The route of a prompt. Raises `UnknownPrompt`."""
        route = self.prompts.get(name)
        if route is None:
            raise UnknownPrompt(f"Unknown prompt: {name}")
        return route

    def resource(self, uri: str) -> Route:
        """The route for a URI: of a listed resource, in the namespace of a backend, of a template that fits it.

        A URI that nobody lists goes to the one backend with resources, if there is just one: it may have unlisted ones.

        Raises:
            UnknownResource: none of these.
        """
        route = self.resources.get(uri) or self._in_namespace(uri) or self._by_template(uri)
        if route is None and len(self.owners) == 1:
            (backend,) = self.owners
            route = Route(backend, uri, {"uri": uri})
        if route is None:
            raise UnknownResource(f"Resource not found: {uri}")
        return route

    def completion(self, reference: JsonObject) -> tuple[Route, JsonObject]:
        """The route for the reference of a completion, and the reference in the backend's own terms.

        Raises:
            InvalidParams: it is no reference. `UnknownPrompt`, `UnknownResource`: it refers to nothing.
        """
        kind, name, uri = reference.get("type"), reference.get("name"), reference.get("uri")
        if kind == "ref/prompt" and isinstance(name, str):
            route = self.prompt(name)
            return route, {**reference, "name": route.original}
        if kind == "ref/resource" and isinstance(uri, str):
            route = self.resource_templates.get(uri) or self.resource(uri)
            return route, {**reference, "uri": route.original}
        raise InvalidParams("completion/complete: ref must be a ref/prompt with a name or a ref/resource with a uri")

    def advertised_uri(self, backend: str, uri: str) -> str:
        """The URI under which clients know a backend's resource; the URI itself where it was not changed."""
        return self.renamed_uris.get((backend, uri), uri)

    def _in_namespace(self, uri: str) -> Route | None:
        if not uri.startswith(NAMESPACE):
            return None
        backend, slash, original = uri.removeprefix(NAMESPACE).partition("/")
        if not slash or backend not in self.owners:
            return None
        return Route(backend, original, {"uri": uri})

    def _by_template(self, uri: str) -> Route | None:
        for route in self.resource_templates.values():
            if template_matches(route.original, uri):
                return evolve(route, original=uri)
        return None

    def statistics(self) -> TableStatistics:
        """Counts."""
        return TableStatistics(
            tools=len(self.tools),
            prompts=len(self.prompts),
            resources=len(self.resources),
            resource_templates=len(self.resource_templates),
            conflicts=self.conflicts,
        )

    def __repr__(self) -> str:
        counts = self.statistics()
        return (
            f"<RoutingTable: {counts.tools} tools, {counts.prompts} prompts, {counts.resources} resources, "
            f"{counts.resource_templates} templates, {counts.conflicts} conflicts settled>"
        )


def namespaced(backend: str, uri: str) -> str:
    """A backend's URI in the backend's own namespace."""
    return f"{NAMESPACE}{backend}/{uri}"


def template_matches(template: str, uri: str) -> bool:
    """Whether a URI may come from a template (RFC 6570). A template that cannot be read matches nothing."""
    parsed = _parse(template)
    return parsed is not None and parsed.match(uri) is not None


@lru_cache(maxsize=1024)
def _parse(template: str) -> UriTemplate | None:
    try:
        return UriTemplate.parse(template)
    except InvalidUriTemplate:
        return None
