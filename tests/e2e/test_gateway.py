"""The gateway as people run it: as a process, with the SDK's client in front and real backends behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
import mcp
import pytest
import trio

from vmcp_actors.server.sockets import bound_own_listeners, hang_up

from .backends.counting import open_counting_backend
from .harness import alive, descendants, gateway, hypercorn_command, open_files, texts, until, write_config

pytestmark = pytest.mark.e2e

SERVERS = [pytest.param(None, id="serve"), pytest.param(hypercorn_command(), id="hypercorn")]


def status_of(url: str) -> Any:
    with urlopen(f"{url}/status", timeout=5) as response:
        return json.load(response)


@pytest.mark.parametrize("command", SERVERS)
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_transaction_lives_over_calls_and_is_private(command: list[str] | None, mode: Any) -> None:
    """The first promise: begin, add and roll back in three calls; a second client sees none of it."""
    async with gateway(command=command) as served:
        async with mcp.Client(served.url, mode=mode) as one, mcp.Client(served.url, mode=mode) as two:
            names = {tool.name for tool in (await one.list_tools()).tools}
            await one.call_tool("notes_begin", {})
            await one.call_tool("notes_add", {"text": "draft"})
            during = await one.call_tool("notes_list", {})
            elsewhere = await two.call_tool("notes_list", {})
            await one.call_tool("notes_rollback", {})
            after = await one.call_tool("notes_list", {})

            assert {"notes_begin", "notes_add", "notes_rollback", "clock_now", "clock_countdown"} <= names
            assert during.structured_content == {"notes": [{"text": "draft", "pending": True}], "transaction": True}
            assert elsewhere.structured_content == {"notes": [], "transaction": False}
            assert after.structured_content == {"notes": [], "transaction": False}
        await until(lambda: not descendants_of_backends(served.pid))


def descendants_of_backends(pid: int) -> list[str]:
    return [command for command in descendants(pid).values() if "vmcp_actors.demo" in command]


async def test_progress_and_log_reach_the_client() -> None:
    """From a child process through the gateway to the SDK's callbacks."""
    progress: list[float] = []
    logged: list[Any] = []

    async def on_progress(value: float, total: float | None, message: str | None) -> None:
        progress.append(value)

    async def on_log(params: Any) -> None:
        logged.append(params.data)

    async with gateway() as served, mcp.Client(served.url, mode="legacy", logging_callback=on_log) as client:
        result = await client.call_tool("clock_countdown", {"seconds": 0.4, "step": 0.1}, progress_callback=on_progress)

        assert not result.is_error
        assert progress == sorted(progress)
        assert len(progress) == 4
        assert logged


async def test_the_backend_sees_exactly_the_requests_it_must(tmp_path: Path) -> None:
    """S3: one initialize, one list per kind, one GET stream, a hundred calls on kept connections, one DELETE."""
    async with open_counting_backend() as backend:
        config = write_config(tmp_path, backend_config(("counted", backend.url)))
        async with gateway(config) as served:
            async with mcp.Client(served.url, mode="legacy") as client:
                for number in range(100):
                    result = await client.call_tool("counted_counter", {})
                    assert texts(result) == [str(number + 1)]
            await until(lambda: backend.counts["DELETE"] == 1)

        wanted = {
            "initialize": 1,
            "notifications/initialized": 1,
            "tools/list": 1,
            "resources/list": 1,
            "resources/templates/list": 1,
            "prompts/list": 1,
            "GET": 1,
            "tools/call": 100,
            "DELETE": 1,
        }
        assert {name: backend.counts[name] for name in wanted} == wanted
        assert backend.counts["post"] == 106
        assert backend.counts["connections"] == 2
        assert backend.sessions == {}


