"""Server-sent events, without I/O: bytes in, events out, and back (WHATWG HTML §9.2).

Lines are split on bytes: no byte of a multi-byte UTF-8 character equals CR, LF or a colon, so a character that is cut
by a chunk boundary is put together again before it is decoded.

One deviation, for MCP: a block whose data is empty is never an event, even if it has a `data:` line. MCP servers open
a stream with such a block (the "priming event"), whose only purpose is its id.
"""

from __future__ import annotations

import re

from attrs import frozen

COMMENT_KEEPALIVE = b": keepalive\n\n"
"""What to send on a silent stream. Decoders skip it; proxies see traffic."""

_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = (0x0A, 0x0D)
_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


@frozen
class ServerSentEvent:
    """One event. `id` and `retry` (seconds) are what this very block said, None where it said nothing."""

    data: str
    event: str = "message"
    id: str | None = None
    retry: float | None = None


class EventDecoder:
    """Turns the chunks of one stream into events. How the bytes are cut into chunks makes no difference.

    A block that the stream's end cuts off is dropped, as the standard asks; there is nothing to call at the end.

    Args:
        max_event_bytes: the most that the data lines of one event, or any single line, may have.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_event",
        "_id",
        "_max_event_bytes",
        "_partial",
        "_partial_bytes",
        "_retry",
        "_size",
        "last_event_id",
        "retry",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self.last_event_id: str = ""
        """The id to resume after: the last one that a completed block set, "" if there is none."""
        self.retry: float | None = None
        """The last reconnection delay that the server asked for, in seconds."""
        self._max_event_bytes = max_event_bytes
        # The line that has no end yet, in pieces: joined once, so that many tiny chunks cost linear time.
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._after_cr = False
        self._at_start = True
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id: str | None = None
        self._retry: float | None = None

    def resumed(self) -> EventDecoder:
        """A decoder for the stream that continues this one: it knows the last id and the delay, and nothing else."""
        decoder = EventDecoder(self._max_event_bytes)
        decoder.last_event_id = self.last_event_id
        decoder.retry = self.retry
        return decoder

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that this chunk completes, in order.

        Raises:
            ValueError: an event is larger than `max_event_bytes`. The decoder is of no use afterwards.
        """
        if self._after_cr and chunk:
            # The CR ended its line already; an LF at the start of this chunk belongs to it.
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if not chunk:
            return []
        # On bytes, splitlines() knows exactly the three line ends of the standard.
        lines = chunk.splitlines()
        self._after_cr = chunk[-1] == 0x0D
        rest = b"" if chunk[-1] in _LINE_ENDS else lines.pop()
        events: list[ServerSentEvent] = []
        if lines:
            if self._partial:
                lines[0] = b"".join((*self._partial, lines[0]))
                self._partial.clear()
                self._partial_bytes = 0
            for line in lines:
                if line:
                    self._take_line(line)
                else:
                    self._end_block(events)
        if rest:
            self._partial.append(rest)
            self._partial_bytes += len(rest)
            self._check_size(self._partial_bytes)
        return events

    def _take_line(self, line: bytes) -> None:
        self._check_size(len(line))
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        colon = line.find(b":")
        name = line if colon < 0 else line[:colon]
        start = len(line) if colon < 0 else colon + 1 + line.startswith(b" ", colon + 1)
        if name == b"data":
            self._size += len(line)
            self._data.append(str(memoryview(line)[start:], "utf-8", "replace"))  # it may be large: no copy of it
            return
        value = line[start:]
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        # The length keeps an absurd number from costing a conversion; ten digits of milliseconds are 115 days.
        elif name == b"retry" and value.isdigit() and len(value) <= 10:
            self.retry = self._retry = int(value) / 1000

    def _end_block(self, events: list[ServerSentEvent]) -> None:
        self._at_start = False
        if self._id is not None:
            self.last_event_id = self._id
        data = "\n".join(self._data)
        if data:
            events.append(ServerSentEvent(data, self._event or "message", self._id, self._retry))
        self._data = []
        self._size = 0
        self._event = ""
        self._id = None
        self._retry = None

    def _check_size(self, line_bytes: int) -> None:
        # Only data lines add up: a stream may well send comments for days without a blank line.
        if self._size + line_bytes > self._max_event_bytes:
            raise ValueError(f"a server-sent event has more than {self._max_event_bytes} bytes")


def encode_event(
    data: bytes,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002  # the name of the field
    retry_ms: int | None = None,
) -> bytes:
    """One event as bytes, with the blank line that ends it.

    Line ends inside `data` arrive as LF, whatever they were. Empty data with an id makes a priming event.

    Raises:
        ValueError: `event` or `id` has a line end, `id` has a NUL, or `retry_ms` is negative: all of these would say
            something else to the decoder.
    """
    head = ""
    if event is not None:
        if "\n" in event or "\r" in event:
            raise ValueError("the name of a server-sent event may not have line ends")
        head = f"event: {event}\n"
    if id is not None:
        if "\n" in id or "\r" in id or "\0" in id:
            raise ValueError("the id of a server-sent event may not have line ends or NULs")
        head += f"id: {id}\n"
    if retry_ms is not None:
        if retry_ms < 0:
            raise ValueError("retry_ms may not be negative")
        head += f"retry: {retry_ms}\n"
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_ANY_LINE_END.split(data))
    return b"%bdata: %b\n\n" % (head.encode(), data)
