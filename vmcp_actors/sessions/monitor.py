"""Asks the backends now and then how they are, over the connections that sessions have to them anyway."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import trio

from ..settings import HealthSettings
from .session import Session


class HealthMonitor:
    """Pings each backend once an interval, over a connection of any session, and never lists anything.

    The backends are not asked at the same time, and not in step with other gateways. One that no session is connected
    to is not asked: its health is what calls and connection attempts have shown.
    """

    def __init__(
        self, settings: HealthSettings, *, backends: Iterable[str], sessions: Callable[[], Iterable[Session]]
    ) -> None:
        self._settings = settings
        self._backends = tuple(backends)
        self._sessions = sessions
        self._random = random.Random()  # noqa: S311  # spreads load, guards nothing

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            for backend in self._backends:
                nursery.start_soon(self._watch, backend)
            task_status.started()

    async def _watch(self, backend: str) -> None:
        interval = self._settings.check_interval
        await trio.sleep(interval * self._random.random())
        while True:
            sessions = [session for session in self._sessions() if not session.closing]
            self._random.shuffle(sessions)
            for session in sessions:
                if await session.ping_backend(backend, within=self._settings.check_timeout):
                    break
            await trio.sleep(interval * (0.9 + 0.2 * self._random.random()))
