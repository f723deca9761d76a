"""Keeps a `subscriptions/listen` request under way at a backend of the stateless revision (MCP 2026-07-28)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import trio
from attrs import define, field
from mcp.shared.exceptions import MCPError

from ..actors import Backoff
from ..errors import BackendError
from ..model import CatalogKind, JsonObject
from .discovery import CHANGED

logger = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT: Final = 1.0
"""Seconds that we wait for a new listen to be acknowledged before we go on without it, or give up the one before."""

_FILTERS: Final[Mapping[str, tuple[CatalogKind, ...]]] = {
    f"{capability}ListChanged": CHANGED[f"notifications/{capability}/list_changed"]
    for capability in ("tools", "prompts", "resources")
}

Send = Callable[[str, JsonObject, int], Awaitable[JsonObject]]
"""Sends a request under a given id, and tells the backend when it is cancelled. Raises `MCPError`, `BackendError`."""


@define(eq=False)
class _Listen:
    """One listen request: what it asks for, and what the backend has agreed to."""

    wanted: JsonObject
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    settled: trio.Event = field(factory=trio.Event)
    honoured: JsonObject | None = None
    refused: bool = False
    over: bool = False


class Listener:
    """Asks the backend to tell of changed lists, and of the resources that are watched.

    When what is asked for changes, a new listen takes over before the old one ends, so that nothing is missed. When
    one breaks off, another follows, and what may have changed meanwhile is listed again.
    """

    def __init__(
        self,
        backend: str,
        *,
        capabilities: JsonObject,
        send: Send,
        new_id: Callable[[], int],
        on_changed: Callable[[Iterable[str]], None],
    ) -> None:
        self._backend = backend
        self._send = send
        self._new_id = new_id
        self._on_changed = on_changed
        self._lists: JsonObject = {
            name: True for name in _FILTERS if _declares(capabilities, name.removesuffix("ListChanged"), "listChanged")
        }
        self._watched: set[str] = set()
        self._current: _Listen | None = None
        self._by_id: dict[int, _Listen] = {}
        self._refused = False
        self._gap = False
        self._news = trio.Event()

    # --- the task -----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled, or until the backend says that it does not offer this.

        Started when the first listen is acknowledged, or when that has taken too long.
        """
        backoff = Backoff(1.0, 60.0)
        async with trio.open_nursery() as nursery:
            while not self._refused:
                if self._current is not None and self._current.over:
                    self._gap = True
                    await trio.sleep(backoff.next_delay())
                    self._current = None
                wanted = self._wanted()
                if wanted != (self._current.wanted if self._current else {}):
                    await self._replace(_Listen(wanted) if wanted else None, nursery)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                if self._current is not None and self._current.honoured is not None:
                    backoff.reset()
                while self._wanted() == wanted and not (self._current is not None and self._current.over):
                    await self._news.wait()
            nursery.cancel_scope.cancel("the backend does not offer it")

    async def _replace(self, listen: _Listen | None, nursery: trio.Nursery) -> None:
        if listen is not None:
            nursery.start_soon(self._hold, listen)
            with trio.move_on_after(ACKNOWLEDGE_TIMEOUT):
                await listen.settled.wait()
            if listen.honoured is None:
                self._gap = True
        old, self._current = self._current, listen
        if old is not None:
            old.scope.cancel("another listen took over")
        self._tell()

    async def _hold(self, listen: _Listen) -> None:
        request_id = self._new_id()
        self._by_id[request_id] = listen
        try:
            with listen.scope:
                await self._send("subscriptions/listen", {"notifications": listen.wanted}, request_id)
        except MCPError as error:
            logger.info("backend %s does not let us listen: %s", self._backend, error)
            listen.refused = self._refused = True
        except BackendError as error:
            logger.debug("listening: %s", error)
        finally:
            del self._by_id[request_id]
            listen.over = True
            listen.settled.set()
            self._tell()

    def _wanted(self) -> JsonObject:
        return {**self._lists, "resourceSubscriptions": sorted(self._watched)} if self._watched else dict(self._lists)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- from the backend ---------------------------------------------------------------------------------------------

    def acknowledged(self, subscription: object, params: JsonObject) -> None:
        """The backend has agreed to (a part of) a listen."""
        listen = self._by_id.get(subscription) if isinstance(subscription, int) else None
        honoured = params.get("notifications")
        if listen is None or not isinstance(honoured, dict):
            return
        listen.honoured = honoured
        listen.settled.set()
        if self._gap:
            self._gap = False
            self._on_changed(kind for name in self._lists for kind in _FILTERS[name])
        self._tell()

    # --- for the link -------------------------------------------------------------------------------------------------

    async def watch(self, uri: str) -> bool:
        """Have the backend tell when a resource changes, until `unwatch`. Returns whether it will.

        Cancelling it watches nothing.
        """
        self._watched.add(uri)
        self._tell()
        watching = False
        try:
            while not self._refused:
                current = self._current
                if current is not None and current.honoured is not None and uri in _uris(current.wanted):
                    watching = uri in _uris(current.honoured)
                    break
                await self._news.wait()
        finally:
            if not watching:
                self.unwatch(uri)
        return watching

    def unwatch(self, uri: str) -> None:
        """The changes of a resource are of no interest any more."""
        self._watched.discard(uri)
        self._tell()

    def announces(self, kind: str) -> bool:
        """Whether the backend tells us when this list changes, so that what we have of it is right."""
        honoured = self._current.honoured if self._current is not None and not self._current.over else None
        return any(kind in kinds and (honoured or {}).get(name) is True for name, kinds in _FILTERS.items())

    def __repr__(self) -> str:
        state = "refused" if self._refused else "listening" if self._by_id else "not listening"
        return f"<Listener of {self._backend}: {state}, {len(self._watched)} resources watched>"


def _uris(notifications: JsonObject) -> list[object]:
    uris = notifications.get("resourceSubscriptions")
    return uris if isinstance(uris, list) else []


def _declares(capabilities: JsonObject, name: str, detail: str) -> bool:
    capability = capabilities.get(name)
    return isinstance(capability, dict) and bool(capability.get(detail))
