"""Finds the end of an HTTP response, and little else: a load generator that parsed more would measure itself."""

from __future__ import annotations

from typing import Final

from attrs import frozen

SEARCHED: Final = 2048
"""Bytes at either end of a body in which its members are looked for: what lies between is a large result."""


@frozen
class Answer:
    """One HTTP response.

    Attributes:
        head: from the status line on, as it came.
        closes: whether the server closes the connection after it.
    """

    status: int
    head: bytes
    body: bytes
    closes: bool = False

    def header(self, name: bytes) -> bytes | None:
        """The value of a header."""
        start = self.head.lower().find(b"\r\n" + name + b":")
        if start < 0:
            return None
        return self.head[start + len(name) + 3 :].partition(b"\r\n")[0].strip()

    def fault(self, request_id: bytes) -> str | None:
        """Why this is not the result of the request with this id; None when it is. Empty ids are not looked for."""
        body = self.body
        if len(body) > 2 * SEARCHED:
            body = body[:SEARCHED] + body[-SEARCHED:]
        if self.status != 200 or b'"error":' in body or b'"isError":true' in body or b'"isError": true' in body:
            return f"HTTP {self.status}: {self.body[:300]!r}"
        if b'"result":' not in body:
            return f"no result: {self.body[:300]!r}"
        if request_id not in body:
            return f"the answer to another request: {self.body[:300]!r}"
        return None


class Scanner:
    """Takes the bytes of one response after the other, as they come."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._head: bytes | None = None
        self._rest = b""
        self._parts: list[bytes] = []
        self._left: int | None = None
        self._chunked = False
        self._closes = False

    @property
    def begun(self) -> bool:
        """Whether a part of a response has come."""
        return self._head is not None or bool(self._rest)

    @property
    def wanted(self) -> int:
        """How much there is to come at least, as far as is known."""
        return self._left or 0

    def feed(self, data: bytes) -> Answer | None:
        """Take some bytes. Returns the response when it is complete."""
        if self._head is None:
            data = self._rest + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return None
            self._rest = b""
            self._begin(data[:end])
            data = data[end + 4 :]
        return self._dechunk(data) if self._chunked else self._measure(data)

    def end(self) -> Answer | None:
        """The connection was closed. Returns the response if that is what ends it."""
        if self._head is None or self._chunked or self._left is not None:
            return None
        return self._complete()

    def _begin(self, head: bytes) -> None:
        self._head = head
        head = head.lower()
        position = head.find(b"\r\ncontent-length:")
        if position >= 0:
            self._left = int(head[position + 17 :].partition(b"\r\n")[0])
        elif head[9:12] in (b"202", b"204"):
            self._left = 0
        self._closes = b"\r\nconnection: close" in head
        self._chunked = b"\r\ntransfer-encoding: chunked" in head or b"\r\ntransfer-encoding:chunked" in head

    def _measure(self, data: bytes) -> Answer | None:
        if data:
            self._parts.append(data)
        if self._left is None:
            return None
        self._left -= len(data)
        return self._complete() if self._left <= 0 else None

    def _dechunk(self, data: bytes) -> Answer | None:
        """`_left` counts what is missing of a chunk and of the line end after it."""
        data = self._rest + data
        self._rest = b""
        while data:
            if self._left:
                if self._left > 2:
                    self._parts.append(data[: self._left - 2])
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            line, found, after = data.partition(b"\r\n")
            if not found:
                self._rest = data
                break
            size = int(line.partition(b";")[0], 16)
            if not size:
                # Trailers are not looked for: nobody here sends any. Only the empty line is missing.
                if after.startswith(b"\r\n"):
                    return self._complete()
                self._rest = data
                break
            self._left = size + 2
            data = after
        return None

    def _complete(self) -> Answer:
        assert self._head is not None
        answer = Answer(int(self._head[9:12]), self._head, b"".join(self._parts), self._closes)
        self._reset()
        return answer
