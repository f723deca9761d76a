"""Runs another gateway for as long as it is measured."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.error import URLError
from urllib.request import Request, urlopen

import trio

from ..processes import Running
from .adapter import ROOT, Peer
from .installing import environment

READY_WITHIN: Final = 60.0
END_WITHIN: Final = 3.0
KEPT_OUTPUT: Final = 4000
PROBE: Final = (
    b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",'
    b' "capabilities": {}, "clientInfo": {"name": "probe", "version": "1"}}}'
)
HEADERS: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


@asynccontextmanager
async def serving(peer: Peer, backend_url: str) -> AsyncIterator[Running]:
    """Run it in front of a backend. When the body begins it has answered `initialize`; at the end nothing is left.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the end of its output.
    """
    port = _free_port()
    process = await trio.lowlevel.open_process(
        peer.arguments(port=port, backend_url=backend_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(peer),
        cwd=ROOT,
        start_new_session=True,
    )
    output = bytearray()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, process, output)
            await _until_ready(peer, process, peer.address(port), output)
            yield Running(process.pid, peer.address(port))
            nursery.cancel_scope.cancel("it is no longer needed")
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def _read(process: trio.Process, output: bytearray) -> None:
    """Read what it writes, and keep the end of it: a full pipe would stop it."""
    assert process.stdout is not None
    async for chunk in process.stdout:
        output += chunk
        del output[:-KEPT_OUTPUT]


async def _until_ready(peer: Peer, process: trio.Process, url: str, output: bytearray) -> None:
    with trio.move_on_after(READY_WITHIN):
        while process.poll() is None:
            if await trio.to_thread.run_sync(_answers, url):
                return
            await trio.sleep(0.1)
    state = "was not ready in time" if process.returncode is None else f"ended with {process.returncode}"
    raise RuntimeError(f"{peer.name} {state}: {output.decode(errors='replace')[-500:]}")


def _answers(url: str) -> bool:
    try:
        with urlopen(Request(url, PROBE, HEADERS), timeout=5) as response:
            return bool(response.status == 200 and b'"result"' in response.read1())
    except (URLError, OSError):
        return False


async def _end(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(END_WITHIN):
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