async def test_one_silent_backend_among_twenty(tmp_path: Path) -> None:
    """S5: the session is ready after `readyTimeout`; when the silent one answers, its tools are announced."""
    changed = trio.Event()

    async def on_message(message: Any) -> None:
        if type(message).__name__ == "ToolListChangedNotification":
            changed.set()

    async with open_counting_backend() as backend, open_counting_backend(silent=True) as silent:
        backends = [(f"b{number}", backend.url) for number in range(19)]
        config = write_config(tmp_path, backend_config(*backends, ("late", silent.url), readyTimeout="1s"))
        async with gateway(config) as served:
            start = trio.current_time()
            async with mcp.Client(served.url, mode="legacy", message_handler=on_message) as client:
                before = {tool.name for tool in (await client.list_tools()).tools}
                assert 1.0 <= trio.current_time() - start < 4.0
                silent.silent = False
                with trio.fail_after(20):
                    await changed.wait()
                after = {tool.name for tool in (await client.list_tools()).tools}

                assert not any(name.startswith("late_") for name in before)
                assert "late_echo" in after
                assert texts(await client.call_tool("late_echo", {"text": "here"})) == ["here"]


async def test_no_backend_at_all(tmp_path: Path) -> None:
    """S6: the session lives, lists nothing, and says why."""
    config = write_config(tmp_path, backend_config(("a", "http://127.0.0.1:9/mcp"), ("b", "http://127.0.0.1:9/mcp")))
    async with gateway(config) as served, mcp.Client(served.url, mode="legacy") as client:
        assert (await client.list_tools()).tools == []
        with pytest.raises(mcp.MCPError) as caught:
            await client.call_tool("a_anything", {})

        assert caught.value.message.startswith("No tools available: all backends failed to initialize")
        assert "a: unavailable: connection refused" in caught.value.message


async def test_a_child_killed_in_the_middle_of_a_call() -> None:
    """S7: the call fails at once and names the backend; the others go on; the killed one comes back."""
    async with gateway() as served, mcp.Client(served.url, mode="legacy") as client:
        errors: list[str] = []

        async def sleep() -> None:
            try:
                await client.call_tool("clock_sleep", {"seconds": 30})
            except mcp.MCPError as error:
                errors.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await until(lambda: status_of(served.origin)["sessions"][0]["running_calls"] == 1)
            (clock,) = [pid for pid, command in descendants(served.pid).items() if "demo.clock" in command]
            start = trio.current_time()
            os.kill(clock, signal.SIGKILL)
        failed_after = trio.current_time() - start
        notes = await client.call_tool("notes_list", {})
        clock_again = await client.call_tool("clock_now", {})

        assert errors == ["backend clock: connection lost during tools/call"]
        assert failed_after < 1.0
        assert not notes.is_error
        assert not clock_again.is_error


async def test_an_http_backend_restarted_under_a_session(tmp_path: Path) -> None:
    """S8: its sessions are gone; the next call says so in its `_meta`, and the session goes on."""
    async with open_counting_backend() as backend:
        config = write_config(tmp_path, backend_config(("b", backend.url)))
        async with gateway(config) as served, mcp.Client(served.url, mode="legacy") as client:
            first = [texts(await client.call_tool("b_counter", {})) for _ in range(2)]
            backend.forget_sessions()
            again = await client.call_tool("b_counter", {})

            assert first == [["1"], ["2"]]
            assert texts(again) == ["1"]
            assert again.meta is not None
            assert again.meta["io.vmcp-actors/backendReinitialized"] is True
            assert backend.counts["initialize"] == 2


@contextmanager
def stuck_reader(origin: str, tool: str) -> Iterator[None]:
    """A client that asks for more than any buffer holds, and reads nothing of it."""
    host, port = origin.removeprefix("http://").split(":")
    initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "stuck", "version": "1"}}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    connection = HTTPConnection(host, int(port), timeout=10)
    connection.request("POST", "/mcp", rpc("initialize", initialize), headers)
    response = connection.getresponse()
    response.read()
    headers["mcp-session-id"] = response.headers["mcp-session-id"]
    connection.request("POST", "/mcp", rpc("tools/call", {"name": tool, "arguments": {"bytes": 30_000_000}}), headers)
    try:
        yield
    finally:
        connection.close()


