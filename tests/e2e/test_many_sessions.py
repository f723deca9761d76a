"""Three hundred sessions come and go, and everything is as it was before (mission S11)."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
import pytest
import trio

from .backends.counting import open_counting_backend
from .harness import ROOT, GatewayProcess, alive, descendants, gateway, open_files, resident_bytes, until, write_config

pytestmark = pytest.mark.e2e

SESSIONS = 300
WAVE = 25
HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "many", "version": "1"}}


class Many:
    """Clients that are nothing but requests."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url = url
        self.client = client

    async def post(self, method: str, params: Any, session: str | None = None) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = HEADERS if session is None else {**HEADERS, "mcp-session-id": session}
        return await self.client.post(self.url, content=json.dumps(body), headers=headers)

    async def initialize(self) -> httpx2.Response:
        return await self.post("initialize", INITIALIZE)

    async def start_and_use(self, sessions: list[str]) -> None:
        answer = await self.initialize()
        assert answer.status_code == 200, answer.text
        session = answer.headers["mcp-session-id"]
        for name in ("a_counter", "b_counter", "c_notes"):
            called = await self.post("tools/call", {"name": name, "arguments": {}}, session)
            assert "result" in called.json(), called.text
        sessions.append(session)

    async def delete(self, session: str) -> None:
        answer = await self.client.delete(self.url, headers={"mcp-session-id": session})
        assert answer.status_code == 204, answer.text

    async def run(self, count: int, *, delete: bool) -> list[str]:
        """Start and use so many sessions, some at a time; end each if asked to."""
        sessions: list[str] = []
        for _ in range(0, count, WAVE):
            wave: list[str] = []
            async with trio.open_nursery() as nursery:
                for _ in range(WAVE):
                    nursery.start_soon(self.start_and_use, wave)
            if delete:
                async with trio.open_nursery() as nursery:
                    for session in wave:
                        nursery.start_soon(self.delete, session)
            sessions += wave
        return sessions


@asynccontextmanager
async def three_backends(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[GatewayProcess, Many, list[Any]]]:
    """A gateway with two HTTP backends and a child process, whose sessions take little to start."""
    child = ROOT / "benchmarks" / "soak" / "child.py"
    async with open_counting_backend() as a, open_counting_backend() as b:
        lines = [
            "backends:",
            f"  - {{name: a, transport: streamable-http, url: '{a.url}'}}",
            f"  - {{name: b, transport: streamable-http, url: '{b.url}'}}",
            f"  - {{name: c, transport: stdio, command: {sys.executable}, args: ['-S', '{child}']}}",
            "sessions:",
            *(
                f"  {key}: {value}"
                for key, value in {"maxPerClient": "1000", "readyTimeout": "20s", **settings}.items()
            ),
        ]
        config = write_config(tmp_path, "\n".join(lines) + "\n")
        limits = httpx2.Limits(max_connections=WAVE, max_keepalive_connections=WAVE)
        async with gateway(config) as served, httpx2.AsyncClient(timeout=60, limits=limits) as client:
            yield served, Many(served.url, client), [a, b]


def sessions_of(served: GatewayProcess) -> int:
    with urlopen(f"{served.origin}/status", timeout=5) as response:
        return int(json.load(response)["supervisor"]["sessions"])


async def back_to(served: GatewayProcess, files: int, backends: list[Any]) -> None:
    """Wait until no session is left, and nothing of any."""
    await until(lambda: sessions_of(served) == 0, 60)
    await until(lambda: not [c for c in descendants(served.pid).values() if "soak/child" in c], 20)
    await until(lambda: all(backend.sessions == {} for backend in backends), 20)
    await until(lambda: open_files(served.pid) <= files + 2, 20)


async def test_sessions_that_are_deleted_leave_nothing(tmp_path: Path) -> None:
    """By DELETE: descriptors, child processes, backend sessions and memory return to the baseline."""
    async with three_backends(tmp_path) as (served, many, backends):
        await many.run(2 * SESSIONS, delete=True)  # what is loaded once, and how the heap settles, is not a leak
        await back_to(served, 1000, backends)
        files = open_files(served.pid)
        growths = []
        for _ in range(3):  # a leak grows with every batch; a heap that settles late does not
            memory = resident_bytes(served.pid)
            await many.run(SESSIONS, delete=True)
            await back_to(served, files, backends)
            growths.append((resident_bytes(served.pid) - memory) / SESSIONS)
            if growths[-1] < 8 * 1024:
                break

        assert min(growths) < 8 * 1024, f"bytes that stay of each session, batch by batch: {growths}"


async def test_sessions_that_are_idle_leave_nothing(tmp_path: Path) -> None:
    """By the idle limit: three hundred clients that vanish without a word."""
    async with three_backends(tmp_path, idleTimeout="3s") as (served, many, backends):
        files = open_files(served.pid)
        await many.run(SESSIONS, delete=False)
        await back_to(served, files + WAVE, backends)


async def test_shutdown_ends_all_sessions_at_once(tmp_path: Path) -> None:
    """By SIGTERM, with all of them open: every backend gets its goodbye, and no process is left."""
    async with three_backends(tmp_path) as (served, many, backends):
        await many.run(SESSIONS, delete=False)
        children = descendants(served.pid)
        assert sessions_of(served) == SESSIONS
        assert sum("soak/child" in command for command in children.values()) == SESSIONS
        await served.stop()
        await until(lambda: all(backend.sessions == {} for backend in backends))

        assert [backend.counts["DELETE"] for backend in backends] == [SESSIONS, SESSIONS]
        assert [children[pid] for pid in children if alive(pid)] == []
