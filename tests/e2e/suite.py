"""The official conformance suite, and what it is run against."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .harness import ROOT, TOOLS
from .tools import need, node, package

Check = tuple[str, str, str]


def everything() -> Path:
    """Where the SDK's everything-server is, and its client."""
    need(str(TOOLS / "everything" / "client.py"), "the everything-server")
    return TOOLS / "everything"


@asynccontextmanager
async def everything_over_http() -> AsyncIterator[str]:
    """The server as a process, on a port that was free a moment ago."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    command = [sys.executable, "-m", "mcp_everything_server", "--port", str(port), "--log-level", "WARNING"]
    environment = {**os.environ, "PYTHONPATH": str(everything())}
    process = await trio.lowlevel.open_process(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await _wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _wait_for_port(port: int) -> None:
    with trio.fail_after(30):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.05)
            else:
                return


def everything_over_stdio() -> str:
    """The server as a backend that is a child process, in a configuration."""
    code = "from mcp_everything_server.server import mcp; mcp.run('stdio')"
    return f'transport: stdio, command: {sys.executable}, args: [-c, "{code}"], env: {{PYTHONPATH: {everything()}}}'


def without_prefix(backend: str) -> str:
    """A configuration in which the backend's names stay as they are."""
    order = "conflictResolutionConfig: {priorityOrder: [every]}"
    return f"backends: [{{name: every, {backend}}}]\naggregation: {{conflictResolution: priority, {order}}}\n"


async def server_suite(url: str, revision: str, output: Path) -> Counter[Check]:
    """Run the suite's required set against a server; the checks that succeeded, and how often."""
    await _run("server", "--url", url, "--requirements", revision, "-o", str(output))
    return _succeeded(output.glob("*/checks.json"))


async def client_leg(scenario: str, revision: str, output: Path, *, through_gateway: bool) -> Counter[Check]:
    """Run one scenario for clients with the SDK's client; the checks that succeeded, and how often."""
    client = f"{sys.executable} {everything() / 'client.py'}"
    if through_gateway:
        client = f"{sys.executable} -m tests.e2e.through {everything() / 'client.py'}"
    await _run("client", "--command", client, "--scenario", scenario, "--spec-version", revision, "-o", str(output))
    return _succeeded(output.glob("**/checks.json"))


async def _run(*arguments: str) -> None:
    command = [node(), package("@modelcontextprotocol/conformance/dist/index.js"), *arguments]
    with trio.fail_after(120):
        await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT)


def _succeeded(paths: Iterable[Path]) -> Counter[Check]:
    succeeded: Counter[Check] = Counter()
    for path in paths:
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name)
        for check in json.loads(path.read_text()):
            if check["status"] == "SUCCESS":
                succeeded[scenario, check["id"], check.get("description", "")] += 1
    return succeeded
