"""The child process transport, with real processes that behave badly."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError

from vmcp_actors.errors import BackendUnavailable
from vmcp_actors.model import BackendSpec, Secret, StdioCommand
from vmcp_actors.transports.stdio import StreamDispatcher, open_stdio

pytestmark = pytest.mark.e2e

SERVER = """
import json, os, subprocess, sys, time
def answer(message, result):
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "pid":
        answer(message, {"pid": os.getpid()})
    elif method == "spawn":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
        answer(message, {"pid": child.pid})
    elif method == "environment":
        answer(message, dict(os.environ, cwd=os.getcwd()))
    elif method == "noise":
        print("this is not a message", flush=True)
        print("a complaint", file=sys.stderr, flush=True)
        answer(message, {})
    elif method == "back":
        answer(message, message["params"])
    elif method == "list":
        answer(message, [1])
    elif method == "flood":
        sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
        answer(message, {"big": "y" * 1_000_000})
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER + "\ntime.sleep(600)"


async def ignore(*_: Any) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return {}


def intercept(_: str, __: Mapping[str, Any] | None) -> bool:
    return True


def spec(code: str, **options: Any) -> BackendSpec:
    return BackendSpec("child", StdioCommand(sys.executable, ("-c", code), **options))


@asynccontextmanager
async def started(backend: BackendSpec) -> AsyncIterator[StreamDispatcher]:
    """A running dispatcher over a child."""
    async with open_stdio(backend) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, ignore, ignore, intercept)
        yield dispatcher
        nursery.cancel_scope.cancel()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_child_ends_with_the_connection() -> None:
    """Closing its input is enough for one that listens."""
    async with started(spec(SERVER)) as dispatcher:
        pid = (await dispatcher.send_raw_request("pid", None))["pid"]
        assert alive(pid)

    assert not alive(pid)


async def test_grandchildren_end_with_the_connection() -> None:
    """Also when the child itself ends by itself at the end of its input, and leaves them behind."""
    async with started(spec(SERVER)) as dispatcher:
        pid = (await dispatcher.send_raw_request("spawn", None))["pid"]
        assert alive(pid)
    with trio.fail_after(5):
        while alive(pid):
            await trio.sleep(0.01)


async def test_a_child_that_ignores_everything_is_killed_in_time() -> None:
    """End of input, SIGTERM, SIGKILL: at most four seconds, and bounded also when the caller is cancelled."""
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with started(spec(STUBBORN)) as dispatcher:
            pid = (await dispatcher.send_raw_request("pid", None))["pid"]
            scope.cancel()

    assert not alive(pid)
    assert 3.5 < trio.current_time() - start < 8


async def test_a_child_that_is_killed_ends_the_connection() -> None:
    """The dispatcher's run returns, so that whoever keeps the connection knows."""
    async with open_stdio(spec(SERVER)) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, ignore, ignore, intercept)
        pid = (await dispatcher.send_raw_request("pid", None))["pid"]
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(5):
            while nursery.child_tasks:
                await trio.sleep(0.01)


async def test_the_child_gets_its_environment_and_directory_and_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in our environment may be a secret of somebody else's."""
    monkeypatch.setenv("OUR_SECRET", "hidden")
    async with started(spec(SERVER, env={"KEY": Secret("value")}, cwd=str(tmp_path))) as dispatcher:
        environment = await dispatcher.send_raw_request("environment", None)

    assert environment["KEY"] == "value"
    assert environment["cwd"] == str(tmp_path)
    assert "PATH" in environment
    assert "OUR_SECRET" not in environment


async def test_noise_on_its_output_is_skipped_and_its_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A banner on stdout costs a warning, not the connection."""
    with caplog.at_level(logging.INFO):
        async with started(spec(SERVER)) as dispatcher:
            await dispatcher.send_raw_request("noise", None)
            await dispatcher.send_raw_request("pid", None)

    assert "not a message" in caplog.text
    assert "[child] a complaint" in caplog.text


async def test_large_output_on_both_pipes_does_not_block() -> None:
    """Errors are drained, whatever their amount."""
    async with started(spec(SERVER)) as dispatcher:
        with trio.fail_after(20):
            result = await dispatcher.send_raw_request("flood", None)

    assert len(result["big"]) == 1_000_000


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (StdioCommand("no-such-command-here"), "cannot start 'no-such-command-here': No such file or directory"),
        (StdioCommand(sys.executable, cwd="/no/such/place"), "in /no/such/place: No such file or directory"),
        (StdioCommand("/etc/passwd"), "cannot start '/etc/passwd': Permission denied"),
    ],
)
async def test_a_command_that_cannot_be_started_says_what_and_where(command: StdioCommand, said: str) -> None:
    """In words that its owner understands."""
    with pytest.raises(BackendUnavailable, match=said):
        async with open_stdio(BackendSpec("child", command)):
            pass


async def test_deep_nesting_passes_both_ways_and_ends_nothing() -> None:
    """One client's odd arguments are nobody else's trouble."""
    deep: Any = "bottom"
    for _ in range(600):
        deep = [deep]
    async with open_stdio(spec(SERVER)) as child, trio.open_nursery() as nursery:
        await nursery.start(child.run, ignore, ignore, intercept)
        with trio.fail_after(20):
            assert await child.send_raw_request("back", {"x": deep}) == {"x": deep}
            assert "pid" in await child.send_raw_request("pid", None)
        nursery.cancel_scope.cancel()


async def test_a_result_that_is_no_object_ends_its_request() -> None:
    async with open_stdio(spec(SERVER)) as child, trio.open_nursery() as nursery:
        await nursery.start(child.run, ignore, ignore, intercept)
        with trio.fail_after(20), pytest.raises(MCPError, match="the result is no object"):
            await child.send_raw_request("list", None)
        nursery.cancel_scope.cancel()
