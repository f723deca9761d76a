"""Real MCP servers behind one gateway: browsers that stay open between calls, and belong to one session each."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mcp
import pytest
import trio

from .harness import BIN, descendants, gateway, texts, until, write_config
from .tools import chromium, node, package

pytestmark = pytest.mark.e2e


class Page(BaseHTTPRequestHandler):
    """One small page."""

    def do_GET(self) -> None:
        body = b"<title>page</title><h1>hello</h1>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@asynccontextmanager
async def page() -> AsyncIterator[str]:
    """A page on loopback; localStorage needs a real origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        await trio.to_thread.run_sync(server.shutdown)
        thread.join()
        server.server_close()


def playwright_command() -> list[str]:
    options = ["--executable-path", chromium(), "--headless", "--no-sandbox", "--isolated"]
    return [node(), package("@playwright/mcp/cli.js"), *options]


@asynccontextmanager
async def playwright_over_http(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """Playwright MCP as an HTTP server; its URL must say localhost."""
    command = [*playwright_command(), "--host", "127.0.0.1", "--port", "0"]
    process = await trio.lowlevel.open_process(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        said = b""
        with trio.fail_after(30):
            while (match := re.search(rb"http://localhost:(\d+)", said)) is None:
                said += await process.stderr.receive_some(4096)
        yield process.pid, f"http://localhost:{match[1].decode()}/mcp"
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


def repository(folder: Path) -> Path:
    """A git repository with one commit."""
    path = folder / "repository"
    path.mkdir()
    (path / "file").write_text("text")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "the first commit"]):
        subprocess.run(["git", *arguments], cwd=path, check=True)
    return path


def config(folder: Path, repo: Path, playwright_url: str) -> Path:
    program, *arguments = playwright_command()
    everything = package("@modelcontextprotocol/server-everything/dist/index.js")
    return write_config(
        folder,
        f"""
backends:
  - {{name: pipe, transport: stdio, command: {program}, args: {arguments}, cwd: {folder}}}
  - {{name: http, transport: streamable-http, url: '{playwright_url}'}}
  - {{name: git, transport: stdio, command: {BIN / "mcp-server-git"}, args: [--repository, {repo}]}}
  - {{name: every, transport: stdio, command: {program}, args: [{everything}, stdio]}}
sessions: {{readyTimeout: 20s}}
""",
    )


def browsers(pid: int) -> list[str]:
    """The browsers that a process has started, by the one of each browser's processes that has no type."""
    other = ("--type=", "crashpad", "cli.js")
    commands = descendants(pid).values()
    return [command for command in commands if "chromium" in command and not any(word in command for word in other)]


async def evaluate(client: mcp.Client, backend: str, code: str) -> str:
    result = await client.call_tool(f"{backend}_browser_evaluate", {"function": f"() => {code}"})
    assert not result.is_error, texts(result)
    (line,) = re.findall(r"### Result\n(.*)", texts(result)[0])
    return str(line)


async def test_browsers_stay_open_between_calls_and_are_private_and_end_with_their_session(tmp_path: Path) -> None:
    """Over stdio and over HTTP, with git and the everything server beside them under one roof."""
    async with page() as url, playwright_over_http(tmp_path) as (playwright_pid, playwright_url):
        repo = repository(tmp_path)
        async with gateway(config(tmp_path, repo, playwright_url)) as served:
            async with mcp.Client(served.url, mode="legacy") as stays:
                async with mcp.Client(served.url, mode="legacy") as leaves:
                    await open_pages(url, stays, leaves)
                    for backend in ("pipe", "http"):
                        await evaluate(stays, backend, "{ window.n = 1; localStorage.n = 'mine'; return 1 }")
                        assert await evaluate(stays, backend, "[window.n, localStorage.n].join()") == '"1,mine"'
                        assert await evaluate(leaves, backend, "[window.n, localStorage.n].join()") == '","'
                    await others_work_beside(stays, repo)
                    assert len(browsers(served.pid)) == 2
                # Its session has been deleted, and with it its browser; the other session's is untouched. (Playwright
                # over HTTP runs one browser for all its sessions, with a context for each.)
                await until(lambda: len(browsers(served.pid)) == 1)
                # Playwright pings its clients every 3 s, and ends the sessions of those that do not answer for 5 s.
                await trio.sleep(8.5)
                for backend in ("pipe", "http"):
                    assert await evaluate(stays, backend, "[window.n, localStorage.n].join()") == '"1,mine"'
            await until(lambda: not browsers(served.pid) and not browsers(playwright_pid))


