"""Just enough of an HTTP/1.1 server for a test backend: one request at a time per connection, JSON or SSE answers."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import h11
import trio

EVENT_STREAM = "text/event-stream"


class CloseConnection(Exception):
    """Raised by a handler to close the connection as it is, in the middle of whatever was being sent."""


class Exchange:
    """One request, and the means to answer it: `reply` once, or `start_events`, then `event`s, then `end`.

    Sending to a client that has gone raises trio.BrokenResourceError.
    """

    def __init__(self, stream: trio.SocketStream, conn: h11.Connection, request: h11.Request, body: bytes) -> None:
        self._stream = stream
        self._conn = conn
        self.method = request.method.decode()
        self.path = request.target.decode().partition("?")[0]
        self.headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        self.body = body
        self.streaming = False

    async def reply(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a body of JSON, or with none at all."""
        data = b"" if body is None else json.dumps(body).encode()
        await self._head(status, {"content-type": "application/json", "content-length": str(len(data))}, headers)
        await self._send(h11.Data(data=data))
        await self.end()

    async def start_events(self, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an event stream. Does nothing if it was started already."""
        if not self.streaming:
            self.streaming = True
            await self._head(200, {"content-type": EVENT_STREAM, "cache-control": "no-cache"}, headers)

    async def event(self, message: Any, *, event_id: str | None = None, retry: int | None = None) -> None:
        """Send one event; `message` None makes it an event with an id and empty data."""
        lines = [] if event_id is None else [f"id: {event_id}"]
        lines += [] if retry is None else [f"retry: {retry}"]
        lines.append("data:" if message is None else f"data: {json.dumps(message)}")
        await self._send(h11.Data(data="".join(f"{line}\n" for line in [*lines, ""]).encode()))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def wait_gone(self) -> None:
        """Return when the client has closed the connection. What it sends meanwhile is kept for later."""
        try:
            while data := await self._stream.receive_some():
                self._conn.receive_data(data)
        except trio.BrokenResourceError:
            pass

    async def _head(self, status: int, own: Mapping[str, str], given: Mapping[str, str] | None) -> None:
        headers = [*own.items(), *(given or {}).items()]
        make = h11.Response(status_code=status, headers=[(k.encode(), v.encode()) for k, v in headers])
        await self._send(make)

    async def _send(self, event: h11.Event) -> None:
        if data := self._conn.send(event):
            await self._stream.send_all(data)


async def serve_connection(stream: trio.SocketStream, handle: Callable[[Exchange], Awaitable[None]]) -> None:
    """Answer the requests of one connection with `handle`, one after the other, until either side closes it."""
    conn = h11.Connection(h11.SERVER)
    async with stream:
        try:
            while True:
                request = await _next_event(stream, conn)
                if not isinstance(request, h11.Request):
                    return
                body = bytearray()
                while isinstance(part := await _next_event(stream, conn), h11.Data):
                    body += part.data
                await handle(Exchange(stream, conn, request, bytes(body)))
                if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                    return
                conn.start_next_cycle()
        except (CloseConnection, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return


async def _next_event(stream: trio.SocketStream, conn: h11.Connection) -> Any:
    while (event := conn.next_event()) is h11.NEED_DATA:
        if conn.they_are_waiting_for_100_continue:
            await stream.send_all(conn.send(h11.InformationalResponse(status_code=100, headers=[])))
        conn.receive_data(await stream.receive_some())
    return event
