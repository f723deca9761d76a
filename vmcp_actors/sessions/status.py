"""How a backend connection looks from outside: its state, a snapshot of it, and what it tells its session."""

from __future__ import annotations

import enum
from typing import Protocol

from attrs import frozen

from ..model import JsonObject, Notice, PendingAnswer


class ConnectionState(enum.Enum):
    """Where a backend connection is in its life."""

    CONNECTING = "connecting"
    READY = "ready"
    WAITING = "waiting"
    UNAVAILABLE = "unavailable"
    CLOSED = "closed"


class ConnectionEvents(Protocol):
    """What a connection tells its session. Synchronous."""

    def backend_changed(self, name: str, announced: str | None = None) -> None:
        """The state, the catalog or the backend session of this connection is another one now.

        `announced` is the list of which the backend itself has said that it changed.
        """
        ...

    def backend_notice(self, name: str, notice: Notice) -> None:
        """The backend sent a notification that belongs to no request."""
        ...

    def backend_asks(self, method: str, params: JsonObject) -> PendingAnswer:
        """The backend asks the client something that belongs to no request. Raises `ClientUnreachable`."""
        ...


@frozen
class ConnectionStatistics:
    """A snapshot of a backend connection. `next_try` is in seconds from now, None when there is none planned.

    `era` is the kind of revision that was agreed when it was last connected, None before.
    """

    backend: str
    state: str
    era: str | None
    tools: int
    running_calls: int
    handled_calls: int
    connects: int
    reason: str | None
    next_try: float | None
