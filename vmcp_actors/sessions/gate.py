"""Bounds how many backends are being connected at once."""

from __future__ import annotations

import trio


class ConnectGate:
    """Bounds how many backends are being connected: in one session, and in the whole process (mission S4)."""

    def __init__(self, session: trio.CapacityLimiter, process: trio.CapacityLimiter) -> None:
        self._limiters = (session, process)

    async def enter(self) -> None:
        """Wait for a place. Cancelling it takes none."""
        first, second = self._limiters
        await first.acquire()
        try:
            await second.acquire()
        except BaseException:
            first.release()
            raise

    def leave(self) -> None:
        """Give the place back; from the task that entered."""
        for limiter in reversed(self._limiters):
            limiter.release()

    def __repr__(self) -> str:
        session, process = self._limiters
        return f"<ConnectGate: {session.borrowed_tokens} in the session, {process.borrowed_tokens} in the process>"
