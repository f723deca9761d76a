"""Real MCP servers behind one gateway: browsers that stay open between calls, and belong to one session each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mcp
import pytest
import trio
from attrs import define, field

from .harness import BIN, GatewayProcess, alive, descendants, gateway, texts, until, write_config
from .tools import chromium, need, node, package

pytestmark = pytest.mark.e2e

BROWSERS = ("pipe", "http")
"""The two backends that are Playwright, by their transport."""


# --- what the browsers look at ----------------------------------------------------------------------------------------


@define
class Site:
    """A page on loopback, since localStorage needs a real origin; and who has it open."""

    url: str
    holding: Counter[str] = field(factory=Counter)
    """Pages that are open, by name: each holds one request, until it is closed."""
    held: int = 0
    """How many such requests there have been: a page that was loaded again would make another."""

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            request = b""
            while b"\r\n\r\n" not in request:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                request += chunk
            path = request.split()[1].decode()
            if path.startswith("/hold/"):
                await self.hold(stream, path.removeprefix("/hold/"))
            else:
                body = b"<title>page</title><h1>hello</h1>"
                head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n"
                await stream.send_all(head.encode() + b"connection: close\r\n\r\n" + body)
        except trio.BrokenResourceError:
            pass  # a browser that was closed

    async def hold(self, stream: trio.SocketStream, name: str) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nhere")
        self.held += 1
        self.holding[name] += 1
        try:
            while await stream.receive_some():
                pass
        finally:
            self.holding[name] -= 1

    def open_pages(self) -> set[str]:
        return {name for name, count in self.holding.items() if count}


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    async with trio.open_nursery() as nursery:
        site = Site("")
        (listener,) = await nursery.start(partial(trio.serve_tcp, site.serve, 0, host="127.0.0.1"))
        site.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        yield site
        nursery.cancel_scope.cancel()


# --- processes --------------------------------------------------------------------------------------------------------


@define
class Program:
    """A server that is not the gateway's child."""

    pid: int
    said: list[str] = field(factory=list)
    url: str = ""


@asynccontextmanager
async def run_program(command: list[str], url: str, **options: Any) -> AsyncIterator[Program]:
    """Run it until the end, when nothing of it may be left; it is ready when it prints an address like this."""
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, **options
    )
    program = Program(process.pid)

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        assert process.stderr is not None
        rest = ""
        async for chunk in process.stderr:
            *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
            for line in lines:
                program.said.append(line)
                if not program.url and (match := re.search(url, line)):
                    program.url = match[0]
                    task_status.started()

    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                await nursery.start(read)
            yield program
            children = descendants(process.pid)
            process.terminate()
            with trio.fail_after(10):
                await process.wait()
            nursery.cancel_scope.cancel()
        await until(lambda: not [command for pid, command in children.items() if alive(pid)])
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def playwright_command() -> list[str]:
    options = ["--executable-path", chromium(), "--headless", "--no-sandbox", "--isolated"]
    return [node(), package("@playwright/mcp/cli.js"), *options]


def everything_command() -> list[str]:
    return [node(), package("@modelcontextprotocol/server-everything/dist/index.js"), "stdio"]


@contextmanager
def scratch() -> Iterator[Path]:
    """Where browsers leave their traces, instead of in /tmp; short, as they make sockets there."""
    with TemporaryDirectory(prefix="pw", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def in_scratch(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "TMPDIR": str(folder)}


def playwright_over_http(folder: Path) -> AbstractAsyncContextManager[Program]:
    """Playwright MCP as an HTTP server; its URL must say localhost."""
    command = [*playwright_command(), "--host", "127.0.0.1", "--port", "0"]
    return run_program(command, r"http://localhost:\d+", cwd=folder, env={**os.environ, **in_scratch(folder)})


def repository(folder: Path) -> Path:
    """A git repository with one commit."""
    path = folder / "repository"
    path.mkdir()
    (path / "file").write_text("text")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "the first commit"]):
        subprocess.run(["git", *arguments], cwd=path, check=True, env=environment)
    return path


def git_command(repo: Path) -> list[str]:
    need(shutil.which("git"), "git")
    return [need(str(BIN / "mcp-server-git"), "mcp-server-git"), "--repository", str(repo)]


def config(folder: Path, browsers: Path, repo: Path, playwright_url: str) -> Path:
    program, *arguments = playwright_command()
    everything, *stdio = everything_command()
    git, *on_repo = git_command(repo)
    return write_config(
        folder,
        f"""
backends:
  - name: pipe
    transport: stdio
    command: {program}
    args: {arguments}
    cwd: {browsers}
    env: {in_scratch(browsers)}
  - {{name: http, transport: streamable-http, url: '{playwright_url}/mcp'}}
  - {{name: git, transport: stdio, command: {git}, args: {on_repo}}}
  - {{name: every, transport: stdio, command: {everything}, args: {stdio}}}
sessions: {{readyTimeout: 20s}}
""",
    )


