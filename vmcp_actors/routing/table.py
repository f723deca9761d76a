"""The routing table: advertised name → backend and the backend's own name. Immutable; replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

from attrs import evolve, field, frozen
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

from ..errors import InvalidParams, UnknownPrompt, UnknownResource, UnknownTool
from ..model import JsonObject

NAMESPACE = "vmcp://"
"""Under `vmcp://{backend}/{uri}` every backend's resources are reachable, also those whose URI another one has too."""

# Matching takes time in the product of these, inside the event loop; beyond them a template matches nothing.
MAX_TEMPLATE_LENGTH = 2048
MAX_TEMPLATE_VARIABLES = 32
MAX_URI_LENGTH = 8192


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
        backends: all backends whose catalogs are in it.
        owners: the backends that offer any resource or template.
        filtered: the backends of which only what a filter keeps can be read.
        renamed_uris: (backend, its URI) → the advertised URI, where they differ.
        conflicts: how many names and URIs had to give way to another's.
        sole: the backend, if it is the only one there is and all of it is advertised, and the prefix of its names. What
            is not listed is then its own to know or to refuse, as without a gateway.
    """

    tools: Mapping[str, Route] = field(factory=dict)
    prompts: Mapping[str, Route] = field(factory=dict)
    resources: Mapping[str, Route] = field(factory=dict)
    resource_templates: Mapping[str, Route] = field(factory=dict)
    backends: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    filtered: frozenset[str] = frozenset()
    renamed_uris: Mapping[tuple[str, str], str] = field(factory=dict)
    conflicts: int = 0
    sole: tuple[str, str] | None = None
    tool_definitions: tuple[JsonObject, ...] = ()
    prompt_definitions: tuple[JsonObject, ...] = ()
    resource_definitions: tuple[JsonObject, ...] = ()
    resource_template_definitions: tuple[JsonObject, ...] = ()

    def tool(self, name: str) -> Route:
        """The route of a tool. Raises `UnknownTool`."""
        route = self.tools.get(name) or self._unlisted(name)
        if route is None:
            raise UnknownTool(f"Unknown tool: {name}" + ("" if self.tools else " (this session has no tools)"))
        return route

    def prompt(self, name: str) -> Route:
        """The route of a prompt. Raises `UnknownPrompt`."""
        route = self.prompts.get(name) or self._unlisted(name)
        if route is None:
            raise UnknownPrompt(f"Unknown prompt: {name}")
        return route

    def _unlisted(self, name: str) -> Route | None:
        if self.sole is None or not name.startswith(self.sole[1]):
            return None
        backend, prefix = self.sole
        return Route(backend, name.removeprefix(prefix), {"name": name})

    def resource(self, uri: str) -> Route:
        """The route for a URI: of a listed resource, in the namespace of a backend, of a template that fits it.

        A URI that nobody lists goes to the one backend with resources, if there is just one: it may have unlisted ones.

        Raises:
            UnknownResource: none of these.
        """
        route = self._find_resource(uri)
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
        """The URI under which clients reach a backend's resource: its own, unless that leads elsewhere.

        `resource` leads from it to the same backend and URI. The URI itself for a backend that is not in the table.
        """
        if (backend, uri) in self.renamed_uris:
            return self.renamed_uris[backend, uri]
        route = self._find_resource(uri)
        leads_there = route is not None and (route.backend, route.original) == (backend, uri)
        return uri if leads_there or backend not in self.backends else namespaced(backend, uri)

    def _find_resource(self, uri: str) -> Route | None:
        route = self.resources.get(uri) or self._in_namespace(uri) or self._by_template(uri)
        if route is None and len(self.owners) == 1:
            (backend,) = self.owners
            return Route(backend, uri, {"uri": uri}) if backend not in self.filtered else None
        return route

    def _in_namespace(self, uri: str) -> Route | None:
        if not uri.startswith(NAMESPACE):
            return None
        quoted, slash, original = uri.removeprefix(NAMESPACE).partition("/")
        backend = unquote(quoted)
        if not slash or backend not in self.backends:
            return None
        if backend in self.filtered and not self._offers(backend, original):
            return None
        return Route(backend, original, {"uri": uri})

    def _offers(self, backend: str, uri: str) -> bool:
        """Whether a backend's own URI is one that its filter keeps, or comes from a template that it keeps."""
        resources = (route for route in self.resources.values() if route.backend == backend)
        templates = (route for route in self.resource_templates.values() if route.backend == backend)
        return any(route.original == uri for route in resources) or any(
            uri == route.original or template_matches(route.original, uri) for route in templates
        )

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
    return f"{NAMESPACE}{quote(backend, safe='')}/{uri}"


def template_matches(template: str, uri: str) -> bool:
    """Whether a URI may come from a template (RFC 6570). One that cannot be read matches nothing."""
    parsed = _parse(template)
    return parsed is not None and parsed.match(uri, max_uri_length=MAX_URI_LENGTH) is not None


@lru_cache(maxsize=1024)
def _parse(template: str) -> UriTemplate | None:
    try:
        return UriTemplate.parse(template, max_length=MAX_TEMPLATE_LENGTH, max_variables=MAX_TEMPLATE_VARIABLES)
    except InvalidUriTemplate:
        return None
