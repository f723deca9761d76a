"""A client that asks and does not read: what it has at its backends lives on."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp
import pytest
import trio

from .harness import GatewayProcess, gateway, write_config
from .test_real_backends import evaluate, open_site, playwright_command, playwright_over_http, scratch, wait_in_a_call

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def installed() -> None:
    """Here, and not in a test, where a skip within a nursery would be an error."""
    playwright_command()


class RawClient:
    """A client of plain sockets, which reads only what it has to."""

    def __init__(self, served: GatewayProcess) -> None:
        self.served = served
        self.session = ""
        self.id = 0

    def call(self, tool: str, arguments: dict[str, Any]) -> bytes:
        self.id += 1
        params = {"name": tool, "arguments": arguments}
        return json.dumps({"jsonrpc": "2.0", "id": self.id, "method": "tools/call", "params": params}).encode()

    @asynccontextmanager
    async def begin(self, method: str, body: bytes = b"") -> AsyncIterator[trio.SocketStream]:
        """A request, of whose response nothing is read."""
        session = f"mcp-session-id: {self.session}\r\n" if self.session else ""
        head = (
            f"{method} /mcp HTTP/1.1\r\nhost: 127.0.0.1:{self.served.port}\r\n"
            "accept: text/event-stream, application/json\r\ncontent-type: application/json\r\n"
            f"{session}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        async with await trio.open_tcp_stream("127.0.0.1", self.served.port) as stream:
            await stream.send_all(head.encode() + body)
            yield stream

    async def post(self, body: bytes) -> str:
        async with self.begin("POST", body) as stream:
            with trio.fail_after(60):
                return b"".join([chunk async for chunk in stream]).decode()

    async def tool(self, name: str, arguments: dict[str, Any]) -> str:
        answer = await self.post(self.call(name, arguments))
        assert '"result"' in answer, answer
        assert '"isError":true' not in answer, answer
        return answer


@asynccontextmanager
async def open_raw(served: GatewayProcess) -> AsyncIterator[RawClient]:
    """A session with such a client."""
    client = RawClient(served)
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = await client.post(json.dumps(message).encode())
    client.session = re.search(r"mcp-session-id: (\S+)", answer)[1]  # type: ignore[index]
    await client.post(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')
    yield client


@pytest.mark.slow
async def test_a_browser_survives_a_long_call_and_a_client_that_reads_nothing(tmp_path: Path) -> None:
    """Playwright pings every 3 s, and ends what does not answer in 5 s; the gateway answers for it."""
    with scratch() as folder:
        async with open_site() as site, playwright_over_http(folder) as playwright:
            backend = f"{{name: http, transport: streamable-http, url: '{playwright.url}/mcp'}}"
            async with gateway(write_config(tmp_path, f"backends: [{backend}]\n")) as served:
                async with mcp.Client(served.url, mode="legacy") as patient, open_raw(served) as silent:
                    await patient.call_tool("http_browser_navigate", {"url": site.url})
                    await evaluate(patient, "http", "{ window.n = 1; return 1 }")
                    await silent.tool("http_browser_navigate", {"url": site.url})
                    await silent.tool("http_browser_evaluate", {"function": "() => { window.n = 2; return 1 }"})
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(wait_in_a_call, patient, 30)
                        async with silent.begin("GET"):
                            async with silent.begin("POST", silent.call("http_browser_wait_for", {"time": 30})):
                                await trio.sleep(32)
                    assert await evaluate(patient, "http", "window.n") == "1"
                    kept = await silent.tool("http_browser_evaluate", {"function": "() => window.n"})
                    assert "### Result\\n2" in kept
