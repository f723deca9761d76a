"""An MCP backend with sessions, to be killed and frozen: `python -m benchmarks.soak.backend --port N`.

It forgets its sessions with its process. What it answers shows whose session a call came to.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import trio

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("count", "sleep", "big", "fail")]
BIG = "x" * 100_000
EMPTY = b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n"


class Backend:
    """Counts for each session, in memory."""

    def __init__(self) -> None:
        self.sessions: dict[str, itertools.count[int]] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, request by request."""
        parser = SessionParser()
        try:
            async for data in stream:
                parser.parser.feed_data(data)
                while parser.requests:
                    method, body = parser.requests.pop(0)
                    await stream.send_all(await self._respond(method, parser.sessions.pop(0), body))
        except trio.BrokenResourceError:
            pass
        finally:
            await stream.aclose()

    async def _respond(self, method: bytes, session: str, body: bytes) -> bytes:
        message = json.loads(body) if body else {}
        if message.get("method") == "initialize":
            session = secrets.token_hex(8)
            self.sessions[session] = itertools.count(1)
        elif session not in self.sessions:
            return EMPTY % b"404 Not Found"
        if method == b"GET":
            return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        if method == b"DELETE":
            del self.sessions[session]
            return EMPTY % b"200 OK"
        if "id" not in message:
            return EMPTY % b"202 Accepted"
        answer = {"jsonrpc": "2.0", "id": message["id"], **await self._answer(session, message)}
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: {session}\r\n"
        return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data

    async def _answer(self, session: str, message: dict[str, Any]) -> dict[str, Any]:
        params = message.get("params") or {}
        match message["method"]:
            case "initialize":
                server = {"name": "soak", "version": "1"}
                return {
                    "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}
                }
            case "tools/list":
                return {"result": {"tools": TOOLS}}
            case "tools/call":
                return await self._call(session, params["name"], params.get("arguments") or {})
            case "ping":
                return {"result": {}}
        return {"error": {"code": -32601, "message": "Method not found"}}

    async def _call(self, session: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "fail":
            return {"error": {"code": -32000, "message": "failed"}}
        if name == "sleep":
            await trio.sleep(arguments.get("seconds", 0.1))
        text = f"{arguments.get('nonce')} {next(self.sessions.get(session, itertools.count()))}"
        return {"result": {"content": [{"type": "text", "text": BIG if name == "big" else text}]}}


class SessionParser:
    """One connection's requests, and the session id of each."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.sessions: list[str] = []
        self.parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._session = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-session-id":
            self._session = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.requests.append((self.parser.get_method(), self._body))
        self.sessions.append(self._session)
        self._body, self._session = b"", ""


async def main(port: int) -> None:
    serve: Callable[[trio.SocketStream], Awaitable[None]] = Backend().serve
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"ready http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp", flush=True)
    await trio.serve_listeners(serve, listeners)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=0)
    trio.run(main, options.parse_args().port)
