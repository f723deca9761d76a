"""What really happens to backends, while many clients are at work: none may notice more than it must."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
import trio

from .backends.counting import CountingBackend, open_counting_backend
from .harness import GatewayProcess, all_open_files, gateway, until, write_config
from .test_gateway import open_get_stream
from .test_many_sessions import Many, sessions_of

pytestmark = pytest.mark.e2e

CLIENTS = 15
REINITIALIZED = "io.vmcp-actors/backendReinitialized"


@asynccontextmanager
async def under_load(
    tmp_path: Path, *, more: str = ""
) -> AsyncIterator[tuple[GatewayProcess, list[CountingBackend], Counter[str]]]:
    """Clients that call two backends without a pause while the body runs, and what they got."""
    seen: Counter[str] = Counter()
    stopping = False

    async def work(url: str) -> None:
        async with mcp.Client(url, mode="legacy", cache=None) as client:
            while not stopping:
                for tool in ("a_counter", "b_counter"):
                    seen[f"{tool[0]}: {await outcome(client, tool)}"] += 1

    async with open_counting_backend() as a, open_counting_backend() as b:
        entries = "".join(
            f"  - {{name: {name}, transport: streamable-http, url: '{backend.url}'}}\n"
            for name, backend in (("a", a), ("b", b))
        )
        config = write_config(tmp_path, f"backends:\n{entries}sessions: {{maxPerClient: 100}}\n{more}")
        async with gateway(config) as served:
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(work, served.url)
                await until(lambda: seen["a: ok"] > CLIENTS and seen["b: ok"] > CLIENTS, 30)
                yield served, [a, b], seen
                stopping = True


async def outcome(client: mcp.Client, tool: str, **arguments: Any) -> str:
    """What a client sees of a call, in a few words."""
    try:
        result = await client.call_tool(tool, arguments)
    except mcp.MCPError as error:
        return error.message
    if result.is_error:
        return "tool error"
    return "ok, after a new session" if (result.meta or {}).get(REINITIALIZED) else "ok"


async def test_a_backend_that_forgets_every_session_costs_no_call(tmp_path: Path) -> None:
    """Each client's session is made anew, once, however many calls found out; every call is answered."""
    async with under_load(tmp_path) as (_, (a, b), seen):
        for _ in range(3):
            before = seen["a: ok"]
            a.forget_sessions()
            await until(lambda before=before: seen["a: ok"] > before + 2 * CLIENTS, 30)
    assert set(seen) == {"a: ok", "a: ok, after a new session", "b: ok"}, seen
    assert seen["a: ok, after a new session"] == 3 * CLIENTS
    assert a.counts["initialize"] == 4 * CLIENTS
    assert b.counts["initialize"] == CLIENTS
    assert a.counts["tools/call"] - seen.total() + seen["b: ok"] == 3 * CLIENTS  # those that were answered with 404


async def test_a_backend_whose_connections_break_costs_the_calls_that_were_on_them(tmp_path: Path) -> None:
    """They may have been run, so they fail; none is sent again; the others do not notice."""
    async with under_load(tmp_path) as (_, (a, _), seen):
        before = seen["a: ok"]
        a.close_connections()
        await until(lambda: seen["a: ok"] > before + 2 * CLIENTS, 30)
    lost = {key: count for key, count in seen.items() if key not in ("a: ok", "b: ok")}
    assert all(key.startswith("a: backend a: connection lost") for key in lost), seen
    assert sum(lost.values()) <= CLIENTS
    assert a.counts["tools/call"] <= sum(count for key, count in seen.items() if key[0] == "a")


async def test_a_backend_that_hangs_holds_only_its_own_calls(tmp_path: Path) -> None:
    """It takes connections and requests, and says nothing more: its calls end in time, and it is used again."""
    async with under_load(tmp_path, more="operational: {timeouts: {default: 2s}}\n") as (_, (a, _), seen):
        a.silent = True
        await until(lambda: seen["a: backend a: no answer to tools/call within 2 s"] >= CLIENTS, 30)
        a.silent = False
        a.close_connections()
        before = seen["a: ok"]
        await until(lambda: seen["a: ok"] > before + CLIENTS, 30)
    assert {key for key in seen if key[0] == "b"} == {"b: ok"}


async def test_sigterm_under_load_answers_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    """With open streams, and calls of all clients under way."""
    seen: Counter[str] = Counter()

    async def work(url: str, running: trio.Event) -> None:
        try:
            async with mcp.Client(url, mode="legacy", cache=None) as client:
                await client.list_tools()
                seen["connected"] += 1
                await running.wait()
                seen[await outcome(client, "a_sleep", seconds=2)] += 1
        except BaseExceptionGroup:
            seen["then the connection ended"] += 1

    async with open_counting_backend() as a:
        config = write_config(tmp_path, f"backends: [{{name: a, transport: streamable-http, url: '{a.url}'}}]\n"
                              "sessions: {maxPerClient: 100}\n")  # fmt: skip
        async with gateway(config) as served, open_get_stream(served.origin), trio.open_nursery() as nursery:
            running = trio.Event()
            for _ in range(CLIENTS):
                nursery.start_soon(work, served.url, running)
            await until(lambda: seen["connected"] == CLIENTS, 30)
            running.set()
            await until(lambda: a.counts["tools/call"] == CLIENTS)
            start = trio.current_time()
            served.signal(signal.SIGTERM)
            assert await served.wait(20) == 0
            took = trio.current_time() - start
        assert seen["ok"] == CLIENTS, seen
        assert took < 8
        assert a.sessions == {}


@pytest.mark.slow
async def test_a_thousand_sessions_fit_and_the_next_one_is_refused(tmp_path: Path) -> None:
    """S13; and when they have ended nothing is left of them."""
    async with open_counting_backend() as a:
        config = write_config(tmp_path, f"backends: [{{name: a, transport: streamable-http, url: '{a.url}'}}]\n"
                              "sessions: {maxPerClient: 2000, readyTimeout: 30s}\n")  # fmt: skip
        limits = httpx2.Limits(max_connections=25, max_keepalive_connections=25)
        async with gateway(config) as served, httpx2.AsyncClient(timeout=60, limits=limits) as client:
            before = all_open_files(served.pid)
            many = Many(served.url, client)
            sessions: list[str] = []

            async def start() -> None:
                answer = await many.initialize()
                assert answer.status_code == 200, answer.text
                sessions.append(answer.headers["mcp-session-id"])

            for _ in range(40):
                async with trio.open_nursery() as nursery:
                    for _ in range(25):
                        nursery.start_soon(start)
            refused = await many.initialize()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert "error" in refused.json()

            for session in sessions[:25]:
                await many.delete(session)
            assert (await many.initialize()).status_code == 200
            await until(lambda: sessions_of(served) == 976)
            for session in sessions[25:]:
                await many.delete(session)
            await until(lambda: len(a.sessions) == 1)
            await until(lambda: all_open_files(served.pid) <= before + 35, 30)
