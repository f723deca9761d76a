"""The stateless revision with real clients, real backends and real connections, in all four combinations (P4)."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp
import pytest
import trio
from attrs import define, field

from .harness import GatewayProcess, descendants, gateway, until, write_config
from .test_real_backends import Program, everything_command, run_program, texts, tools_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:The logging capability is deprecated"),
    pytest.mark.filterwarnings("ignore:resources/subscribe is removed"),
]

modes = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])


@define
class Person:
    """The one at the client: what it is asked, and what it hears."""

    asked: list[str] = field(factory=list)
    progress: list[float] = field(factory=list)
    logs: list[str] = field(factory=list)

    async def sample(self, _: Any, __: Any) -> Any:
        self.asked.append("sampling")
        content = mcp.types.TextContent(type="text", text="sampled by the client")
        return mcp.types.CreateMessageResult(role="assistant", content=content, model="test")

    async def elicit(self, _: Any, params: Any) -> Any:
        self.asked.append(params.mode)
        content = {"name": "Ada"} if params.mode == "form" else None
        return mcp.types.ElicitResult(action="accept", content=content)

    async def roots(self, _: Any) -> Any:
        self.asked.append("roots")
        return mcp.types.ListRootsResult(roots=[mcp.types.Root(uri="file:///srv/here", name="here")])

    async def log(self, params: Any) -> None:
        self.logs.append(params.level)

    async def on_progress(self, progress: float, _: float | None, __: str | None) -> None:
        self.progress.append(progress)

    @asynccontextmanager
    async def at(self, served: GatewayProcess, mode: str) -> AsyncIterator[mcp.Client]:
        stateful = mode == "legacy"
        async with mcp.Client(
            served.url,
            mode=mode,
            cache=None,
            sampling_callback=self.sample,
            elicitation_callback=self.elicit,
            list_roots_callback=self.roots,
            logging_callback=self.log,
            log_level=None if stateful else "info",
        ) as client:
            if stateful:
                await client.set_logging_level("info")
            yield client


async def until_said(program: Program, *lines: str) -> None:
    await until(lambda: all(line in program.said for line in lines), 10)


async def until_tools(client: mcp.Client, enough: Callable[[set[str]], bool]) -> None:
    with trio.fail_after(10):
        while not enough(await tools_of(client)):
            await trio.sleep(0.1)


# --- a backend of the stateful revisions, on a pipe -------------------------------------------------------------------


@modes
async def test_the_everything_server_does_all_it_can_for_every_client(mode: str, tmp_path: Path) -> None:
    """Its questions in the middle of a call come as requests, or as what is needed; its list grows when it starts."""
    program, *arguments = everything_command()
    backend = f"backends: [{{name: e, transport: stdio, command: {program}, args: {arguments}}}]\n"
    async with gateway(write_config(tmp_path, backend + "stateless: {mode: lease}\n")) as served:
        person = Person()
        async with person.at(served, mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            await until_tools(client, lambda tools: len(tools) == 17)

            async def call(name: str, **given: Any) -> str:
                result = await client.call_tool(f"e_{name}", given, progress_callback=person.on_progress)
                assert not result.is_error, texts(result)
                return " ".join(texts(result))

            assert "sampled by the client" in await call("trigger-sampling-request", prompt="hi", maxTokens=10)
            assert "provided the requested information" in await call("trigger-elicitation-request")
            assert "file:///srv/here" in await call("get-roots-list")
            assert "completed" in await call("trigger-long-running-operation", duration=0.4, steps=4)
            assert {"sampling", "form", "roots"} <= set(person.asked)
            assert person.progress == [1, 2, 3, 4]
        if mode == "legacy":
            await until(lambda: not descendants(served.pid))


async def test_without_leases_the_client_gets_a_session_of_its_own(tmp_path: Path) -> None:
    """The SDK's client begins stateless by default; what it would lose is kept."""
    async with gateway() as served, Person().at(served, "auto") as client:
        assert client.protocol_version == "2025-11-25"
        await client.call_tool("notes_begin", {})
        await client.call_tool("notes_add", {"text": "draft"})
        async with Person().at(served, "auto") as other:
            seen = await other.call_tool("notes_list", {})
            assert seen.structured_content == {"notes": [], "transaction": False}
        kept = await client.call_tool("notes_list", {})
        assert kept.structured_content == {"notes": [{"text": "draft", "pending": True}], "transaction": True}


# --- a backend of the stateless revision, over HTTP -------------------------------------------------------------------


@asynccontextmanager
async def modern(tmp_path: Path, more: str = "", **environment: str) -> AsyncIterator[tuple[Program, GatewayProcess]]:
    command = [sys.executable, "-m", "tests.e2e.backends.modern"]
    env = {**os.environ, **environment}
    async with run_program(command, r"http://127\.0\.0\.1:\d+", env=env) as program:
        backend = f"backends: [{{name: m, transport: streamable-http, url: '{program.url}/mcp'{more}}}]\n"
        async with gateway(write_config(tmp_path, backend)) as served:
            yield program, served


