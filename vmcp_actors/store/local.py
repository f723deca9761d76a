"""Session metadata in this process's memory: the default, for a single worker."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import evolve

from ..errors import SessionExists
from ..model import Secret, SessionRecord


class MemoryStore:
    """A `SessionStore` that forgets everything with the process."""

    def __init__(self) -> None:
        self._records: dict[str, SessionRecord] = {}

    async def create(self, record: SessionRecord) -> None:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        key = record.session_id.reveal()
        if key in self._records:
            raise SessionExists("a session with this id exists already")
        self._records[key] = record

    async def load(self, session_id: Secret[str]) -> SessionRecord | None:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        return self._records.get(session_id.reveal())

    async def update_backend(self, session_id: Secret[str], backend: str, backend_session: Secret[str] | None) -> bool:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        record = self._records.get(session_id.reveal())
        if record is None:
            return False
        sessions = {name: session for name, session in record.backend_sessions.items() if name != backend}
        if backend_session is not None:
            sessions[backend] = backend_session
        self._records[session_id.reveal()] = evolve(record, backend_sessions=sessions)
        return True

    async def touch(self, session_id: Secret[str], used_at: float) -> bool:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        record = self._records.get(session_id.reveal())
        if record is None:
            return False
        self._records[session_id.reveal()] = evolve(record, last_used_at=max(record.last_used_at, used_at))
        return True

    async def delete(self, session_id: Secret[str]) -> bool:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        return self._records.pop(session_id.reveal(), None) is not None

    async def unused_since(self, moment: float) -> Sequence[Secret[str]]:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        return [record.session_id for record in self._records.values() if record.last_used_at < moment]

    async def aclose(self) -> None:
        """See `SessionStore`."""
        await trio.lowlevel.checkpoint()
        self._records.clear()

    def __repr__(self) -> str:
        return f"<MemoryStore: {len(self._records)} sessions>"
