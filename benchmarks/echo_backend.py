"""An MCP backend over HTTP that does next to nothing: what is measured is in front of it. Prints its URL.

`python -m benchmarks.echo_backend [--bytes N] [--sse] [--stateless] [--delay SECONDS] [--silent]`. It counts what
comes: `GET /counts` has the requests by HTTP method and by MCP method, and the connections; `DELETE /counts` resets.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from attrs import frozen

from .echo_answers import Message, answer, called, decode
from .tcp_server import Connection, Request, Server

EMPTY = b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
NOTICE = json.dumps(
    {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 100}}
).encode()
FLOOD_SECONDS = 1.0


def event(message: bytes) -> bytes:
    """A message as an event, in a chunk of its own."""
    data = b"event: message\r\ndata: " + message + b"\r\n\r\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


FLOOD = event(NOTICE) * 64


@frozen
class Options:
    """How to answer.

    Attributes:
        size: bytes of a result, where a call does not say.
        sse: answers are event streams instead of JSON.
        delay: seconds before each answer.
        silent: requests are read, and that is all.
    """

    size: int = 100
    sse: bool = False
    stateless: bool = False
    delay: float = 0.0
    silent: bool = False


class EchoBackend:
    """Answers requests."""

    def __init__(self, options: Options, port: int = 0) -> None:
        self.server = Server(self._handle, port)
        self._options = options
        self._counts: Counter[str] = Counter()
        self._accepted_before = 0
        self._sessions = itertools.count(1)
        self._streams: dict[bytes, Connection] = {}

    def _handle(self, connection: Connection, request: Request) -> None:
        if request.path == b"/counts":
            connection.send(self._count(request.method))
            return
        self._counts[f"HTTP {request.method.decode()}"] += 1
        if self._options.silent:
            return
        if request.method == b"GET":
            # The stream for what comes unasked is held open.
            self._streams[request.header(b"mcp-session-id")] = connection
            connection.send(STREAM_HEAD % b"")
        elif request.method == b"DELETE":
            self._streams.pop(request.header(b"mcp-session-id"), None)
            connection.send(EMPTY % b"200 OK")
        else:
            self._post(connection, request)

    def _count(self, method: bytes) -> bytes:
        if method == b"DELETE":
            self._counts.clear()
            self._accepted_before = self.server.accepted
        counts = {**self._counts, "connections": self.server.accepted - self._accepted_before}
        body = json.dumps(counts).encode()
        return JSON_HEAD % (b"", len(body)) + body

    def _post(self, connection: Connection, request: Request) -> None:
        message = decode(request.body)
        self._counts[message.method] += 1
        if not message.id:
            connection.send(EMPTY % b"202 Accepted")
            return
        name = message.params.get("name") if message.method == "tools/call" else None
        if name == "stuck":
            return
        respond = self._flood if name == "flood" else self._respond
        if self._options.delay:
            self.server.later(self._options.delay, partial(respond, connection, request, message))
        else:
            respond(connection, request, message)

    def _respond(self, connection: Connection, _: Request, message: Message) -> None:
        options = self._options
        session = b""
        if message.method == "initialize" and not options.stateless:
            session = b"mcp-session-id: s%d\r\n" % next(self._sessions)
        body = answer(message, size=options.size, stateless=options.stateless)
        if options.sse:
            connection.send(STREAM_HEAD % session + event(body) + LAST_CHUNK)
        else:
            connection.send(JSON_HEAD % (session, len(body)) + body)

    def _flood(self, connection: Connection, request: Request, message: Message) -> None:
        """Notify for some seconds: before the answer on its stream, or beside it on the session's (`where`: get)."""
        arguments = message.params.get("arguments") or {}
        until = time.monotonic() + arguments.get("seconds", FLOOD_SECONDS)
        last = event(b'{"jsonrpc":"2.0","id":%b,%b}' % (bytes(message.id), called(10, self._options.stateless)))
        if arguments.get("where") == "get":
            stream = self._streams.get(request.header(b"mcp-session-id"))
            if stream is not None:
                stream.stream(flood(until, b""))
            connection.send(STREAM_HEAD % b"" + last + LAST_CHUNK)
            return
        connection.send(STREAM_HEAD % b"")
        connection.stream(flood(until, last + LAST_CHUNK))


def flood(until: float, last: bytes) -> Callable[[], bytes | None]:
    """A source of notifications until some time, and of what comes last."""

    def pieces() -> bytes | None:
        return next(source, None)

    def generate() -> itertools.chain[bytes]:
        floods = iter(lambda: FLOOD if time.monotonic() < until else b"", b"")
        return itertools.chain(floods, [last] if last else [])

    source = generate()
    return pieces


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--sse", action="store_true")
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--silent", action="store_true")
    given = parser.parse_args()
    options = Options(given.bytes, given.sse, given.stateless, given.delay, given.silent)
    backend = EchoBackend(options, given.port)
    print(f"ready {backend.server.url}", flush=True)
    backend.server.run()


if __name__ == "__main__":
    main()
