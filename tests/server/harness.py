"""An ASGI client in memory, and a gateway's endpoint over memory backends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from tests.sessions.harness import supervised
from vmcp_actors.server import Asgi, create_app
from vmcp_actors.sessions import SessionSupervisor
from vmcp_actors.settings import ServerSettings
from vmcp_actors.testing import MemoryBackend
from vmcp_actors.wire.sse import EventDecoder
from vmcp_actors.wire.stateless import PROTOCOL_VERSION, mirrored_headers

MCP_HEADERS = {
    "host": "127.0.0.1:4483",
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@define
class Exchange:
    """One request and what came back so far."""

    status: int = 0
    headers: dict[str, str] = field(factory=dict)
    chunks: list[bytes] = field(factory=list)
    finished: bool = False
    hang_up: trio.Event = field(factory=trio.Event)
    stuck: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages of an event stream."""
        return [json.loads(event.data) for event in EventDecoder(1 << 20).feed(self.body)]


class Client:
    """A client of the endpoint, with the headers that a good one sends."""

    def __init__(
        self, app: Asgi, nursery: trio.Nursery, path: str = "/mcp", *, address: str = "127.0.0.1", name: str = "test"
    ) -> None:
        self.app = app
        self.address = address
        self.name = name
        self.path = path
        self.session: str | None = None
        self._nursery = nursery
        self._next_id = 0

    def begin(
        self,
        method: str,
        body: bytes = b"",
        *,
        path: str | None = None,
        server: str = "127.0.0.1",
        slow: bool = False,
        **headers: str | None,
    ) -> Exchange:
        """Start a request; headers with value None are left out, underscores stand for hyphens."""
        exchange = Exchange()
        fields: dict[str, str | None] = dict(MCP_HEADERS)
        if self.session is not None:
            fields["mcp-session-id"] = self.session
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path or self.path,
            "raw_path": (path or self.path).encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items() if value is not None],
            "client": (self.address, 5000),
            "server": (server, 4483),
        }
        pieces = [] if slow else [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            await trio.lowlevel.checkpoint()
            if pieces:
                return pieces.pop(0)
            await exchange.hang_up.wait()
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            if exchange.stuck:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            if event["type"] == "http.response.start":
                exchange.status = event["status"]
                exchange.headers = {name.decode(): value.decode() for name, value in event["headers"]}
            else:
                exchange.chunks.append(event["body"])
                exchange.finished = not event.get("more_body", False)

        self._nursery.start_soon(self.app, scope, receive, send)
        return exchange

    async def http(self, method: str, body: bytes = b"", **options: Any) -> Exchange:
        """A request, until its response is complete."""
        exchange = self.begin(method, body, **options)
        with trio.fail_after(1000):
            while not exchange.finished:
                await trio.sleep(0.01)
        return exchange

    def begin_post(self, message: Any, **headers: Any) -> Exchange:
        return self.begin("POST", json.dumps(message).encode(), **headers)

    async def post(self, message: Any, **headers: Any) -> Exchange:
        return await self.http("POST", json.dumps(message).encode(), **headers)

    async def initialize(self, **params: Any) -> Exchange:
        """Start a session, as a good client does."""
        message = {**INITIALIZE, "params": {**INITIALIZE["params"], **params}}  # type: ignore[dict-item]
        answer = await self.post(message)
        self.session = answer.headers["mcp-session-id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def stateless(self, method: str, **params: Any) -> tuple[dict[str, Any], dict[str, str | None]]:
        """A message of the stateless revision and its headers, as a good client makes them.

        `capabilities`, `log_level` and `progress` go into its `_meta`.
        """
        meta: dict[str, Any] = {
            PROTOCOL_VERSION: "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": params.pop("capabilities", {}),
            "io.modelcontextprotocol/clientInfo": {"name": self.name, "version": "1"},
        }
        if "log_level" in params:
            meta["io.modelcontextprotocol/logLevel"] = params.pop("log_level")
        if "progress" in params:
            meta["progressToken"] = params.pop("progress")
        message = self.message(method, _meta=meta, **params)
        return message, {name.replace("-", "_"): value for name, value in mirrored_headers(method, params).items()}

    def begin_stateless(self, method: str, **params: Any) -> Exchange:
        message, headers = self.stateless(method, **params)
        return self.begin_post(message, **headers)

    async def ask(self, method: str, **params: Any) -> Exchange:
        """A request of the stateless revision, until its response is complete."""
        message, headers = self.stateless(method, **params)
        return await self.post(message, **headers)

    async def result(self, method: str, **params: Any) -> Any:
        """The result of a request of the stateless revision."""
        exchange = await self.ask(method, **params)
        assert exchange.status == 200, exchange.body
        answer = exchange.messages[-1] if exchange.headers["content-type"] == "text/event-stream" else exchange.json
        return answer["result"]

    def message(self, method: str, **params: Any) -> dict[str, Any]:
        self._next_id += 1
        return {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}

    async def request(self, method: str, **params: Any) -> Any:
        """A request, and the message that answers it."""
        exchange = await self.post(self.message(method, **params))
        assert exchange.status == 200, exchange.body
        return exchange.messages[-1] if exchange.headers["content-type"] == "text/event-stream" else exchange.json

    async def tool(self, name: str, **arguments: Any) -> Any:
        return (await self.request("tools/call", name=name, arguments=arguments))["result"]


@define
class Served:
    """A served gateway."""

    supervisor: SessionSupervisor
    app: Asgi
    nursery: trio.Nursery

    def client(self, **options: Any) -> Client:
        return Client(self.app, self.nursery, **options)


@asynccontextmanager
async def served(
    doubles: Sequence[MemoryBackend], *, server: ServerSettings | None = None, **settings: Any
) -> AsyncIterator[Served]:
    """The endpoint over memory backends."""
    async with supervised(doubles, **settings) as supervisor, trio.open_nursery() as nursery:
        app = create_app(supervisor, server or ServerSettings(), name="test")
        yield Served(supervisor, app, nursery)
        nursery.cancel_scope.cancel()
