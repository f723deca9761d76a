"""HTTP/1.1 for an ASGI application, on a trio stream: one task for a connection, and no other for its requests.

RFC 9110 and 9112, parsed by llhttp in its strict mode. What is read while a response is under way is read by the
application's `receive`, so a client that disconnects is noticed by applications that ask, and nobody is paid for the
others. There is no upgrade, and no HTTP/2.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import trio
from attrs import frozen

from .http import WHOLE_BODY, Scope
from .http1_request import BadRequest, Request, RequestParser
from .http1_response import Response

logger = logging.getLogger(__name__)

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
        self._patience = trio.CancelScope()
        self._waiting = False
        self._finishing = False
        self._client = client
        self._server = server

    async def serve(self) -> None:
        """Serve requests until the client or the server has had enough. Closes the stream. Raises only `Cancelled`."""
        try:
            async with self._stream:
                # One scope for the life of the connection: its deadline is set while it waits for a request.
                with self._patience:
                    while await self._serve_request():
                        pass
                if self._patience.cancelled_caught and self._parser.begun:
                    text = "the head of the request did not arrive in time"
                    await self._refuse(BadRequest(HTTPStatus.REQUEST_TIMEOUT, text))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            logger.debug("a connection broke: %s", error)
        finally:
            self._parser.close()

    def finish(self) -> None:
        """The server ends: take no further request. Synchronous; one that has begun to arrive is served."""
        self._finishing = True
        if self._waiting and not self._parser.begun:
            self._patience.cancel("the server ends")

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
        if (request := parser.next_request()) is not None:
            return request
        patience = limits.head_timeout if parser.begun else limits.idle_timeout
        self._patience.deadline = trio.current_time() + patience
        self._waiting = True
        try:
            while (request := parser.next_request()) is None:
                began = parser.begun
                if (self._finishing and not began) or not await self._read():
                    return None
                if parser.begun and not began:
                    self._patience.deadline = trio.current_time() + limits.head_timeout
        finally:
            self._waiting = False
            self._patience.deadline = math.inf
        return request

    async def _read(self) -> bool:
        """Read something, and parse it. Returns whether there was anything."""
        data = await self._stream.receive_some()
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
        return {"type": "http.request", "body": self._take(request), "more_body": not request.complete}

    def _take_whole_body(self) -> bytes | None:
        """An extension of ASGI: the body, if all of it is there, without waiting; None otherwise."""
        assert self._response is not None
        request = self._response.request
        return self._take(request) if request.complete and not request.told_complete else None

    @staticmethod
    def _take(request: Request) -> bytes:
        body = b"".join(request.body) if len(request.body) != 1 else request.body[0]
        request.body.clear()
        request.told_complete = request.complete
        return body

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
        decoded, path, query = _split(request.target)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": decoded,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._client,
            "server": self._server,
            "extensions": {WHOLE_BODY: self._take_whole_body},
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
            while await self._stream.receive_some():
                pass

    def __repr__(self) -> str:
        return f"<Connection with {self._client}: {self._response or 'waiting'}>"


@lru_cache(maxsize=32)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """The path as text, the path and the query as they came. Most requests have the same target."""
    path, _, query = target.partition(b"?")
    return unquote(path.decode("latin-1")), path, query
