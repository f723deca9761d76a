"""Keeps idle backend sessions from being forgotten, by a ping now and then (mission S15)."""

from __future__ import annotations

import logging
import random
from typing import Final

import trio

from .backend import BackendConnection

logger = logging.getLogger(__name__)

TIMEOUT: Final = 10.0
"""Seconds that a ping may take."""
FAILURES: Final = 3
"""Pings in a row without an answer, after which keepalive stops."""


class Keepalive:
    """Keepalive towards one backend, for all sessions.

    A connection that was not used for an interval is pinged. After `FAILURES` pings in a row without an answer this
    stops, for that backend: whatever is wrong with it, pings of every session do not mend it. One session at a
    time goes on asking, and when there is an answer, all do again. A ping that fails never hurts its connection.
    """

    def __init__(self, backend: str, interval: float) -> None:
        self._backend = backend
        self.interval = interval
        self._failures = 0
        self._asking: BackendConnection | None = None
        self._random = random.Random()  # noqa: S311  # spreads load, guards nothing

    @property
    def off(self) -> bool:
        """Whether it has stopped, but for the one that goes on asking."""
        return self._failures >= FAILURES

    async def run(self, connection: BackendConnection) -> None:
        """Keep one connection alive, until cancelled."""
        try:
            while True:
                idle = trio.current_time() - connection.last_used
                if idle < self.interval:
                    await trio.sleep((self.interval - idle) * (1 + self._random.random() / 10))
                    continue
                if connection.ready and self._may_ask(connection):
                    self._learn(await connection.ping(TIMEOUT))
                await trio.sleep(self.interval)
        finally:
            if self._asking is connection:
                self._asking = None

    def _may_ask(self, connection: BackendConnection) -> bool:
        if not self.off:
            return True
        if self._asking is None or not self._asking.ready:
            self._asking = connection
        return self._asking is connection

    def _learn(self, answered: bool) -> None:
        was_off = self.off
        self._failures = 0 if answered else self._failures + 1
        if self.off != was_off:
            logger.warning(
                "backend %s: keepalive is %s", self._backend, "off, it does not answer" if self.off else "on"
            )

    def __repr__(self) -> str:
        return f"<Keepalive of {self._backend}: {'off' if self.off else 'on'}, {self._failures} failures>"