def children_of(served: GatewayProcess, *others: dict[int, str]) -> dict[int, str]:
    """The children of the session that has started last: what is new among the gateway's descendants."""
    old = {pid for other in others for pid in other}
    return {pid: command for pid, command in descendants(served.pid).items() if pid not in old}


def with_descendants(processes: dict[int, str]) -> dict[int, str]:
    """These processes and what they have started since."""
    found = dict(processes)
    for pid in processes:
        found |= descendants(pid)
    return found


def browser_among(processes: dict[int, str]) -> dict[int, str]:
    """A browser is a dozen processes, in a process group of its own."""
    return {pid: command for pid, command in processes.items() if "/chromium" in command.split(" ")[0]}


def living(processes: dict[int, str]) -> list[str]:
    return [command for pid, command in processes.items() if alive(pid)]


@pytest.fixture
def installed() -> None:
    """Here, and not in a test, where a skip within a nursery would be an error."""
    playwright_command()
    everything_command()
    git_command(Path())


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
async def test_browsers_stay_open_between_calls_and_are_private_and_end_with_their_session(tmp_path: Path) -> None:
    """Over stdio and over HTTP, with git and the everything server beside them; then nothing of a session is left."""
    with scratch() as folder:
        async with open_site() as site, playwright_over_http(folder) as playwright:
            await browsers_in_two_sessions(tmp_path, folder, site, playwright)
        assert list(folder.glob("playwright_*profile*")) == []


async def browsers_in_two_sessions(tmp_path: Path, folder: Path, site: Site, playwright: Program) -> None:
    repo = repository(tmp_path)
    async with gateway(config(tmp_path, folder, repo, playwright.url)) as served:
        async with mcp.Client(served.url, mode="legacy") as stays:
            of_stays = children_of(served)
            async with mcp.Client(served.url, mode="legacy") as leaves:
                of_leaves = children_of(served, of_stays)
                people = {"stays": stays, "leaves": leaves}
                await open_pages(site, people)
                await check_pages(people)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(others_work_beside, stays, repo)
                    # Playwright over HTTP pings its clients every 3 s, and ends the session of one that does not
                    # answer in 5 s. So long, one session is idle, and the other is in a call.
                    nursery.start_soon(wait_in_a_call, leaves, 8)
                    await trio.sleep(8.5)
                await check_pages(people)
                of_leaves = with_descendants(of_leaves)
                assert browser_among(of_leaves)

            # The client has left, and its session was deleted.
            await until(lambda: not living(of_leaves))
            await until(lambda: site.open_pages() == {"stays-pipe", "stays-http"})
            await check_pages({"stays": stays})
            assert site.held == 4, "no page was loaded again"

            # The gateway ends, and the other session with it.
            of_stays = with_descendants(of_stays)
            over_http = browser_among(descendants(playwright.pid))
            assert browser_among(of_stays)
            assert over_http
            assert descendants(served.pid).keys() <= of_stays.keys()
            assert await served.stop() == 0
            await until(lambda: not living(of_stays) and not living(over_http))
            await until(lambda: not site.open_pages())
            assert alive(playwright.pid)


async def open_pages(site: Site, people: dict[str, mcp.Client]) -> None:
    """In every session a page in every browser, all at the same time, with state of its own."""

    async def open_page(client: mcp.Client, backend: str, name: str) -> None:
        result = await client.call_tool(f"{backend}_browser_navigate", {"url": site.url})
        assert not result.is_error, texts(result)
        # Playwright waits up to 5 s for requests that begin during an action; this one begins after it.
        hold = f"setTimeout(() => {{ window.held = fetch('/hold/{name}') }}, 1000)"
        await evaluate(client, backend, f"{{ window.n = localStorage.n = '{name}'; {hold}; return 1 }}")

    async with trio.open_nursery() as nursery:
        for person, client in people.items():
            for backend in BROWSERS:
                nursery.start_soon(open_page, client, backend, f"{person}-{backend}")
    await until(lambda: len(site.open_pages()) == len(people) * len(BROWSERS))


async def check_pages(people: dict[str, mcp.Client]) -> None:
    """Every page has its own state, and nobody else's."""

    async def check_page(client: mcp.Client, backend: str, name: str) -> None:
        assert await evaluate(client, backend, "[window.n, localStorage.n].join()") == f'"{name},{name}"'

    async with trio.open_nursery() as nursery:
        for person, client in people.items():
            for backend in BROWSERS:
                nursery.start_soon(check_page, client, backend, f"{person}-{backend}")


