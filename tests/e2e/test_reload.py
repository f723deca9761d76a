"""A configuration that changes under a running gateway: sessions live on, and clients hear of what has changed."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp
import mcp_types
import pytest
import trio

from .backends.counting import open_counting_backend
from .harness import BIN, GatewayProcess, descendants, gateway, hypercorn_command, until, write_config

pytestmark = pytest.mark.e2e


def demo(name: str) -> str:
    return f"  - {{name: {name}, transport: stdio, command: {sys.executable}, args: ['-m', vmcp_actors.demo.{name}]}}\n"


NOTES = "backends:\n" + demo("notes")
BOTH = NOTES + demo("clock")


class Told:
    """What a client was told without having asked."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.methods.append("tools")


@asynccontextmanager
async def client_of(served: GatewayProcess) -> AsyncIterator[tuple[mcp.Client, Told]]:
    told = Told()
    async with mcp.Client(served.url, mode="legacy", cache=None, message_handler=told) as client:
        yield client, told


async def names(client: mcp.Client) -> set[str]:
    return {tool.name.partition("_")[0] for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize(
    "command",
    [pytest.param(None, id="serve"), pytest.param(hypercorn_command(), id="hypercorn", marks=pytest.mark.slow)],
)
async def test_backends_come_and_go_with_the_file(tmp_path: Path, command: list[str] | None) -> None:
    """The session that is in the middle of a transaction stays in it."""
    path = write_config(tmp_path, NOTES)
    async with gateway(path, command=command) as served, client_of(served) as (client, told):
        await client.call_tool("notes_begin", {})
        path.write_text(BOTH)
        await until(lambda: told.methods, 20)
        assert await names(client) == {"notes", "clock"}
        assert not (await client.call_tool("clock_now", {})).is_error

        path.write_text(NOTES)
        await until(lambda: len(told.methods) == 2, 20)
        assert await names(client) == {"notes"}
        await until(lambda: not [line for line in descendants(served.pid).values() if "demo.clock" in line])
        listed = await client.call_tool("notes_list", {})
        assert listed.structured_content == {"notes": [], "transaction": True}
        with pytest.raises(mcp.MCPError, match="Unknown tool: clock_now"):
            await client.call_tool("clock_now", {})


async def test_a_hangup_reloads_at_once_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = write_config(tmp_path, NOTES)
    async with gateway(path) as served, client_of(served) as (client, told):
        path.write_text(NOTES + "  - {name: x, transport: pigeon}\nsesions: {}\n")
        served.signal(signal.SIGHUP)
        await until(lambda: any("was not reloaded" in line for line in served.log))
        await until(lambda: sum("(in vmcp.yaml)" in line for line in served.log) == 2)
        assert await names(client) == {"notes"}

        path.unlink()
        served.signal(signal.SIGHUP)
        await until(lambda: any("cannot be read" in line for line in served.log))
        assert await names(client) == {"notes"}

        path.write_text(BOTH + "server: {port: 4999}\nname: other\nsessions: {idleTimeout: 7m}\n")
        served.signal(signal.SIGHUP)
        await until(lambda: any("was reloaded: 2 backends (notes, clock)" in line for line in served.log))
        await until(lambda: told.methods, 20)
        assert await names(client) == {"notes", "clock"}
        assert [line for line in served.log if "`name` needs a restart" in line]
        # --port has the last word, now as before.
        assert not [line for line in served.log if "`server` needs a restart" in line]


async def test_a_backend_that_moves_is_found_there_by_live_sessions(tmp_path: Path) -> None:
    """Its old place is told goodbye, and never hears of the session again."""
    async with open_counting_backend() as old, open_counting_backend() as new:
        config = "backends: [{{name: a, transport: streamable-http, url: '{}'}}]\n"
        path = write_config(tmp_path, config.format(old.url))
        async with gateway(path) as served, client_of(served) as (client, _):
            await client.call_tool("a_counter", {})
            path.write_text(config.format(new.url))
            served.signal(signal.SIGHUP)
            await until(lambda: new.sessions)
            assert old.counts["DELETE"] == 1
            assert old.sessions == {}
            result = await client.call_tool("a_counter", {})
            assert not result.is_error
            assert new.counts["initialize"] == 1


async def test_the_end_of_its_terminal_ends_it(tmp_path: Path) -> None:
    """That is told by SIGHUP, too: a gateway must not stay behind a window that was closed."""
    path = write_config(tmp_path, NOTES)
    master, slave = pty.openpty()
    command = [str(BIN / "vmcp-actors"), "serve", "--port", "0", "--config", str(path)]
    process = await trio.lowlevel.open_process(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=_take_terminal
    )
    os.close(slave)
    seen = b""
    with trio.fail_after(30):
        while b"Ctrl-C ends it" not in seen:
            seen += await trio.to_thread.run_sync(os.read, master, 4096)
        os.close(master)
        await process.wait()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
