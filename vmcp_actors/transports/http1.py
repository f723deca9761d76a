"""HTTP/1.1 over one connection, as a client: streamed bodies, and honest words about delivery. `pool.py` keeps them.

It is on the path of every tool call, so a request is one send, a small answer is one receive, and the parsing is
llhttp's. There are no background tasks and no locks: what happens to a connection is decided in plain methods, and
only the exchange itself awaits.

Who owns a connection: the pool while it is idle; its response from the request on. When the body has been parsed to
its end the response gives it back; every other end (error, cancellation, `Response.close`) closes it. A connection
is never handed back in the middle of an exchange.

Not here on purpose: redirects, content codings (`accept-encoding: identity` is sent), HEAD and CONNECT, upgrades.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import trio

from .http1_messages import BadResponse, ConnectionBroken, ResponseParser, encode_request
from .origin import Origin, close_stream, describe, tcp_under
from .tcp import TcpStream

_KEEP_ALIVE_TIMEOUT = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Response:
    """A response whose headers are there; its body may still be arriving.

    It owns its connection until the body is complete. Read it to the end or close it: `with response:` does the
    latter whatever happens. Header names are lowercase, repeated headers joined with ", ".
    """

    __slots__ = ("_connection", "_message", "headers", "status")

    def __init__(self, connection: HttpConnection, message: ResponseParser) -> None:
        self.status = message.status
        self.headers = message.headers
        self._connection = connection
        self._message = message

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived: reading it needs no I/O any more."""
        return self._message.complete

    async def receive_chunk(self) -> bytes:
        """The next piece of the body as soon as there is one, b"" at its end.

        A checkpoint only if it has to wait. If cancelled, the connection is closed, and the rest of the body with it.

        Raises:
            ConnectionBroken: it ended early.
            BadResponse: the chunk framing is broken.
        """
        message = self._message
        while not message.body and not message.complete:
            await self._connection.receive(message)
        chunk = b"".join(message.body)
        message.body.clear()
        return chunk

    async def read(self, max_bytes: int) -> bytes:
        """The whole body, or what `receive_chunk` has left of it.

        A checkpoint only if it has to wait. If cancelled, the connection is closed, and the body is lost.

        Raises:
            ConnectionBroken: it ended early.
            BadResponse: it has more than `max_bytes` (the connection is closed, not drained), or broken framing.
        """
        message = self._message
        # A declared length saves reading what will be refused.
        declared = 0 if message.complete else int(self.headers.get("content-length", 0))
        pieces: list[bytes] = []
        size = 0
        while True:
            size += sum(map(len, message.body))
            pieces += message.body
            message.body.clear()
            if max(size, declared) > max_bytes:
                self.close()
                raise BadResponse(f"a body of more than {max_bytes} bytes")
            if message.complete:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            await self._connection.receive(message)

    def close(self) -> None:
        """Give up what has not been read. Closes the connection unless the body is complete. Idempotent."""
        if not self._message.complete:
            self._connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Response {self.status}, {'complete' if self.complete else 'arriving'}>"


class HttpConnection:
    """One connection, one exchange at a time.

    Args:
        stream: belongs to the connection from now on. See `close_stream` for the streams that will do.
        origin: what the stream leads to.
        on_release: called when an exchange is over, with the connection either closed or fit for the next one. It must
            neither block nor raise.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        origin: Origin,
        *,
        on_release: Callable[[HttpConnection], None] | None = None,
    ) -> None:
        self.origin = origin
        self.closed = False
        self._stream = stream
        self._plain = stream if isinstance(stream, TcpStream) else None
        self._watched = tcp_under(stream)
        self._on_release = on_release
        self._message: ResponseParser | None = None
        self.request_sent = False
        self._send_failed = False
        self._expires_at = math.inf

    async def request(
        self, method: str, target: str, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes | None = None
    ) -> Response:
        """Send a request and wait for the headers of its response.

        If cancelled, the connection is closed; the request may or may not have been delivered.

        Raises:
            ValueError: see `encode_request`; nothing was sent and the connection is untouched.
            trio.BusyResourceError: the previous response is not complete. The connection is untouched.
            ConnectionBroken, BadResponse: the connection is closed.
        """
        return await self.exchange(encode_request(self.origin.host_header, method, target, headers, body))

    async def exchange(self, request: bytes) -> Response:
        """Like `request`, for a request that `encode_request` has made."""
        if self._message is not None:
            raise trio.BusyResourceError("the previous response is not complete")
        message = self._message = ResponseParser()
        self.request_sent = False
        try:
            try:
                await self._send(request)
            except (trio.BrokenResourceError, OSError):
                if not self.request_sent:
                    raise
                # The peer stopped reading. It may have refused the request early (401, 413) and said so.
                self._send_failed = True
            while not message.headers_complete:
                await self._receive(message)
        except BaseException as error:
            self._break_off(error)
            raise
        response = Response(self, message)
        if message.complete:
            self._release(message)
        return response

    async def receive(self, message: ResponseParser) -> None:
        """Feed `message`, the one under way, with what comes next. For `Response` only."""
        try:
            await self._receive(message)
        except BaseException as error:
            self._break_off(error)
            raise
        if message.complete:
            self._release(message)

    async def _send(self, request: bytes) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._plain is None:
            self.request_sent = True
            await self._stream.send_all(request)
            return
        # Only this tells whether any of it was accepted; send_all() does not.
        while not (accepted := self._plain.send_nowait(request)):
            await self._plain.wait_send_all_might_not_block()
        self.request_sent = True
        if accepted < len(request):
            await self._plain.send_all(memoryview(request)[accepted:])

    async def _receive(self, message: ResponseParser) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        data = await self._stream.receive_some()
        if self.closed:
            raise trio.ClosedResourceError  # by another task, while the data was on its way to this one
        if data:
            message.feed(bytes(data))
        else:
            message.feed_eof()

    def _break_off(self, error: BaseException) -> None:
        """Close after any early end, also a cancellation: what is left of the response would be taken for the next one.

        And the one place where foreign errors become ours: raises ConnectionBroken for those.
        """
        was_closed = self.closed
        self.close()
        if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError | OSError):
            # A socket that was closed by another task of ours may also fail with EBADF.
            reason = "closed on our side" if was_closed else describe(error)
            raise ConnectionBroken(reason, request_sent=self.request_sent) from error

    def _release(self, message: ResponseParser) -> None:
        if self.closed:
            return  # by another task, in the checkpoint that follows a successful receive
        hint = _KEEP_ALIVE_TIMEOUT.search(message.headers.get("keep-alive", ""))
        # A second less than the server grants: our request needs time to get there.
        lifetime = float(hint[1]) - 1 if hint else math.inf
        if not message.keep_alive or self._send_failed or lifetime <= 0:
            self.close()
            return
        self._message = None
        self._expires_at = trio.current_time() + lifetime
        if self._on_release is not None:
            self._on_release(self)

    def is_stale(self) -> bool:
        """Whether an idle connection must not be used again: too old, closed by the peer, or sent something unasked.

        One system call. Streams without a socket are never found closed.
        """
        if self.closed or trio.current_time() >= self._expires_at:
            return True
        return self._watched is not None and self._watched.is_readable()

    def close(self) -> None:
        """Close at once. An exchange under way in another task ends with ConnectionBroken. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._message is not None:
            self._message.break_off()
        close_stream(self._stream)
        if self._on_release is not None:
            self._on_release(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._message is None else "active"
        return f"<HttpConnection {self.origin}, {state}>"