async def evaluate(client: mcp.Client, backend: str, code: str) -> str:
    result = await client.call_tool(f"{backend}_browser_evaluate", {"function": f"() => {code}"})
    assert not result.is_error, texts(result)
    (line,) = re.findall(r"### Result\n(.*)", texts(result)[0])
    return str(line)


async def wait_in_a_call(client: mcp.Client, seconds: int) -> None:
    result = await client.call_tool("http_browser_wait_for", {"time": seconds})
    assert not result.is_error, texts(result)


async def others_work_beside(client: mcp.Client, repo: Path) -> None:
    log = await client.call_tool("git_git_log", {"repo_path": str(repo)})
    echo = await client.call_tool("every_echo", {"message": "hello"})
    names = await tools_of(client)

    assert "the first commit" in texts(log)[0]
    assert texts(echo) == ["Echo: hello"]
    assert {name.partition("_")[0] for name in names} == {"pipe", "http", "git", "every"}
    async with mcp.Client(program_of(everything_command()), mode="legacy") as direct:
        await until_complete(client, direct, "every_", 13)


async def tools_of(client: mcp.Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def until_complete(client: mcp.Client, direct: mcp.Client, prefix: str, count: int) -> None:
    """The everything server's list grows after `initialized`: at last the client has all that there is without us."""
    with trio.fail_after(10):
        while True:
            wanted = {prefix + name for name in await tools_of(direct)}
            listed = {name for name in await tools_of(client) if name.startswith(prefix)}
            if listed == wanted and len(listed) >= count:
                return
            await trio.sleep(0.1)


def program_of(command: list[str]) -> mcp.StdioServerParameters:
    return mcp.StdioServerParameters(command=command[0], args=command[1:])


@pytest.mark.usefixtures("installed")
async def test_the_everything_server_asks_the_client_for_what_it_declared(tmp_path: Path) -> None:
    """Its tools depend on the client's capabilities, and some of them ask back."""
    program, *arguments = everything_command()
    path = write_config(
        tmp_path, f"backends:\n  - {{name: e, transport: stdio, command: {program}, args: {arguments}}}\n"
    )

    async def sample(_: Any, params: Any) -> Any:
        content = mcp.types.TextContent(type="text", text="sampled by the client")
        return mcp.types.CreateMessageResult(role="assistant", content=content, model="test")

    async with gateway(path) as served:
        async with (
            mcp.Client(served.url, mode="legacy") as plain,
            mcp.Client(served.url, mode="legacy", sampling_callback=sample) as able,
            mcp.Client(program_of(everything_command()), mode="legacy", sampling_callback=sample) as direct,
        ):
            wanted = "e_trigger-sampling-request"
            await until_complete(able, direct, "e_", 14)
            result = await able.call_tool(wanted, {"prompt": "hi", "maxTokens": 10})

            assert wanted in await tools_of(able)
            assert wanted not in await tools_of(plain)
            assert "sampled by the client" in texts(result)[0]
        await until(lambda: not descendants(served.pid))


SSE_SERVER = """
import sys, collections, trio, hypercorn.trio
from hypercorn.config import Config
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("old")
counts = collections.Counter()

@server.tool()
def counter(context: Context) -> str:
    session = context.request_context.request.query_params["session_id"]
    counts[session] += 1
    return str(counts[session])

inner = server.sse_app()

async def app(scope, receive, send):
    stream = scope["type"] == "http" and scope["method"] == "GET"
    try:
        if stream:
            print("stream opened", file=sys.stderr)
        await inner(scope, receive, send)
    finally:
        if stream:
            print("stream closed", file=sys.stderr)

config = Config()
config.bind = ["127.0.0.1:0"]
trio.run(hypercorn.trio.serve, app, config)
"""


async def test_an_old_http_with_sse_backend_keeps_state_per_session_and_is_left_at_the_end(tmp_path: Path) -> None:
    """The transport of 2024-11-05, by `transport: sse`: one stream for each session, closed when the session ends."""
    async with run_program([sys.executable, "-u", "-c", SSE_SERVER], r"http://[\d.]+:\d+") as server:
        path = write_config(tmp_path, f"backends:\n  - {{name: old, transport: sse, url: '{server.url}/sse'}}\n")
        async with gateway(path) as served, mcp.Client(served.url, mode="legacy") as one:
            async with mcp.Client(served.url, mode="legacy") as two:
                counted = [texts(await client.call_tool("old_counter", {})) for client in (one, one, two, one)]
                before = Counter(server.said)
            await until(lambda: "stream closed" in server.said)
            counted.append(texts(await one.call_tool("old_counter", {})))

            assert counted == [["1"], ["2"], ["1"], ["3"], ["4"]]
            assert before["stream opened"] == 2
            assert before["stream closed"] == 0
            assert server.said.count("stream closed") == 1
            assert await served.stop() == 0
            await until(lambda: server.said.count("stream closed") == 2)
        assert server.said.count("stream opened") == 2
