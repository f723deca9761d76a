"""The official conformance suite: what succeeds against a backend directly succeeds through us (mission P5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from .harness import TOOLS, gateway, write_config
from .tools import need, node, package

pytestmark = pytest.mark.e2e

Check = tuple[str, str, str]

STDIO_CANNOT = {"server-sse-disconnect-resume"}
"""A backend on a pipe has no stream that it could break off, so nothing can be resumed."""


def everything() -> dict[str, str]:
    """The environment in which the SDK's everything-server can be run as a module."""
    need(str(TOOLS / "everything" / "mcp_everything_server"), "the everything-server")
    return {**os.environ, "PYTHONPATH": str(TOOLS / "everything")}


@asynccontextmanager
async def everything_over_http() -> AsyncIterator[str]:
    """The server as a process, on a port that was free a moment ago."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    command = [sys.executable, "-m", "mcp_everything_server", "--port", str(port), "--log-level", "WARNING"]
    process = await trio.lowlevel.open_process(
        command, env=everything(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def wait_for_port(port: int) -> None:
    with trio.fail_after(30):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.05)
            else:
                return


async def suite(url: str, revision: str, output: Path) -> Counter[Check]:
    """Run the suite's required set; the checks that succeeded, and how often."""
    command = [node(), package("@modelcontextprotocol/conformance/dist/index.js"), "server"]
    with trio.fail_after(120):
        await trio.run_process(
            [*command, "--url", url, "--requirements", revision, "-o", str(output)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    succeeded: Counter[Check] = Counter()
    for path in output.glob("*/checks.json"):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name)
        for check in json.loads(path.read_text()):
            if check["status"] == "SUCCESS":
                succeeded[scenario, check["id"], check.get("description", "")] += 1
    return succeeded


def without_prefix(backend: str) -> str:
    """A configuration in which the backend's names stay as they are."""
    order = "conflictResolutionConfig: {priorityOrder: [every]}"
    return f"backends: [{{name: every, {backend}}}]\naggregation: {{conflictResolution: priority, {order}}}\n"


@pytest.mark.parametrize("transport", ["http", pytest.param("stdio", marks=pytest.mark.slow)])
async def test_what_succeeds_direct_succeeds_through_the_gateway(transport: str, tmp_path: Path) -> None:
    """Every check of the set for 2025-11-25, also those that are not scored."""
    async with everything_over_http() as url:
        direct = await suite(url, "2025-11-25", tmp_path / "direct")
        if transport == "http":
            backend = f"transport: streamable-http, url: '{url}'"
        else:
            code = "from mcp_everything_server.server import mcp; mcp.run('stdio')"
            path = TOOLS / "everything"
            backend = f'transport: stdio, command: {sys.executable}, args: [-c, "{code}"], env: {{PYTHONPATH: {path}}}'
        async with gateway(write_config(tmp_path, without_prefix(backend))) as served:
            through = await suite(served.url, "2025-11-25", tmp_path / "through")

    assert direct.total() >= 84
    lost = sorted((direct - through).elements())
    impossible = STDIO_CANNOT if transport == "stdio" else set()
    assert [check for check in lost if check[1] not in impossible] == []
