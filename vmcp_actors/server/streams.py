"""Bounded outboxes between a session and the HTTP responses of its client, and event streams written from them."""

from __future__ import annotations

from collections import deque

import trio
from attrs import frozen

from ..model import Notice
from ..wire.messages import encode_notification
from ..wire.sse import COMMENT_KEEPALIVE, encode_event
from .http import EVENT_STREAM, Send


@frozen
class OutboxStatistics:
    """A snapshot: notices waiting, notices dropped because the reader is slow, and whether it was given up."""

    waiting: int
    dropped: int
    closed: bool


class Outbox:
    """Notices on their way to one response. Putting never waits: a slow reader loses notices, not the session its time.

    When it is full, progress and log messages are dropped first, oldest first. When there are none to drop the reader
    is too slow for what it must not miss, and the outbox closes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._notices: deque[Notice] = deque()
        self._wakeup = trio.Event()
        self._dropped = 0
        self._closed = False

    def put(self, notice: Notice) -> None:
        """Add a notice. A change notice that is already waiting is not added again."""
        if self._closed or (notice.params is None and notice in self._notices):
            return
        if len(self._notices) >= self._capacity and not self._make_room(notice):
            return
        self._notices.append(notice)
        self._wakeup.set()

    def _make_room(self, notice: Notice) -> bool:
        self._dropped += 1
        for waiting in self._notices:
            if waiting.droppable:
                self._notices.remove(waiting)
                return True
        if not notice.droppable:
            self.close()
        return False

    def wake(self) -> None:
        """Make `wait` return: something else than a notice is there."""
        self._wakeup.set()

    def close(self) -> None:
        """No more notices; the reader ends when it has sent what is waiting."""
        self._closed = True
        self._wakeup.set()

    async def wait(self) -> None:
        """Wait until something was put, or `wake` or `close` was called, since the last `take`."""
        await self._wakeup.wait()

    def take(self) -> list[Notice]:
        """All that is waiting, in order."""
        notices = list(self._notices)
        self._notices.clear()
        if not self._closed:
            self._wakeup = trio.Event()
        return notices

    @property
    def empty(self) -> bool:
        """Whether no notice is waiting."""
        return not self._notices

    @property
    def closed(self) -> bool:
        """Whether there will be no more notices."""
        return self._closed

    def statistics(self) -> OutboxStatistics:
        """A snapshot."""
        return OutboxStatistics(len(self._notices), self._dropped, self._closed)

    def __repr__(self) -> str:
        return f"<Outbox: {len(self._notices)} waiting, {self._dropped} dropped>"


class EventStream:
    """An event stream as the body of a response. Only the task of the request writes it, never an actor."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def open(self) -> None:
        """Commit the response to being an event stream."""
        await self._send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})

    async def message(self, data: bytes) -> None:
        """Write one JSON-RPC message."""
        await self._write(encode_event(data, event="message"))

    async def notices(self, notices: list[Notice]) -> None:
        """Write notices, all in one piece."""
        if notices:
            events = [encode_event(encode_notification(n.method, n.params), event="message") for n in notices]
            await self._write(b"".join(events))

    async def comment(self) -> None:
        """Write a comment, so that proxies and clients see that the stream lives."""
        await self._write(COMMENT_KEEPALIVE)

    async def close(self) -> None:
        """End the response."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


class ClientStreams:
    """The open GET streams of one session's client. Each notice goes to exactly one of them, the newest.

    While there is none, notices wait for the next, within bounds.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting = Outbox(capacity)
        self._open: list[Outbox] = []
        self._closed = False

    def put(self, notice: Notice) -> None:
        """Hand a notice to the client. Never waits."""
        for outbox in reversed(self._open):
            if not outbox.closed:
                outbox.put(notice)
                return
        self._waiting.put(notice)

    def open(self) -> Outbox:
        """Add a stream; what has been waiting goes to it."""
        outbox = Outbox(self._capacity)
        for notice in self._waiting.take():
            outbox.put(notice)
        if self._closed:
            outbox.close()
        self._open.append(outbox)
        return outbox

    def forget(self, outbox: Outbox) -> None:
        """A stream has ended; what it had not sent waits for the next."""
        self._open.remove(outbox)
        for notice in outbox.take():
            self.put(notice)

    def close(self) -> None:
        """The session is ending: so do its streams."""
        self._closed = True
        for outbox in self._open:
            outbox.close()

    def __repr__(self) -> str:
        return f"<ClientStreams: {len(self._open)} open, {self._waiting.statistics().waiting} notices waiting>"
