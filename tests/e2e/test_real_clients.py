"""Real clients in front of the gateway: the Inspector's command line, and both TypeScript SDKs."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import trio

from .harness import GatewayProcess, descendants, gateway, until, write_config
from .tools import PACKAGES, node, package

pytestmark = pytest.mark.e2e

SCRIPTS = Path(__file__).parent / "js"


@pytest.fixture(autouse=True)
def installed() -> None:
    """Here, and not in a test, where a skip within a nursery would be an error."""
    node()
    for name in ("inspector", "sdk", "client"):
        package(f"@modelcontextprotocol/{name}/package.json")


async def run_node(home: Path, script: str, *arguments: str) -> str:
    """Run a program under Node.js, which may write to a home of its own only, and return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(node()).parent}:{os.environ['PATH']}",
        "PACKAGES": str(PACKAGES),
        "HOME": str(home),
    }
    with trio.fail_after(60):
        done = await trio.run_process(
            [node(), script, *arguments], capture_stdout=True, capture_stderr=True, env=environment, check=False
        )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode()


def supervisor_of(served: GatewayProcess) -> Any:
    with urlopen(f"{served.origin}/status", timeout=5) as response:
        return json.load(response)["supervisor"]


async def until_no_session_is_left(served: GatewayProcess, seconds: float = 10.0) -> None:
    """No session, and no child process of one."""
    await until(lambda: supervisor_of(served)["sessions"] == 0 and not descendants(served.pid), seconds)


def demo_with(folder: Path, more: str) -> Path:
    """The demo's backends with other settings."""
    names = ("notes", "clock")
    backends = [
        f"  - {{name: {name}, transport: stdio, command: {sys.executable}, args: [-m, vmcp_actors.demo.{name}]}}"
        for name in names
    ]
    return write_config(folder, "\n".join(["backends:", *backends, more, ""]))


async def test_the_inspector_lists_and_calls_and_what_it_abandons_is_reaped(tmp_path: Path) -> None:
    """As `npx @modelcontextprotocol/inspector --cli` does it; it never deletes its sessions."""
    inspector = package("@modelcontextprotocol/inspector/clients/launcher/build/index.js")
    async with gateway(demo_with(tmp_path, "sessions: {idleTimeout: 2s}")) as served:
        common = [inspector, "--cli", served.url, "--transport", "http"]
        listed = await run_node(tmp_path, *common, "--method", "tools/list")
        called = await run_node(
            tmp_path, *common, "--method", "tools/call", "--tool-name", "notes_add", "--tool-arg", "text=hello"
        )
        again = await run_node(tmp_path, *common, "--method", "tools/call", "--tool-name", "notes_list")

        assert {"notes_begin", "clock_now"} <= {tool["name"] for tool in json.loads(listed)["tools"]}
        assert json.loads(called)["structuredContent"]["notes"] == [{"text": "hello", "pending": False}]
        assert json.loads(again)["structuredContent"]["notes"] == []
        assert supervisor_of(served)["started"] == 3
        await until_no_session_is_left(served)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        pytest.param(["v1"], ["initialize"], id="v1"),
        pytest.param(["v2", "default"], ["initialize"], id="v2-default"),
        pytest.param(["v2", "auto"], ["server/discover", "initialize"], id="v2-auto"),
    ],
)
async def test_the_typescript_sdk_has_one_session_for_all_its_calls_and_ends_it(
    arguments: list[str], first: list[str], tmp_path: Path
) -> None:
    """State is kept over calls; `auto` probes for the stateless revision, and falls back.

    The gateway finds out what its backends speak by a session that nobody else ever uses.
    """
    sdk, *mode = arguments
    async with gateway() as served:
        said = json.loads(await run_node(tmp_path, str(SCRIPTS / f"{sdk}.mjs"), served.url, *mode))
        started = supervisor_of(served)["started"]
        await until_no_session_is_left(served)

    assert {"notes_begin", "clock_countdown"} <= set(said["tools"])
    assert said["pending"] == {"notes": [{"text": "draft", "pending": True}], "transaction": True}
    assert said["after"] == {"notes": [], "transaction": False}
    assert said["progress"] == [0.1, 0.2]
    assert started == len(first)
    check_requests(said["requests"], first, said["session"])


@pytest.mark.parametrize("mode", ["auto", "2026-07-28"])
async def test_the_typescript_sdk_without_a_session_keeps_its_state_by_a_lease(mode: str, tmp_path: Path) -> None:
    async with gateway(demo_with(tmp_path, "stateless: {mode: lease, idleTimeout: 2s}")) as served:
        said = json.loads(await run_node(tmp_path, str(SCRIPTS / "v2.mjs"), served.url, mode))
        assert supervisor_of(served)["started"] == 1
        await until_no_session_is_left(served)

    assert said["pending"] == {"notes": [{"text": "draft", "pending": True}], "transaction": True}
    assert said["after"] == {"notes": [], "transaction": False}
    assert said["progress"] == [0.1, 0.2]
    assert said["session"] is None
    assert {request["session"] for request in said["requests"]} == {None}
    assert "initialize" not in [request["rpc"] for request in said["requests"]]


@pytest.mark.parametrize(("era", "notes"), [("legacy", 0), ("auto", 1), ("modern", 1)])
async def test_the_inspector_speaks_every_revision(era: str, notes: int, tmp_path: Path) -> None:
    """Each of its runs is a client of its own; without sessions they share what is leased."""
    inspector = package("@modelcontextprotocol/inspector/clients/launcher/build/index.js")
    async with gateway(demo_with(tmp_path, "stateless: {mode: lease}\nsessions: {idleTimeout: 2s}")) as served:
        common = [inspector, "--cli", served.url, "--transport", "http", "--protocol-era", era]
        listed = await run_node(tmp_path, *common, "--method", "tools/list")
        await run_node(
            tmp_path, *common, "--method", "tools/call", "--tool-name", "notes_add", "--tool-arg", "text=hello"
        )
        again = await run_node(tmp_path, *common, "--method", "tools/call", "--tool-name", "notes_list")

        assert {"notes_begin", "clock_now"} <= {tool["name"] for tool in json.loads(listed)["tools"]}
        assert len(json.loads(again)["structuredContent"]["notes"]) == notes


def check_requests(requests: list[Any], first: list[str], session: str) -> None:
    """The handshake without detours, then everything in the one session, and at last its end."""
    calls = [request["rpc"] for request in requests if request["rpc"]]
    assert calls[: len(first) + 1] == [*first, "notifications/initialized"]
    assert calls.count("server/discover") == first.count("server/discover")
    assert calls.count("initialize") == 1
    for request, after in pairwise([*requests, None]):
        if request["rpc"] == "server/discover":
            assert request["status"] == 400
            assert request["answered"] - request["asked"] < 10  # the first one waits for what the backends speak
            assert after["asked"] - request["answered"] < 1
        else:
            assert request["status"] in (200, 202, 204), request
            assert request["session"] == (None if request["rpc"] == "initialize" else session)
    assert session
    assert [request["http"] for request in requests].count("DELETE") == 1
    assert requests[-1]["http"] == "DELETE"
