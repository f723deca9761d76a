"""`serve`: where it listens, what it says when it cannot, and how it ends."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import mcp
import pytest
import trio
from rich.console import Console

from vmcp_actors.cli.serve import serve_gateway
from vmcp_actors.config import Config
from vmcp_actors.errors import Draining
from vmcp_actors.gateway import demo_config
from vmcp_actors.settings import ServerSettings

from ..e2e.harness import texts, until
from .conftest import Run

COMMANDS = sys.modules["vmcp_actors.cli.main"]


@pytest.fixture
def taken_port() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def config_on_a_free_port(**changes: Any) -> Config:
    return attrs.evolve(demo_config(), server=ServerSettings(port=0), **changes)


@asynccontextmanager
async def serving(config: Config, **options: Any) -> AsyncIterator[tuple[str, StringIO, trio.Event]]:
    """`serve` in this process: its URL, what it has printed, and an event for its end."""
    output, ended = StringIO(), trio.Event()

    async def serve() -> None:
        await serve_gateway(config, Console(file=output, width=200), **options)
        ended.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await until(lambda: "Ctrl-C" in output.getvalue(), 30)
            match = re.search(r" at (http://\S+)", output.getvalue())
            assert match is not None
            yield match[1], output, ended
            if not ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)


# --- what cannot be served --------------------------------------------------------------------------------------------


@pytest.fixture
def socket_left_behind() -> Iterator[None]:
    """hypercorn does not close the socket that it could not bind; it goes before the next test looks."""
    yield
    gc.collect()


@pytest.mark.usefixtures("socket_left_behind")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_port_in_use(run: Run, taken_port: int) -> None:
    """Exit 1, and one line that names the address."""
    result = run("serve", "--port", taken_port)

    assert result.exit_code == 1
    assert result.output == f"error: cannot listen on 127.0.0.1:{taken_port}: Address already in use\n"


@pytest.mark.e2e
def test_a_port_in_use_for_the_real_program(taken_port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmcp_actors", "serve", "--port", str(taken_port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot listen on 127.0.0.1:{taken_port}: Address already in use\n"


@pytest.mark.usefixtures("socket_left_behind")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_an_address_that_is_not_ours(run: Run, host: str) -> None:
    result = run("serve", "--host", host, "--port", "0")

    assert result.exit_code == 1
    assert result.output.startswith(f"error: cannot listen on {host}:0: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--host", ""), ("--host", " "), ("--port", "65536"), ("--port", "http")])
def test_arguments_that_make_no_sense(run: Run, arguments: tuple[str, str]) -> None:
    """An empty host is refused: the system would take it for every address of the machine."""
    result = run("serve", *arguments)

    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in result.stderr


def test_a_broken_configuration(run: Run, tmp_path: Path) -> None:
    """Exit 1 and every problem, before anything is started."""
    config = tmp_path / "vmcp.yaml"
    config.write_text("backends: [{name: a, transport: sse}]\nserver: {port: x}\n")

    result = run("serve", "--config", config)

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: backends[0].url: missing; transport sse needs a URL (in vmcp.yaml)",
        "error: server.port: expected a port from 0 to 65535, got 'x' (in vmcp.yaml)",
    ]


# --- how the command ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "exit_code", "output"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        (Draining(), 1, "error: The gateway is shutting down\n"),
        (ExceptionGroup("", [OSError("no room")]), 1, "error: no room\n"),
    ],
    ids=["interrupt", "interrupt in a group", "ours", "system"],
)
def test_exit_codes(
    run: Run, raised: BaseException, exit_code: int, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 for Ctrl-C, 1 and a line for what a person can mend."""

    async def program(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(COMMANDS, "serve_gateway", program)

    result = run("serve")

    assert (result.exit_code, result.output) == (exit_code, output)


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(*_: Any, **__: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(COMMANDS, "serve_gateway", program)

    assert isinstance(run("serve").exception, LookupError)


def test_options_win_over_the_configuration(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[ServerSettings, bool]] = []

    async def program(config: Config, _: Console, *, path: Path | None, adjust: Callable[[Config], Config]) -> None:
        assert adjust(attrs.evolve(config, server=ServerSettings())).server.port in (4483, config.server.port)
        served.append((config.server, path is None))

    monkeypatch.setattr(COMMANDS, "serve_gateway", program)
    config = tmp_path / "vmcp.yaml"
    config.write_text("backends: [{name: a, transport: stdio, command: x}]\nserver: {host: 10.0.0.1, port: 1}\n")

    run("serve", "--config", config)
    run("serve", "--config", config, "--host", "::1", "--port", "0")
    run("serve")

    assert [(server.host, server.port, demo) for server, demo in served] == [
        ("10.0.0.1", 1, False),
        ("::1", 0, False),
        ("127.0.0.1", 4483, True),
    ]


# --- serving ----------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
async def test_sigterm_lets_running_calls_end(caplog: pytest.LogCaptureFixture) -> None:
    """A call under way is answered although the signal came; then the command returns."""
    config = config_on_a_free_port(warnings=("a key has no effect",))
    async with serving(config) as (url, output, ended):
        async with mcp.Client(url, mode="legacy") as client, trio.open_nursery() as nursery:
            await client.list_tools()  # or the client asks for it after the call, when its session is closing
            nursery.start_soon(_signal_after, 0.3, signal.SIGTERM)
            result = await client.call_tool("clock_sleep", {"seconds": 1})
            assert texts(result) == ["slept 1 s"]
        with trio.fail_after(20):
            await ended.wait()

    assert "No --config was given: these are the demo backends." in output.getvalue()
    assert output.getvalue().endswith("ended\n")
    assert "a key has no effect" in caplog.text


@pytest.mark.e2e
async def test_a_second_signal_cuts_the_draining_short() -> None:
    """The running call is cancelled and its client told, instead of being waited for."""
    async with serving(config_on_a_free_port()) as (url, _, ended):
        async with mcp.Client(url, mode="legacy") as client, trio.open_nursery() as nursery:
            nursery.start_soon(_signal_after, 0.3, signal.SIGINT)
            nursery.start_soon(_signal_after, 0.8, signal.SIGINT)
            start = trio.current_time()
            with pytest.raises(mcp.MCPError):
                await client.call_tool("clock_sleep", {"seconds": 60})
        with trio.fail_after(20):
            await ended.wait()

    assert trio.current_time() - start < 9


async def _signal_after(seconds: float, number: signal.Signals) -> None:
    await trio.sleep(seconds)
    os.kill(os.getpid(), number)


@pytest.mark.e2e
async def test_a_client_that_does_not_read_is_hung_up_on() -> None:
    """An unread stream of answers must not keep the command from ending."""
    async with serving(config_on_a_free_port()) as (url, _, ended):
        host, port = url.split("/")[2].split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(_unread_requests(host, port))
            await trio.sleep(0.5)
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(10):
                await ended.wait()


def _unread_requests(host: str, port: str) -> bytes:
    """Many requests for the status on one connection, whose answers nobody reads."""
    return f"GET /status HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() * 1000
