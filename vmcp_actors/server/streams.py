"""Bounded logs between a session and the event streams of its client, which can be resumed where they broke off.

MCP 2025-11-25, basic/transports §Resumability and Redelivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from ..model import Notice
from ..wire.messages import encode_notification
from ..wire.sse import COMMENT_KEEPALIVE, encode_event
from .http import EVENT_STREAM, Send

RETRY_MS: Final = 1000
"""How long a client is asked to wait before it resumes a stream that broke off."""


@frozen
class Entry:
    """One message of a stream: its place, its bytes, and what a slow reader may lose."""

    number: int
    data: bytes
    notice: Notice | None = None

    @property
    def droppable(self) -> bool:
        """Whether it may be dropped: progress and log messages."""
        return self.notice is not None and self.notice.droppable


@frozen
class LogStatistics:
    """A snapshot: messages kept, those of them not yet sent, dropped for a slow reader, and whether it has ended."""

    kept: int
    unsent: int
    dropped: int
    finished: bool


OnChange = Callable[["StreamLog", int, int], None]
"""Hears that a log keeps so many more messages, and so many more bytes; fewer where negative. Synchronous."""


class StreamLog:
    """The messages of one stream, in order. Putting never waits: a slow reader loses notices, not the session its time.

    When too many are unsent, progress and log messages are dropped first, oldest first. When there are none to drop,
    the reader is too slow for what it must not miss: the message is the last one, and the stream ends after it.

    Args:
        capacity: how many messages may be unsent.
        on_change: hears of what is kept.
        ends_when_full: otherwise a log that is full refuses what it cannot drop, and goes on.
    """

    def __init__(
        self,
        name: str,
        *,
        capacity: int,
        on_change: OnChange = lambda _, __, ___: None,
        ends_when_full: bool = True,
    ) -> None:
        self.name = name
        self._capacity = capacity
        self._on_change = on_change
        self._ends_when_full = ends_when_full
        self._entries: deque[Entry] = deque()
        self._wakeup = trio.Event()
        self._last = 0
        self._sent = 0
        self._unsent = 0
        self._dropped = 0
        self._finished = False
        self._break_off = False

    # --- for those who have something to say ------------------------------------------------------------------------

    def notify(self, notice: Notice) -> None:
        """Add a notification. One that says only that something changed is not added while the same one is waiting."""
        if notice.is_change and any(entry.notice == notice for entry in self.after(self._sent)):
            return
        self.put(encode_notification(notice.method, notice.params), notice)

    def put(self, data: bytes, notice: Notice | None = None) -> bool:
        """Add a message. Returns whether the stream has it: not if it has ended, or had no room."""
        if self._finished:
            return False
        full = self._unsent >= self._capacity and not self._drop_one()
        if full and ((notice is not None and notice.droppable) or not self._ends_when_full):
            self._dropped += 1
            return False
        self._last += 1
        self._unsent += 1
        self._entries.append(Entry(self._last, data, notice))
        self._wakeup.set()
        self._on_change(self, 1, len(data))
        if full:
            self.finish()
        return True

    def _drop_one(self) -> bool:
        for index, entry in enumerate(self._entries):
            if entry.number > self._sent and entry.droppable:
                self._dropped += 1
                self._remove(index)
                self._unsent -= 1
                return True
        return False

    def _remove(self, index: int) -> None:
        entry = self._entries[index]
        del self._entries[index]
        self._on_change(self, -1, -len(entry.data))

    def finish(self) -> None:
        """No more messages: readers end when they have sent what is there."""
        self._finished = True
        self._wakeup.set()

    def break_off(self) -> None:
        """Have the writer end its response now; the stream itself goes on, and the client comes back for the rest."""
        self._break_off = True
        self._wakeup.set()

    def wake(self) -> None:
        """Make `wait` return: something else than a message is there."""
        self._wakeup.set()

    # --- for the task that writes ------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until something was put, or `wake` or `finish` was called, since `take`."""
        await self._wakeup.wait()

    def take(self, cursor: int) -> list[Entry]:
        """The messages after a place; they count as sent."""
        entries = self.after(cursor)
        self._sent, self._unsent = self._last, 0
        if self._wakeup.is_set() and not self._finished:
            self._wakeup = trio.Event()  # one that is not set may have another reader of this stream waiting
        return entries

    def after(self, cursor: int) -> list[Entry]:
        """The messages after a place that are still kept."""
        return [entry for entry in self._entries if entry.number > cursor]

    def forget_oldest(self) -> bool:
        """Drop the oldest message that was sent. Returns whether there was one."""
        if self._entries and self._entries[0].number <= self._sent:
            self._remove(0)
            return True
        return False

    def withdraw_unsent(self) -> list[Entry]:
        """Take back what was not sent, for another stream."""
        unsent = self.after(self._sent)
        for _ in unsent:
            self._remove(len(self._entries) - 1)
        self._sent, self._unsent = self._last, 0
        return unsent

    def broken_off(self) -> bool:
        """Whether a writer is to end its response; asking takes the request back."""
        asked, self._break_off = self._break_off, False
        return asked

    @property
    def last(self) -> int:
        """The place of the newest message."""
        return self._last

    @property
    def empty(self) -> bool:
        """Whether nothing was ever put."""
        return self._last == 0

    @property
    def finished(self) -> bool:
        """Whether there will be no more messages."""
        return self._finished

    def statistics(self) -> LogStatistics:
        """A snapshot."""
        return LogStatistics(len(self._entries), self._unsent, self._dropped, self._finished)

    def __repr__(self) -> str:
        stats = self.statistics()
        return f"<StreamLog {self.name}: {stats.unsent} of {stats.kept} unsent, {stats.dropped} dropped>"


class EventWriter:
    """Writes a log as an event stream. Only the task of the HTTP request writes, never an actor.

    Args:
        keepalive: seconds of silence after which a comment is written.
        priming: begin with an event that only has an id, and let the stream break off to be resumed.
        numbered: events have ids.
    """

    def __init__(self, send: Send, *, keepalive: float, priming: bool = False, numbered: bool = True) -> None:
        self._send = send
        self._keepalive = keepalive
        self._priming = priming
        self._numbered = numbered

    async def write(self, log: StreamLog, cursor: int = 0) -> None:
        """Commit the response to an event stream, and write the log after a place until it has ended.

        The stream begins with an event that has an id and no data, so that it can be resumed from its beginning; not
        for clients of older revisions, which would take it for a message.
        """
        await self._send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        start = COMMENT_KEEPALIVE  # servers hold the headers back until there is some body
        if self._priming:
            start = encode_event(b"", id=f"{log.name}-{cursor}", retry_ms=RETRY_MS)
        await self._write(start)
        while True:
            entries = log.take(cursor)
            if entries:
                cursor = entries[-1].number
                await self._write(b"".join(self._encode(log, entry) for entry in entries))
                continue  # there may be more by now, of which another reader of the log was told
            if log.finished or (self._priming and log.broken_off()):
                break
            with trio.move_on_after(self._keepalive) as quiet:
                await log.wait()
            if quiet.cancelled_caught:
                await self._write(COMMENT_KEEPALIVE)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _encode(self, log: StreamLog, entry: Entry) -> bytes:
        return encode_event(entry.data, id=f"{log.name}-{entry.number}" if self._numbered else None)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
