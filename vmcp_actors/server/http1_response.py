"""Responses of HTTP/1.1, out of what an ASGI application sends."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import trio

from ..transports.tcp import TcpStream
from .http1_request import Request

PIECE: Final = 256 * 1024
"""Bytes that are written at a time: each has `timeout` seconds to be taken."""

_UNSAFE: Final = re.compile(rb"[\r\n\0]")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class Response:
    """The `send` of ASGI for one request. A client that is gone, or does not read, is written to no more.

    Attributes:
        started, complete: whether its head, and all of it, has been sent.
        broken: it cannot be completed any more.
        keeps_connection: whether another may follow on the connection.
    """

    def __init__(self, stream: trio.abc.SendStream, request: Request, *, close: bool, timeout: float) -> None:
        self.request = request
        self.started = False
        self.complete = False
        self.broken = False
        self.keeps_connection = request.keep_alive and not close
        self._stream = stream
        self._timeout = timeout
        self._head = b""
        self._status = 0
        self._length: int | None = None
        self._chunked = False
        self._waiters: set[trio.CancelScope] = set()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        """Take an event of ASGI. Does nothing when there is nobody to send to.

        Raises:
            RuntimeError: an event that cannot come now.
            ValueError: a header that would break out of the head, or a body of another length than announced.
        """
        match event["type"]:
            case "http.response.start" if not self._status:
                self._begin(event["status"], event.get("headers", ()))
            case "http.response.body" if self._status and not self.complete:
                await self._body(event.get("body", b""), more=event.get("more_body", False))
            case kind:
                raise RuntimeError(f"{kind} cannot be sent now")

    def _begin(self, status: int, headers: Any) -> None:
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()]
        names = set()
        for name, value in headers:
            line = b"%b: %b" % (name, value)
            if _UNSAFE.search(line):
                raise ValueError(f"the header {name!r} has a line end in it")
            lines.append(line + b"\r\n")
            known = name.lower()
            names.add(known)
            if known == b"content-length":
                self._length = int(value)
        if b"date" not in names:
            lines.append(_date_line(int(time.time())))
        self._status = status
        self._head = b"".join(lines)

    async def _body(self, body: bytes, *, more: bool) -> None:
        opening = b"" if self.started else self._opening(more=more, length=len(body))
        data = self._framed(body, more=more)
        self.started = True
        self.complete = not more
        if len(data) <= PIECE:
            await self._write(opening + data)
        else:
            await self._write(opening)
            for start in range(0, len(data), PIECE):
                await self._write(memoryview(data)[start : start + PIECE])
        if self.complete:
            for waiter in self._waiters:
                waiter.cancel("the response is complete")

    def _opening(self, *, more: bool, length: int) -> bytes:
        """The head, and how the end of the body can be told. RFC 9112 §6."""
        lines = [self._head]
        if self._bodiless and self.request.method != "HEAD":
            pass
        elif self._length is None and not more:
            lines.append(b"content-length: %d\r\n" % length)
        elif self._length is None and self.request.version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        elif self._length is None:
            self.keeps_connection = False
        if not self.request.complete:
            self.keeps_connection = False  # what is left of its body cannot be told from another request
        if not self.keeps_connection:
            lines.append(b"connection: close\r\n")
        elif self.request.version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        return b"".join(lines) + b"\r\n"

    @property
    def _bodiless(self) -> bool:
        return self.request.method == "HEAD" or self._status in (204, 304) or self._status < 200

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._bodiless:
            return b""
        if self._length is not None:
            self._length -= len(body)
            if self._length < 0 or (self._length and not more):
                self.broken = True
                raise ValueError("the body has another length than was announced")
        if not self._chunked:
            return body
        end = b"" if more else b"0\r\n\r\n"
        return b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end

    async def _write(self, data: bytes | memoryview) -> None:
        """Write, or find out that nobody takes it."""
        if self.broken:
            await trio.lowlevel.checkpoint()
            return
        try:
            sent = self._stream.send_nowait(data) if isinstance(self._stream, TcpStream) else 0
            if sent == len(data):
                await trio.lowlevel.checkpoint_if_cancelled()
                return
            with trio.move_on_after(self._timeout) as taking:
                await self._stream.send_all(memoryview(data)[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._break()
        else:
            if taking.cancelled_caught:
                self._break()

    def _break(self) -> None:
        self.broken = True
        for waiter in self._waiters:
            waiter.cancel("the client is gone")

    @contextmanager
    def open_for_waiting(self) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled when the response is complete, or cannot be completed any more."""
        scope = trio.CancelScope()
        self._waiters.add(scope)
        if self.complete or self.broken:
            scope.cancel("the response is over")
        try:
            yield scope
        finally:
            self._waiters.discard(scope)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "broken" if self.broken else "under way" if self.started else "begun"
        return f"<Response to {self.request.method} {self.request.target!r}: {self._status} {state}>"


@lru_cache(maxsize=1)
def _date_line(now: int) -> bytes:
    """The Date header, RFC 9110 §6.6.1; made once a second."""
    return f"date: {formatdate(now, usegmt=True)}\r\n".encode()
