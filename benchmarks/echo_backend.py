"""An MCP backend that does next to nothing: what is measured is in front of it. Prints its URL."""

from __future__ import annotations

import itertools
import json
from functools import partial

import httptools
import trio

RESULTS = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "echo", "version": "1"},
    },
    "ping": {},
    "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": "x" * 100}]},
}
numbers = itertools.count(1)


class Parser:
    """One connection's requests."""

    def __init__(self) -> None:
        self.body = b""
        self.requests: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.requests.append((self.parser.get_method(), self.body))
        self.body = b""


def respond(method: bytes, body: bytes) -> bytes:
    """The response to one request."""
    if method == b"GET":  # the stream for notifications: held open, and silent
        return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    message = json.loads(body) if body else {}
    if "id" not in message:
        return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": RESULTS[message["method"]]}).encode()
    session = b"mcp-session-id: s%d\r\n" % next(numbers) if message["method"] == "initialize" else b""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (session, len(answer)) + answer


async def serve(delay: float, stream: trio.SocketStream) -> None:
    parser = Parser()
    try:
        async for data in stream:
            parser.parser.feed_data(data)
            while parser.requests:
                await trio.sleep(delay)
                await stream.send_all(respond(*parser.requests.pop(0)))
    except trio.BrokenResourceError:
        pass
    finally:
        await stream.aclose()


async def main() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    print(f"ready http://127.0.0.1:{port}/mcp", flush=True)
    await trio.serve_listeners(partial(serve, 0.0), listeners)


if __name__ == "__main__":
    trio.run(main)
