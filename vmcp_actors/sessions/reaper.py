"""Ends sessions that nobody uses any more (mission S12), or that are too many since the limit was lowered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..settings import SessionSettings
from ..store import SessionStore
from .session import Session

logger = logging.getLogger(__name__)

STORE_TIMEOUT: Final = 5.0
MAX_INTERVAL: Final = 5.0
"""Seconds between two rounds, at most. With short limits the rounds are shorter."""


class Reaper:
    """Looks at all sessions now and then. The settings are read anew in each round.

    Uses are noted in the store here and not at every call, so they are late by at most one round.
    """

    def __init__(
        self,
        *,
        sessions: Callable[[], Sequence[Session]],
        settings: Callable[[], SessionSettings],
        idle_timeouts: Callable[[], Sequence[float]],
        store: SessionStore,
        wall_clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._idle_timeouts = idle_timeouts
        self._store = store
        self._wall_clock = wall_clock

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go round until cancelled."""
        task_status.started()
        while True:
            interval = self._interval()
            await trio.sleep(interval)
            sessions, settings = self._sessions(), self._settings()
            for session, reason in [*self._expired(sessions, settings), *self._evicted(sessions, settings)]:
                session.request_close(reason, drain=settings.drain_timeout)
            for session in sessions:
                if session.since_use < interval and not session.closing:
                    await self._note_use(session)

    def _interval(self) -> float:
        limits = (self._settings().ttl, *self._idle_timeouts())
        return min(MAX_INTERVAL, *(limit / 4 for limit in limits))

    @staticmethod
    def _expired(sessions: Sequence[Session], settings: SessionSettings) -> list[tuple[Session, str]]:
        expired = []
        for session in sessions:
            if session.closing:
                continue
            if session.idle is not None and session.idle >= session.idle_timeout:
                expired.append((session, "idle"))
            elif session.since_use >= settings.ttl:
                expired.append((session, "lifetime"))
        return expired

    @staticmethod
    def _evicted(sessions: Sequence[Session], settings: SessionSettings) -> list[tuple[Session, str]]:
        """The longest idle ones of those that are too many. What is in use stays."""
        there = [session for session in sessions if not session.closing]
        idle = [(session.idle, session) for session in there if session.idle is not None]
        idle.sort(key=lambda pair: pair[0], reverse=True)
        return [(session, "evicted") for _, session in idle[: max(0, len(there) - settings.max_sessions)]]

    async def _note_use(self, session: Session) -> None:
        """A store that fails or hangs costs the note, not the sessions."""
        with trio.move_on_after(STORE_TIMEOUT):
            try:
                await self._store.touch(session.id, self._wall_clock() - session.since_use)
            except Exception:
                logger.exception("%s: its use was not noted in the store", session.name)

    def __repr__(self) -> str:
        return f"<Reaper of {len(self._sessions())} sessions>"
