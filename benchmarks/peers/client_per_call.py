"""A gateway of the same stack that makes a client for each call: `python -m benchmarks.peers.client_per_call URL PORT`.

The pattern that sessions with connections of their own replace: connect, `initialize`, the call, goodbye, each time.
"""

from __future__ import annotations

import sys
from typing import Any

import trio
from mcp.shared.exceptions import MCPError

from vmcp_actors.model import BackendSpec, HttpEndpoint, JsonObject
from vmcp_actors.server.http import JSON_TYPE, Receive, Scope, Send, headers_of, read_body, send_response
from vmcp_actors.server.http1 import Limits
from vmcp_actors.server.listening import serve_http1
from vmcp_actors.transports import open_transport
from vmcp_actors.transports.base import RequestOptions
from vmcp_actors.wire.messages import Message, decode_message, encode_error, encode_result

MAX_BODY = 64 * 1024 * 1024
INITIALIZE: JsonObject = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "client-per-call", "version": "1"},
}


class ClientPerCall:
    """An ASGI application in front of one backend."""

    def __init__(self, backend_url: str) -> None:
        self.backend_url = backend_url
        self._spec = BackendSpec("backend", HttpEndpoint(backend_url))
        self._sessions = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            await send_response(send, 204 if scope["method"] == "DELETE" else 405, headers=())
            return
        body = await read_body(scope, headers_of(scope), receive, limit=MAX_BODY, seconds=30)
        message = decode_message(body)
        if not message.is_request:
            await send_response(send, 202, headers=())
            return
        headers = [JSON_TYPE]
        if message.method == "initialize":
            self._sessions += 1
            headers.append((b"mcp-session-id", b"s%d" % self._sessions))
        await send_response(send, 200, await self._answer(message), headers)

    async def _answer(self, message: Message) -> bytes:
        request_id: Any = message.id
        try:
            return encode_result(request_id, await self._ask(str(message.method), message.folded_arguments))
        except MCPError as error:
            return encode_error(request_id, error.error.model_dump(exclude_none=True))

    async def _ask(self, method: str, params: JsonObject) -> JsonObject:
        """Ask the backend, in a session of this call alone."""
        async with open_transport(self._spec) as transport:
            result = await transport.send_raw_request("initialize", INITIALIZE)
            if method != "initialize":
                await transport.notify("notifications/initialized", None)
                options: RequestOptions = {"folded": True}
                result = await transport.send_raw_request(method, params, options)
            await transport.goodbye()
        return result


async def serve(app: ClientPerCall, port: int) -> None:
    """Serve until killed."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    await serve_http1(app, listeners, limits=Limits(), stop=trio.Event(), grace=1)


if __name__ == "__main__":
    trio.run(serve, ClientPerCall(sys.argv[1]), int(sys.argv[2]))