def rpc(method: str, params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@pytest.mark.parametrize("command", SERVERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_end_everything_also_with_open_streams_and_stuck_readers(
    command: list[str] | None, number: signal.Signals, tmp_path: Path
) -> None:
    """No client can hold the gateway's end: not with an open stream, and not by not reading."""
    async with open_counting_backend() as backend:
        demo = f"  - {{name: notes, transport: stdio, command: {sys.executable}, args: [-m, vmcp_actors.demo.notes]}}\n"
        config = write_config(
            tmp_path, backend_config(("b", backend.url)).rstrip() + f"\n{demo}server: {{sendTimeout: 3s}}\n"
        )
        async with gateway(config, command=command) as served:
            async with open_get_stream(served.origin), run_in_thread(stuck_reader(served.origin, "b_big")):
                await trio.sleep(1.0)
                children = descendants(served.pid)
                served.signal(number)
                start = trio.current_time()
                status = await served.wait(25)
                took = trio.current_time() - start

        assert status == 0, served.log
        assert took < (8 if command is None else 15)
        assert any("vmcp_actors.demo" in child for child in children.values())
        await until(lambda: not [children[pid] for pid in children if alive(pid)])
        await until(lambda: backend.sessions == {})


@asynccontextmanager
async def run_in_thread(manager: AbstractContextManager[None]) -> AsyncIterator[None]:
    """A blocking context manager, entered and left without blocking the loop."""
    await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield
    finally:
        await trio.to_thread.run_sync(manager.__exit__, None, None, None)


@asynccontextmanager
async def open_get_stream(origin: str) -> AsyncIterator[None]:
    """A client with an open GET stream, which it reads."""
    client = httpx2.AsyncClient(timeout=30)
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "open", "version": "1"}}
    async with client, trio.open_nursery() as nursery:
        answer = await client.post(f"{origin}/mcp", content=rpc("initialize", initialize), headers=headers)
        headers["mcp-session-id"] = answer.headers["mcp-session-id"]

        async def read(*, task_status: trio.TaskStatus[None]) -> None:
            try:
                async with client.stream("GET", f"{origin}/mcp", headers=headers) as response:
                    task_status.started()
                    async for _ in response.aiter_raw():
                        pass
            except httpx2.HTTPError:
                pass

        await nursery.start(read)
        yield
        nursery.cancel_scope.cancel()


def backend_config(*backends: tuple[str, str], **sessions: str) -> str:
    lines = ["backends:"]
    lines += [f"  - {{name: {name}, transport: streamable-http, url: '{url}'}}" for name, url in backends]
    if sessions:
        lines += ["sessions:", *(f"  {key}: {value}" for key, value in sessions.items())]
    return "\n".join(lines) + "\n"


async def test_a_client_that_closes_its_connection_leaves_nothing_behind() -> None:
    """At once, and not when the time for kept connections is over."""
    ping = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with gateway() as served:
        before = open_files(served.pid)
        for number in range(60):
            async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
                await stream.send_all(ping)
                if number % 2:
                    await stream.receive_some()
        await until(lambda: open_files(served.pid) <= before, 5)


def test_looking_at_our_own_sockets_leaves_no_descriptor() -> None:
    """It is done ten times a second while a stuck client holds up the end."""
    before = open_files(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(20):
            hang_up(listener.getsockname()[1])
            bound_own_listeners(20.0)
    assert open_files(os.getpid()) == before


async def test_bound_to_all_addresses_loopback_names_are_asked_for_on_loopback(tmp_path: Path) -> None:
    """Also where IPv4 comes in by an IPv6 socket."""
    config = write_config(tmp_path, "backends: [{name: a, transport: stdio, command: none}]\nserver: {host: '::'}\n")
    async with gateway(config) as served:
        request = b"GET /status HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
            await stream.send_all(request)
            assert b"421" in await stream.receive_some()
