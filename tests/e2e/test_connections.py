"""Connections that end in ways that servers forget about: nothing is held for a client that is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import trio

from tests.e2e.harness import GatewayProcess, all_open_files, gateway, hypercorn_command, until
from tests.e2e.test_real_clients import demo_with

pytestmark = pytest.mark.e2e

CLIENTS = 20
SOON = 12.0
HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


@asynccontextmanager
async def demo(tmp_path: Path, command: list[str] | None) -> AsyncIterator[GatewayProcess]:
    async with gateway(demo_with(tmp_path, ""), command=command) as served:
        yield served


async def exchange(port: int, request: bytes, *, half_close: bool) -> None:
    """Send something, as much of it as is taken, read what comes first, leave."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(2.0):
            await stream.send_all(request)
        with suppress(trio.ClosedResourceError):  # a send that was cancelled has closed it for sending
            if half_close:
                await stream.send_eof()
        with trio.move_on_after(2.0):
            await stream.receive_some(65536)


async def many(port: int, request: bytes, *, half_close: bool) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(lambda: exchange(port, request, half_close=half_close))


slow = pytest.mark.slow
SERVERS = {"serve": None, "hypercorn": hypercorn_command()}


@pytest.mark.parametrize(
    ("command", "half_close"),
    [
        (SERVERS["serve"], True),
        (SERVERS["hypercorn"], True),
        pytest.param(SERVERS["serve"], False, marks=slow),
        pytest.param(SERVERS["hypercorn"], False, marks=slow),
    ],
    ids=["serve-half", "hypercorn-half", "serve", "hypercorn"],
)
async def test_an_upgrade_to_http2_by_a_client_that_leaves(
    tmp_path: Path, command: list[str] | None, half_close: bool
) -> None:
    lines = [
        "GET /mcp HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream", "Upgrade: h2c",
        "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk", "", "",
    ]  # fmt: skip
    async with demo(tmp_path, command) as served:
        before = all_open_files(served.pid)
        await many(served.port, "\r\n".join(lines).encode(), half_close=half_close)
        await until(lambda: all_open_files(served.pid) <= before, SOON)


LARGE = b"POST /mcp HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000


QUICK = (("serve", "a byte", False), ("hypercorn", "a byte", True))

# When it does not all fit, the end of the connection is never seen: what shows it is the second comment that is written
# into the silence.
BEHIND = {"nothing": (b"", SOON), "a byte": (b"G", SOON), "a large request": (LARGE, 45.0)}


@pytest.mark.parametrize(
    ("command", "behind", "half_close"),
    [
        pytest.param(
            SERVERS[server],
            behind,
            half_close,
            marks=[] if (server, behind, half_close) in QUICK else slow,
            id=f"{server}-{behind}{'-half' * half_close}",
        )
        for server in SERVERS
        for behind in BEHIND
        for half_close in (True, False)
    ],
)
async def test_an_event_stream_whose_client_has_sent_more_and_left(
    tmp_path: Path, command: list[str] | None, behind: str, half_close: bool
) -> None:
    """What stands unread behind the request does not hide that the client has gone."""
    more, seconds = BEHIND[behind]
    async with demo(tmp_path, command) as served, httpx2.AsyncClient() as client:
        answer = await client.post(served.url, json=INITIALIZE, headers=HEADERS)
        session = answer.headers["mcp-session-id"]
        head = [
            "GET /mcp HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream", f"Mcp-Session-Id: {session}", "", "",
        ]  # fmt: skip
        before = all_open_files(served.pid)
        await many(served.port, "\r\n".join(head).encode() + more, half_close=half_close)
        await until(lambda: all_open_files(served.pid) <= before, seconds)
