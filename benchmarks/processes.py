"""Starts what is measured, as processes of its own, and reads what they cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

TICKS = os.sysconf("SC_CLK_TCK")
URL = re.compile(rb"http://[\d.]+:\d+(?:/\w+)?")


@frozen
class Running:
    """A server process and where it listens."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> list[int]:
    """The child processes of a process, whichever of its threads has started them."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


@asynccontextmanager
async def server(command: Sequence[str]) -> AsyncIterator[Running]:
    """Run a server that prints its URL, for the body."""
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                url = await nursery.start(_read_output, process)
            yield Running(process.pid, url)
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
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


@asynccontextmanager
async def backend_and_gateway(copies: int = 1, *, http: str = "fast") -> AsyncIterator[tuple[Running, Running]]:
    """An echo backend, and a gateway in front of it under the names b0, b1, … `http` is its `server.http`."""
    backend_command = [sys.executable, "-m", "benchmarks.echo_backend"]
    async with server(backend_command) as backend:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "vmcp.yaml"
            lines = [f"  - {{name: b{n}, transport: streamable-http, url: '{backend.url}'}}" for n in range(copies)]
            limits = "sessions: {maxPerClient: 10000, maxSessions: 10000}"
            config.write_text("\n".join(["backends:", *lines, limits, f"server: {{http: {http}}}", ""]))
            command = [sys.executable, "-m", "vmcp_actors", "serve", "--port", "0", "--config", str(config)]
            async with server(command) as gateway:
                yield backend, gateway
