"""The connections to one origin: which one a request goes over, and which are kept."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

import trio
from attrs import frozen

from .http1 import HttpConnection, Response
from .http1_messages import ConnectFailed, ConnectionBroken, encode_head, finish_request
from .origin import Origin, close_stream, describe, open_stream


@frozen
class PoolStatistics:
    """What a pool has done and what it holds. `active` connections have a response that is not complete."""

    opened: int
    reused: int
    idle: int
    active: int


class HttpPool:
    """Connections to one origin: an idle one is used again, the latest first, otherwise a new one is opened.

    There is no limit to the connections in use: who admits requests limits those.

    Args:
        origin: where requests go.
        connect: opens a stream, instead of TCP or TLS to `origin`; see `close_stream` for the streams that will do.
        ssl_context: for https; by default `shared_ssl_context()`.
        connect_timeout: seconds for opening a connection, with TLS.
        max_idle: how many idle connections are kept; the one that was idle longest goes first.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        connect: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = 5.0,
        max_idle: int = 16,
    ) -> None:
        self.origin = origin
        self._connect = connect
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._max_idle = max_idle
        self._idle: deque[HttpConnection] = deque()
        self._active: set[HttpConnection] = set()
        self._latest: tuple[tuple[str, str, tuple[tuple[bytes, bytes], ...]], bytes] | None = None
        self._opened = 0
        self._reused = 0
        self._closed = False

    async def request(
        self, method: str, target: str, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes | None = None
    ) -> Response:
        """Send a request and wait for the headers of its response, which then owns the connection.

        A kept connection that turns out to be closed before it accepted a byte is replaced silently; nothing else is
        ever sent twice. If cancelled, the connection is closed; the request may or may not have been delivered.

        Raises:
            ValueError: see `encode_request`.
            ConnectFailed: no connection; nothing was sent.
            ConnectionBroken: see its `request_sent`.
            BadResponse: the answer is not HTTP/1.1 or too large.
        """
        data = finish_request(self._head(method, target, tuple(headers)), method, body)
        while (connection := self._take_idle()) is not None:
            try:
                return await connection.exchange(data)
            except ConnectionBroken as error:
                if error.request_sent or self._closed:
                    raise
        connection = await self._open()
        return await connection.exchange(data)

    def _head(self, method: str, target: str, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """The head of a request; most have the same as the one before."""
        if self._latest is None or self._latest[0] != (method, target, headers):
            self._latest = (method, target, headers), encode_head(self.origin.host_header, method, target, headers)
        return self._latest[1]

    def _take_idle(self) -> HttpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_stale():
                connection.close()
                continue
            self._reused += 1
            self._active.add(connection)
            return connection
        return None

    async def _open(self) -> HttpConnection:
        if self._closed:
            raise ConnectFailed("the pool is closed")
        stream: trio.abc.Stream | None = None
        try:
            with trio.move_on_after(self._connect_timeout):
                if self._connect is None:
                    stream = await open_stream(self.origin, self._ssl_context)
                else:
                    stream = await self._connect()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectFailed(describe(error)) from error
        if stream is None:
            raise ConnectFailed(f"timed out after {self._connect_timeout:g} s")
        if self._closed:
            close_stream(stream)
            raise ConnectFailed("the pool is closed")
        connection = HttpConnection(stream, self.origin, on_release=self._take_back)
        self._opened += 1
        self._active.add(connection)
        return connection

    def _take_back(self, connection: HttpConnection) -> None:
        self._active.discard(connection)
        if connection.closed:
            return
        self._idle.append(connection)
        if len(self._idle) > self._max_idle:
            self._idle.popleft().close()

    def prune(self) -> int:
        """Close the idle connections that have become stale; returns how many. For a reaper: it never blocks."""
        stale = [connection for connection in self._idle if connection.is_stale()]
        for connection in stale:
            self._idle.remove(connection)
            connection.close()
        return len(stale)

    def statistics(self) -> PoolStatistics:
        """Counts as of now."""
        return PoolStatistics(self._opened, self._reused, len(self._idle), len(self._active))

    def close(self) -> None:
        """Close every connection, also those in use: their requests end with ConnectionBroken. Idempotent.

        Requests made afterwards, and connections being opened now, end with ConnectFailed.
        """
        self._closed = True
        for connection in (*self._idle, *self._active):
            connection.close()
        self._idle.clear()

    async def aclose(self) -> None:
        """`close`, and a checkpoint. If cancelled, everything is closed all the same."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> HttpPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        counts = self.statistics()
        state = "closed, " if self._closed else ""
        return (
            f"<HttpPool {self.origin}: {state}{counts.active} active, {counts.idle} idle, "
            f"{counts.opened} opened, {counts.reused} reused>"
        )
