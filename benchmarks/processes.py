"""Starts what is measured, as processes of its own, and reads what they cost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import trio
from attrs import frozen

from . import proc

URL = re.compile(rb"http://[\d.]+:\d+(?:/\w+)?")
READY_WITHIN = 60.0
END_WITHIN = 15.0
"""Seconds that a server has to end when it is asked to; then it is killed, with all that it has started."""


@frozen
class Running:
    """A server process and where it listens."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """User and system time so far, with that of the processes that it has started and that still run."""
        return proc.cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return proc.resident_bytes(self.pid)


@asynccontextmanager
async def server(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    """Run a server that prints its URL, for the body. At the end nothing of it is left, nor of what it started."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if env is None else {**os.environ, **env},
        start_new_session=True,  # so that Ctrl-C does not end it under our hands, and that it ends as a group
    )
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(READY_WITHIN):
                url = await nursery.start(_read_output, process)
            yield Running(process.pid, url)
            nursery.cancel_scope.cancel("it is no longer needed")
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(END_WITHIN):
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _read_output(process: trio.Process, *, task_status: trio.TaskStatus[str]) -> None:
    """Wait for the URL, and go on reading: a full pipe would stop the server."""
    assert process.stdout is not None
    seen: bytes | None = b""
    async for chunk in process.stdout:
        if seen is not None:
            seen += chunk
            match = URL.search(seen)
            if match is not None and b"\n" in seen[match.end() :]:
                task_status.started(match[0].decode())
                seen = None
    if seen is not None:
        raise RuntimeError(f"it ended before it was ready: {seen.decode()}")


# --- what is measured -------------------------------------------------------------------------------------------------


def backend(*options: str) -> Sequence[str]:
    """The command of an echo backend; see `echo_backend` for its options."""
    return [sys.executable, "-m", "benchmarks.echo_backend", *options]


def over_http(urls: Sequence[str]) -> list[dict[str, Any]]:
    """Backends for a configuration, under the names b0, b1, …"""
    return [{"name": f"b{n}", "transport": "streamable-http", "url": url} for n, url in enumerate(urls)]


def over_stdio(command: Sequence[str]) -> list[dict[str, Any]]:
    """One child process as the backend b0."""
    return [{"name": "b0", "transport": "stdio", "command": command[0], "args": list(command[1:])}]


@asynccontextmanager
async def gateway(
    backends: Sequence[Mapping[str, Any]],
    *,
    http: str = "fast",
    sessions: Mapping[str, Any] | None = None,
    **sections: Mapping[str, Any],
) -> AsyncIterator[Running]:
    """A gateway in front of these backends.

    Args:
        http: its `server.http`.
        sessions: settings of sessions besides limits that are out of the way.
        sections: other sections of the configuration.
    """
    limits = {"maxPerClient": 10_000, "maxSessions": 10_000, "idleTimeout": "30m", **(sessions or {})}
    config = {"backends": list(backends), "sessions": limits, "server": {"http": http}, **sections}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vmcp.json"
        path.write_text(json.dumps(config))
        async with server(serve("--config", str(path))) as running:
            yield running


def serve(*options: str) -> Sequence[str]:
    """The command of a gateway at any free port."""
    return [sys.executable, "-m", "vmcp_actors", "serve", "--port", "0", *options]


# --- what they say of themselves --------------------------------------------------------------------------------------


async def counts(backend: Running) -> dict[str, int]:
    """What has come to an echo backend since the counts were reset."""
    return await trio.to_thread.run_sync(_fetch, backend, "/counts", "GET")


async def reset_counts(backend: Running) -> None:
    """Count from nothing."""
    await trio.to_thread.run_sync(_fetch, backend, "/counts", "DELETE")


async def status(gateway: Running) -> dict[str, Any]:
    """A gateway's `/status`."""
    return await trio.to_thread.run_sync(_fetch, gateway, "/status", "GET")


async def status_until(gateway: Running, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a gateway says of itself what is wanted; only by asking can it be known. Raises trio.TooSlowError."""
    with trio.fail_after(30):
        while not condition(await status(gateway)):  # noqa: ASYNC110
            await trio.sleep(0.02)


def _fetch(running: Running, path: str, method: str) -> Any:
    address = urlsplit(running.url)
    with urlopen(Request(f"http://{address.netloc}{path}", method=method), timeout=30) as response:
        return json.load(response)
