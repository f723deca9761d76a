"""Real clients in front of the gateway: the Inspector's command line, and both TypeScript SDKs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from .harness import gateway
from .tools import PACKAGES, node, package

pytestmark = pytest.mark.e2e

SCRIPTS = Path(__file__).parent / "js"


async def run_node(script: str, *arguments: str) -> str:
    """Run a program under Node.js, and return what it printed."""
    environment = {**os.environ, "PATH": f"{Path(node()).parent}:{os.environ['PATH']}", "PACKAGES": str(PACKAGES)}
    with trio.fail_after(60):
        done = await trio.run_process(
            [node(), script, *arguments], capture_stdout=True, capture_stderr=True, env=environment, check=False
        )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode()


async def test_the_inspector_lists_and_calls(tmp_path: Path) -> None:
    """As `npx @modelcontextprotocol/inspector --cli` does it."""
    inspector = package("@modelcontextprotocol/inspector/" + entry_of("@modelcontextprotocol/inspector"))
    async with gateway() as served:
        common = ["--cli", served.url, "--transport", "http"]
        listed = await run_node(inspector, *common, "--method", "tools/list")
        called = await run_node(
            inspector, *common, "--method", "tools/call", "--tool-name", "notes_add", "--tool-arg", "text=hello"
        )

    assert "notes_begin" in {tool["name"] for tool in json.loads(listed)["tools"]}
    assert json.loads(called)["structuredContent"]["notes"] == [{"text": "hello", "pending": False}]


def entry_of(name: str) -> str:
    """The program of an npm package."""
    entry: Any = json.loads(Path(package(f"{name}/package.json")).read_text())["bin"]
    return str(entry if isinstance(entry, str) else next(iter(entry.values())))


@pytest.mark.parametrize("sdk", ["v1", "v2"])
async def test_the_typescript_sdk_keeps_its_backend_state_over_calls(sdk: str) -> None:
    """v1 speaks the stateful revisions; v2 begins with the stateless one, falls back at once, and has a session."""
    package("@modelcontextprotocol/sdk/package.json")
    async with gateway() as served:
        said = json.loads(await run_node(str(SCRIPTS / f"{sdk}.mjs"), served.url))

    assert "notes_begin" in said["tools"]
    assert said["pending"] == {"notes": [{"text": "draft", "pending": True}], "transaction": True}
    assert said["after"] == {"notes": [], "transaction": False}
    assert said["progress"] == [0.1, 0.2]
    assert said["seconds"] < 10


def test_node_is_new_enough() -> None:
    """The Inspector needs it."""
    version = subprocess.run([node(), "--version"], capture_output=True, text=True, check=True).stdout
    assert int(version.strip().lstrip("v").partition(".")[0]) >= 20
