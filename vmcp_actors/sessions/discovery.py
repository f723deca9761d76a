"""Lists what a backend offers, following its pages to the end (mission A4)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND

from ..errors import BackendUnavailable
from ..model import EMPTY_CATALOG, Catalog, CatalogKind, Freshness, JsonObject

logger = logging.getLogger(__name__)

MAX_PAGES = 1000

Send = Callable[[str, JsonObject | None], Awaitable[JsonObject]]
"""Sends a request to the backend; raises `MCPError` or `BackendError`."""

_LISTS: Final[Mapping[CatalogKind, tuple[str, str]]] = {
    "tools": ("tools/list", "tools"),
    "resources": ("resources/list", "resources"),
    "resource_templates": ("resources/templates/list", "resourceTemplates"),
    "prompts": ("prompts/list", "prompts"),
}

_KINDS_OF_CAPABILITY: Final[Mapping[str, tuple[CatalogKind, ...]]] = {
    "tools": ("tools",),
    "resources": ("resources", "resource_templates"),
    "prompts": ("prompts",),
}

CHANGED: Final[Mapping[str, tuple[CatalogKind, ...]]] = {
    f"notifications/{capability}/list_changed": kinds for capability, kinds in _KINDS_OF_CAPABILITY.items()
}
"""What has to be listed again after which notification."""


async def discover(backend: str, send: Send, capabilities: JsonObject) -> Catalog:
    """List everything that the backend declares. Raises `BackendError`."""
    catalog = EMPTY_CATALOG
    for capability, kinds in _KINDS_OF_CAPABILITY.items():
        if capability in capabilities:
            for kind in kinds:
                catalog = await relist(backend, send, catalog, kind)
    return catalog


async def relist(backend: str, send: Send, catalog: Catalog, kind: str) -> Catalog:
    """The catalog with one kind listed anew. Raises `BackendError`."""
    known: CatalogKind = kind  # type: ignore[assignment]  # a key of _LISTS
    method, member = _LISTS[known]
    try:
        return catalog.with_kind(known, *await _list_all(backend, send, method, member))
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND:
            # Servers that declare a capability without all of its lists are common (resources without templates).
            return catalog.with_kind(known, ())
        raise BackendUnavailable(backend, f"{method} failed: {error.message}") from error


async def _list_all(backend: str, send: Send, method: str, member: str) -> tuple[tuple[JsonObject, ...], Freshness]:
    items: list[JsonObject] = []
    freshness: Freshness | None = None
    seen: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await send(method, {"cursor": cursor} if cursor is not None else None)
        freshness = Freshness.of(page) & freshness if freshness is not None else Freshness.of(page)
        entries = page.get(member)
        if isinstance(entries, list):
            items += [entry for entry in entries if isinstance(entry, dict)]
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str):
            return tuple(items), freshness
        if cursor in seen:
            logger.warning("backend %s: %s comes back to a page it had given; the list ends there", backend, method)
            return tuple(items), freshness
        seen.add(cursor)
    logger.warning("backend %s: %s has more than %d pages; the rest is left out", backend, method, MAX_PAGES)
    return tuple(items), Freshness()
