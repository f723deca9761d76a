"""The protocol of session stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..model import Secret, SessionRecord


class SessionStore(Protocol):
    """Session metadata, shared by all workers that use the same store.

    Every method is one atomic operation of the store, may do I/O, and is safe to cancel: it has then happened or not.
    All writes but `create` are conditional: they change nothing, and say so, when the session is no longer there. So a
    session that is deleted while it is being created never comes back, and two workers cannot revive each other's.
    Times are Unix seconds. Implementations hold ids and backend session ids as secrets and log neither.
    """

    async def create(self, record: SessionRecord) -> None:
        """Keep a new session. Raises `SessionExists` when its id is taken."""
        ...

    async def load(self, session_id: Secret[str]) -> SessionRecord | None:
        """The session's metadata, or None."""
        ...

    async def update_backend(self, session_id: Secret[str], backend: str, backend_session: Secret[str] | None) -> bool:
        """Note the backend session of one backend, or that there is none. Returns whether the session was there."""
        ...

    async def touch(self, session_id: Secret[str], used_at: float) -> bool:
        """Note a use; an earlier time than the known one changes nothing. Returns whether the session was there."""
        ...

    async def delete(self, session_id: Secret[str]) -> bool:
        """Forget a session. Returns whether it was there."""
        ...

    async def unused_since(self, moment: float) -> Sequence[Secret[str]]:
        """The sessions that were last used before this time."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files. The store is not used afterwards."""
        ...