async def open_pages(url: str, *clients: mcp.Client) -> None:
    """In every session a page in every browser, all at the same time."""

    async def navigate(client: mcp.Client, backend: str) -> None:
        result = await client.call_tool(f"{backend}_browser_navigate", {"url": url})
        assert not result.is_error, texts(result)

    async with trio.open_nursery() as nursery:
        for client in clients:
            for backend in ("pipe", "http"):
                nursery.start_soon(navigate, client, backend)


async def others_work_beside(client: mcp.Client, repo: Path) -> None:
    log = await client.call_tool("git_git_log", {"repo_path": str(repo)})
    echo = await client.call_tool("every_echo", {"message": "hello"})
    names = {tool.name for tool in (await client.list_tools()).tools}

    assert "the first commit" in texts(log)[0]
    assert texts(echo) == ["Echo: hello"]
    assert {name.partition("_")[0] for name in names} == {"pipe", "http", "git", "every"}


async def test_the_everything_server_asks_the_client_for_what_it_declared(tmp_path: Path) -> None:
    """Its tools depend on the client's capabilities, and some of them ask back."""
    everything = package("@modelcontextprotocol/server-everything/dist/index.js")
    path = write_config(
        tmp_path, f"backends:\n  - {{name: e, transport: stdio, command: {node()}, args: [{everything}, stdio]}}\n"
    )

    async def sample(_: Any, params: Any) -> Any:
        content = mcp.types.TextContent(type="text", text="sampled by the client")
        return mcp.types.CreateMessageResult(role="assistant", content=content, model="test")

    async with gateway(path) as served:
        async with (
            mcp.Client(served.url, mode="legacy") as plain,
            mcp.Client(served.url, mode="legacy", sampling_callback=sample) as able,
        ):
            wanted = "e_trigger-sampling-request"
            await until_listed(able, wanted)
            few = {tool.name for tool in (await plain.list_tools()).tools}
            result = await able.call_tool(wanted, {"prompt": "hi", "maxTokens": 10})

            assert wanted not in few
            assert "sampled by the client" in texts(result)[0]


async def until_listed(client: mcp.Client, name: str) -> None:
    with trio.fail_after(10):
        while name not in {tool.name for tool in (await client.list_tools()).tools}:
            await trio.sleep(0.1)


SSE_SERVER = """
import trio, hypercorn.trio
from hypercorn.config import Config
from mcp.server import MCPServer

server = MCPServer("old")
count = 0

@server.tool()
def counter() -> str:
    global count
    count += 1
    return str(count)

config = Config()
config.bind = ["127.0.0.1:0"]
trio.run(hypercorn.trio.serve, server.sse_app(), config)
"""


async def test_an_old_http_with_sse_backend(tmp_path: Path) -> None:
    """The transport of 2024-11-05, by `transport: sse`."""
    process = await trio.lowlevel.open_process([sys.executable, "-c", SSE_SERVER], stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = b""
        with trio.fail_after(30):
            while (match := re.search(rb"Running on (http://[\d.:]+)", said)) is None:
                said += await process.stderr.receive_some(4096)
        path = write_config(tmp_path, f"backends:\n  - {{name: old, transport: sse, url: '{match[1].decode()}/sse'}}\n")
        async with gateway(path) as served, mcp.Client(served.url, mode="legacy") as client:
            assert [texts(await client.call_tool("old_counter", {})) for _ in range(3)] == [["1"], ["2"], ["3"]]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
