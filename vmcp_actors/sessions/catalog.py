"""Keeps what we know of a backend's lists right: listed at the start, and again when the backend says so (S16)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from ..errors import BackendError
from ..model import EMPTY_CATALOG, Catalog, Freshness, JsonObject
from .discovery import Send, discover, relist

logger = logging.getLogger(__name__)

COALESCE = 0.05
"""Seconds to wait after a `list_changed` for more of them, before listing again."""
RELIST_DELAY = 5.0
"""Seconds after which a list that could not be had is asked for again."""


class CatalogKeeper:
    """The catalog of one connection.

    Args:
        send: sends a request of our own to the backend; raises `MCPError` or `BackendError`.
        timeout: seconds that listing one kind may take.
        on_listed: hears of every new catalog, and which list the backend had said to be changed. Synchronous.
        usable: drops the entries that cannot be used over this connection.
    """

    def __init__(
        self,
        backend: str,
        send: Send,
        *,
        timeout: float,
        on_listed: Callable[[Catalog, str | None], None],
        usable: Callable[[Catalog], Catalog],
    ) -> None:
        self.catalog = EMPTY_CATALOG
        self._backend = backend
        self._send = send
        self._timeout = timeout
        self._on_listed = on_listed
        self._usable = usable
        self._dirty: set[str] = set()
        self._has_dirty = trio.Event()
        self._listed_at: dict[str, float] = {}
        self._refreshing: dict[str, trio.Event] = {}

    async def discover(self, capabilities: JsonObject) -> None:
        """List everything. Raises `BackendError`."""
        self.catalog = self._usable(await discover(self._backend, self._send, capabilities))
        self._listed_at = dict.fromkeys(self.catalog.freshness, trio.current_time())

    def list_again(self, kinds: Iterable[str]) -> None:
        """The backend has said, or may have said unheard, that these lists changed. Synchronous."""
        self._dirty.update(kinds)
        self._has_dirty.set()

    async def run(self) -> None:
        """List again what has changed: only that, and once for many notices. Until cancelled."""
        while True:
            await self._has_dirty.wait()
            await trio.sleep(COALESCE)
            kinds, self._dirty, self._has_dirty = self._dirty, set(), trio.Event()
            for kind in sorted(kinds):
                failure = await self._relist(kind, announced=kind)
                if failure is not None:
                    logger.warning("backend %s: %s could not be listed again: %s", self._backend, kind, failure)
                    await trio.sleep(RELIST_DELAY)
                    self.list_again({kind})

    async def refresh(self, kind: str, *, even_if_fresh: bool = False) -> None:
        """List one kind again if its time is over. Raises nothing: if it cannot be had, the old one stays.

        Many that ask at the same time cause one request.
        """
        freshness = self.catalog.freshness.get(kind, Freshness())  # type: ignore[call-overload]  # any kind will do
        age = trio.current_time() - self._listed_at.get(kind, -float("inf"))
        if not even_if_fresh and age * 1000 < freshness.ttl_ms:
            return
        if kind in self._refreshing:
            await self._refreshing[kind].wait()
            return
        self._refreshing[kind] = trio.Event()
        try:
            failure = await self._relist(kind)
            if failure is not None:
                logger.info("backend %s: %s could not be listed again: %s", self._backend, kind, failure)
        finally:
            self._refreshing.pop(kind).set()

    async def _relist(self, kind: str, *, announced: str | None = None) -> str | None:
        """One list anew. If that fails the old one stays; returns why."""
        with trio.move_on_after(self._timeout):
            try:
                listed = await relist(self._backend, self._send, self.catalog, kind)
            except BackendError as error:
                return error.reason
            self.catalog = self._usable(listed)
            self._listed_at[kind] = trio.current_time()
            self._on_listed(self.catalog, announced)
            return None
        return f"no answer within {self._timeout:g} s"

    def __repr__(self) -> str:
        return f"<CatalogKeeper of {self._backend}: {len(self.catalog.tools)} tools, {len(self._dirty)} lists to renew>"