@modes
async def test_a_stateless_backend_does_all_it_can_for_every_client(mode: str, tmp_path: Path) -> None:
    async with modern(tmp_path) as (_, served):
        person = Person()
        async with person.at(served, mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            greeting = await client.call_tool("m_greet", {})
            assert texts(greeting) == ["accept Ada"]
            assert person.asked == ["form"]
            done = await client.call_tool("m_steps", {}, progress_callback=person.on_progress)
            assert texts(done) == ["done"]
            assert person.progress == [0, 1, 2]
            assert person.logs == ["info"] * 3
            read = await client.read_resource("thing://one")
            assert read.contents[0].text == "the one thing"  # type: ignore[union-attr]
            prompt = await client.get_prompt("m_hello", {"name": "Ada"})
            assert prompt.messages[0].content.text == "Hello, Ada"  # type: ignore[union-attr]


@modes
async def test_a_call_costs_one_request_on_a_kept_connection(mode: str, tmp_path: Path) -> None:
    """Besides the one that listens."""
    async with modern(tmp_path) as (program, served), Person().at(served, mode) as client:
        for number in range(20):
            assert texts(await client.call_tool("m_echo", {"text": str(number)})) == [str(number)]
        posts = [line for line in program.said if line.startswith("POST tools/call")]
        assert len(posts) == 20
        assert len([line for line in program.said if line.startswith("POST subscriptions/listen")]) == 1
        assert [line for line in program.said if line.startswith(("GET", "DELETE"))] == []
        assert max(int(post.rpartition(" ")[2]) for post in posts) <= 3


@modes
async def test_cancelling_a_call_closes_its_stream_to_the_backend(mode: str, tmp_path: Path) -> None:
    async with modern(tmp_path) as (program, served), Person().at(served, mode) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call_tool, "m_slow", {})
                await until_said(program, "slow started")
                scope.cancel()
        await until_said(program, "slow cancelled")
        assert texts(await client.call_tool("m_echo", {"text": "x"})) == ["x"]


async def test_what_changes_is_told_to_a_stateful_client(tmp_path: Path) -> None:
    async with modern(tmp_path) as (_, served):
        heard: list[str] = []

        async def hear(message: Any) -> None:
            heard.append(message.method)

        async with mcp.Client(served.url, mode="legacy", message_handler=hear) as client:
            await client.subscribe_resource("thing://one")
            await client.call_tool("m_touch", {})
            await client.call_tool("m_grow", {})
            await until(lambda: {"notifications/resources/updated", "notifications/tools/list_changed"} <= {*heard})
            await until_tools(client, lambda tools: "m_new" in tools)


async def test_what_changes_is_told_to_stateless_clients_that_listen(tmp_path: Path) -> None:
    async with modern(tmp_path) as (_, served), Person().at(served, "2026-07-28") as client:
        async with client.listen(tools_list_changed=True, resource_subscriptions=["thing://one"]) as subscription:
            events = []
            await client.call_tool("m_touch", {})
            await client.call_tool("m_grow", {})
            with trio.fail_after(10):
                async for event in subscription:
                    events.append(type(event).__name__)
                    if len(events) == 2:
                        break
            assert sorted(events) == ["ResourceUpdated", "ToolsListChanged"]
        assert "m_new" in await tools_of(client)


async def test_a_listen_ends_when_the_gateway_stops(tmp_path: Path) -> None:
    """And the gateway does not wait for those who listen."""
    async with modern(tmp_path) as (_, served), Person().at(served, "2026-07-28") as client:
        async with client.listen(tools_list_changed=True) as subscription:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.stop)
                with trio.fail_after(10):
                    assert [event async for event in subscription] == []
            assert trio.current_time() - began < 8


async def test_a_credential_that_changes_in_its_file_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    """Nobody at the client notices, in any session; and the file is read once for all of them."""
    key = tmp_path / "key"
    key.write_text("old")
    more = f", headersFrom: {{X-Api-Key: {{file: '{key}'}}}}"
    async with modern(tmp_path, more, KEY_FILE=str(key)) as (program, served):
        async with Person().at(served, "legacy") as one, Person().at(served, "legacy") as other:
            assert texts(await one.call_tool("m_echo", {"text": "1"})) == ["1"]
            key.write_text("new")
            assert texts(await one.call_tool("m_echo", {"text": "2"})) == ["2"]
            assert texts(await other.call_tool("m_echo", {"text": "3"})) == ["3"]
            assert program.said.count("refused") == 1
        assert not [line for line in served.log if "old" in line or "new" in line]
