"""HTTP/1.1 for an ASGI application, on a trio stream: one task for a connection, and no other for its requests.

RFC 9110 and 9112, parsed by llhttp in its strict mode. What is read while a response is under way is read by the
application's `receive`, so a client that disconnects is noticed by applications that ask, and nobody is paid for the
others. There is no upgrade, and no HTTP/2.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import trio
from attrs import frozen

from .http import Scope
from .http1_request import BadRequest, Request, RequestParser
from .http1_response import Response

logger = logging.getLogger(__name__)

READ_SIZE: Final = 64 * 1024
Address = tuple[str, int] | None

LINGER: Final = 1.0
"""Seconds for which a client that still sends is listened to, so that it can read what it was told."""


@frozen
class Limits:
    """What a connection may take. Times in seconds, sizes in bytes.

    Attributes:
        head_timeout: from the first byte of a request to the end of its head.
        idle_timeout: between two requests.
        send_timeout: for a client to take a piece of a response.
    """

    head_timeout: float = 30.0
    idle_timeout: float = 75.0
    send_timeout: float = 20.0


class Connection:
    """One connection of a client. `serve` is all there is to call, but for `finish` at the end of the server.

    Args:
        client, server: both ends, for the application.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        app: Any,
        limits: Limits,
        *,
        client: Address = None,
        server: Address = None,
    ) -> None:
        self._stream = stream
        self._app = app
        self._limits = limits
        self._parser = RequestParser()
        self._response: Response | None = None
        self._waiting: trio.CancelScope | None = None
        self._finishing = False
        self._client = client
        self._server = server

    async def serve(self) -> None:
        """Serve requests until the client or the server has had enough. Closes the stream. Raises only `Cancelled`."""
        try:
            async with self._stream:
                while await self._serve_request():
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            logger.debug("a connection broke: %s", error)

    def finish(self) -> None:
        """The server ends: take no further request. Synchronous; one that has begun to arrive is served."""
        self._finishing = True
        if self._waiting is not None and not self._parser.begun:
            self._waiting.cancel("the server ends")

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _serve_request(self) -> bool:
        """Serve the next request. Returns whether there may be another."""
        try:
            request = await self._next_request()
        except BadRequest as error:
            await self._refuse(error)
            return False
        if request is None:
            return False
        close = self._finishing or self._parser.is_last(request)
        response = self._response = Response(self._stream, request, close=close, timeout=self._limits.send_timeout)
        try:
            await self._app(self._scope(request), self._receive, response.send)
        except Exception:
            logger.exception("the application failed")
            response.broken = response.started
        if self._parser.error is not None and not response.started:
            await self._refuse(self._parser.error)
            return False
        if not response.started:
            await self._refuse(BadRequest(HTTPStatus.INTERNAL_SERVER_ERROR, "no response"))
            return False
        if not response.complete or response.broken:
            return False  # the client can tell from what is missing
        if request.complete and response.keeps_connection:
            return not self._finishing
        await self._linger()
        return False

    async def _next_request(self) -> Request | None:
        """The next request, its head complete; None when there is none. Raises `BadRequest`."""
        parser, limits = self._parser, self._limits
        parser.forget_request()
        patience = limits.head_timeout if parser.begun else limits.idle_timeout
        with trio.CancelScope(deadline=trio.current_time() + patience) as self._waiting:
            while (request := parser.next_request()) is None:
                began = parser.begun
                if (self._finishing and not began) or not await self._read():
                    return None
                if parser.begun and not began:
                    self._waiting.deadline = trio.current_time() + limits.head_timeout
        self._waiting = None
        if request is None and parser.begun:
            raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, "the head of the request did not arrive in time")
        return request

    async def _read(self) -> bool:
        """Read something, and parse it. Returns whether there was anything."""
        data = await self._stream.receive_some(READ_SIZE)
        if data:
            self._parser.feed(bytes(data))
        return bool(data)

    async def _receive(self) -> dict[str, Any]:
        """The `receive` of ASGI: pieces of the body, then, some time, that the client has disconnected."""
        parser, response = self._parser, self._response
        assert response is not None
        request = response.request
        if request.told_complete:
            await self._until_gone(response)
            return {"type": "http.disconnect"}
        try:
            while not request.body and not request.complete:
                if parser.error is not None:
                    return {"type": "http.disconnect"}
                if request.expects_continue and not response.started:
                    request.expects_continue = False
                    await self._stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                if not await self._read():
                    return {"type": "http.disconnect"}
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return {"type": "http.disconnect"}
        body = b"".join(request.body) if len(request.body) != 1 else request.body[0]
        request.body.clear()
        request.told_complete = request.complete
        return {"type": "http.request", "body": body, "more_body": not request.complete}

    async def _until_gone(self, response: Response) -> None:
        """Wait until the client has disconnected, or has all of the response. What it sends meanwhile is kept."""
        with response.open_for_waiting() as scope, scope:
            try:
                while not response.broken and not self._parser.is_full:
                    if not await self._read():
                        return
                await trio.sleep_forever()  # until a write fails, or the response is complete
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _scope(self, request: Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._client,
            "server": self._server,
            "extensions": {},
        }

    # --- ends ---------------------------------------------------------------------------------------------------------

    async def _refuse(self, error: BadRequest) -> None:
        """Answer a request that is not one, and hang up."""
        text = f"{error.reason}\n".encode()
        head = (
            f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\n"
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        )
        with trio.move_on_after(self._limits.send_timeout):
            await self._stream.send_all(head.encode() + text)
            await self._linger()

    async def _linger(self) -> None:
        """Close our side, and read what the client still sends: closing at once would take our answer from it."""
        with trio.move_on_after(LINGER):
            await self._stream.send_eof()
            while await self._stream.receive_some(READ_SIZE):
                pass

    def __repr__(self) -> str:
        return f"<Connection with {self._client}: {self._response or 'waiting'}>"
