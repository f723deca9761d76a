"""HTTP without sockets: requests to an ASGI application by clients that are slow, hang up, or stop reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import trio

from vmcp_actors.model import JsonObject
from vmcp_actors.server import Asgi
from vmcp_actors.wire.sse import EventDecoder

HEADERS = {
    "host": "127.0.0.1:4483",
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}
MAX_EVENT = 1 << 20

OnMessage = Callable[["Exchange", JsonObject], None]


class Exchange:
    """One HTTP request and its response, as far as the client reads it.

    Attributes:
        gone: the client has hung up, and reads nothing more.
        over: the application has done with it.
        pace: seconds that the client takes to read a piece; infinite for one that has stopped reading.
        complete: the response has come to its end.
    """

    def __init__(self, on_message: OnMessage, *, pace: float = 0.0, last_event: str = "") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.gone = trio.Event()
        self.over = trio.Event()
        self.pace = pace
        self._on_message = on_message
        self._decoder = EventDecoder(MAX_EVENT)
        self._decoder.last_event_id = last_event

    @property
    def last_event(self) -> str:
        """The id after which the stream can be resumed; empty if it cannot."""
        return self._decoder.last_event_id

    def hang_up(self) -> None:
        """Read nothing more, and let the server know."""
        self.gone.set()

    def refuse(self) -> None:
        """There is no server any more."""
        self.gone.set()
        self.over.set()

    async def run(self, app: Asgi, scope: JsonObject, body: bytes) -> None:
        """Have the application serve the request."""
        pieces = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> JsonObject:
            await trio.lowlevel.checkpoint()
            if pieces:
                return pieces.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        try:
            await app(scope, receive, self._send)
        finally:
            self.over.set()

    async def _send(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.pace:
            with trio.move_on_after(self.pace):
                await self.gone.wait()
        if self.gone.is_set():
            return
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
            return
        if self.headers.get("content-type") == "text/event-stream":
            for message in self._decoder.feed(event["body"]):
                self._on_message(self, json.loads(message.data))
        else:
            self.body += event["body"]
        if not event.get("more_body", False):
            self.complete = True
            if self.body:
                self._on_message(self, json.loads(self.body))


def scope_of(method: str, address: str, headers: dict[str, str]) -> JsonObject:
    """The ASGI scope of a request to the MCP endpoint."""
    fields = HEADERS | headers
    return {
        "type": "http",
        "method": method,
        "path": "/mcp",
        "raw_path": b"/mcp",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": (address, 5000),
        "server": ("127.0.0.1", 4483),
    }
