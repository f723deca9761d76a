"""The counting backend is a valid MCP server to a client that is not ours, and misbehaves as told."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import h11
import mcp_types as types
import pytest
import trio
from mcp import Client, MCPError

from tests.e2e.backends._session import BackendSession
from tests.e2e.backends.counting import CountingBackend, open_counting_backend

pytestmark = pytest.mark.e2e


def client(backend: CountingBackend, **options: Any) -> Client:
    return Client(backend.url, mode="legacy", cache=None, **options)


def text(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def until(condition: Any) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.01)


@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_a_session_from_initialize_to_delete(answer: str) -> None:
    async with open_counting_backend(answer=answer, page_size=4) as backend:
        async with client(backend) as mcp:
            names, cursor = [], None
            while names == [] or cursor:
                page = await mcp.list_tools(cursor=cursor)
                names += [tool.name for tool in page.tools]
                cursor = page.next_cursor
            assert names == ["echo", "counter", "sleep", "progress", "fail", "error", "grow", "big", "ping_me", "ask"]
            assert [r.uri for r in (await mcp.list_resources()).resources] == ["counting://one"]
            assert len((await mcp.list_resource_templates()).resource_templates) == 1
            assert [p.name for p in (await mcp.list_prompts()).prompts] == ["greet"]
            assert (await mcp.read_resource("counting://item/7")).contents[0].text == "text of counting://item/7"
            assert (await mcp.get_prompt("greet", {"who": "you"})).messages[0].content.text == "Hello you"
            assert [text(await mcp.call_tool("counter")) for _ in range(3)] == ["1", "2", "3"]
            echo = await mcp.call_tool("echo", {"text": "ü"}, meta={"example.org/a": 1})
            assert text(echo) == "ü"
            assert echo.structured_content["meta"]["example.org/a"] == 1
            assert (await mcp.call_tool("fail")).is_error
            assert len(text(await mcp.call_tool("big", {"bytes": 1_000_000}))) == 1_000_000
            with pytest.raises(MCPError) as caught:
                await mcp.call_tool("error")
            assert (caught.value.code, caught.value.data) == (-32050, {"reason": ["as", "asked"]})
            for wrong in (mcp.call_tool("nope"), mcp.list_tools(cursor="nope"), mcp.call_tool("echo", {})):
                with pytest.raises(MCPError) as caught:
                    await wrong
                assert caught.value.code == -32602
            await until(lambda: backend.open_streams == 1)
            [session] = backend.sessions.values()
            assert session.counter == 3
        await until(lambda: not backend.open_streams and not backend.open_connections)
        assert backend.sessions == {}
        expected = {"initialize": 1, "notifications/initialized": 1, "GET": 1, "DELETE": 1, "tools/list": 4}
        assert expected.items() <= backend.counts.items()
        assert backend.history[0][:2] == (None, "initialize")


async def test_both_directions() -> None:
    heard: list[Any] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    async def message(note: Any) -> None:
        heard.append(getattr(note, "method", None))

    async def progress(done: float, total: float | None, _message: str | None) -> None:
        heard.append((done, total))

    async def elicit(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"colour": "blue"})

    options = {"logging_callback": log, "message_handler": message, "elicitation_callback": elicit}
    async with open_counting_backend() as backend, client(backend, **options) as mcp:
        assert text(await mcp.call_tool("progress", {"steps": 2}, progress_callback=progress)) == "2 steps"
        await until(lambda: {(1, 2), (2, 2)} <= {x for x in heard if isinstance(x, tuple)} and {"steps": 2} in heard)
        assert text(await mcp.call_tool("ping_me")) == "pong"
        assert json.loads(text(await mcp.call_tool("ask"))) == {"action": "accept", "content": {"colour": "blue"}}
        assert text(await mcp.call_tool("grow")) == "grown_1"
        await until(lambda: "notifications/tools/list_changed" in heard)
        assert text(await mcp.call_tool("grown_1")) == "grown_1"
        with trio.move_on_after(0.2):
            await mcp.call_tool("sleep", {"seconds": 60})
        await until(lambda: backend.counts["cancelled"] == 1)
        assert text(await mcp.call_tool("counter")) == "1"


async def test_faults() -> None:
    async with open_counting_backend() as backend:
        async with client(backend) as mcp:
            backend.status_for["tools/call"] = 503
            with pytest.raises(MCPError, match="refused with 503"):
                await mcp.call_tool("counter")
            backend.status_for.clear()
            # By SSE, since without any answer the client's whole transport goes down.
            backend.answer, backend.crash_mid_call = "sse", "counter"
            with pytest.raises(MCPError, match="ended without a response"):
                await mcp.call_tool("counter")
            backend.answer, backend.crash_mid_call = "json", False
            backend.silent = True
            with trio.move_on_after(0.2) as scope:
                await mcp.call_tool("counter")
            assert scope.cancelled_caught
            backend.silent = False
            assert text(await mcp.call_tool("counter")) == "1"
            backend.forget_sessions()
            with pytest.raises(MCPError, match="not found"):
                await mcp.call_tool("counter")
        backend.require_headers = {"Authorization": "Bearer right"}
        with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
            async with client(backend):
                pass


async def events(stream: trio.SocketStream, url: str, **headers: str) -> AsyncIterator[tuple[str, str]]:
    """The (id, data) pairs of a GET stream, read without a client that would reconnect by itself."""
    conn = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target="/mcp", headers=[("host", url.split("/")[2]), *headers.items()])
    await stream.send_all(conn.send(request) + conn.send(h11.EndOfMessage()))
    text_so_far = ""
    while True:
        event = conn.next_event()
        if event is h11.NEED_DATA:
            conn.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Data):
            text_so_far += event.data.decode()
            *blocks, text_so_far = text_so_far.split("\n\n")
            for block in blocks:
                fields = dict(line.partition(":")[::2] for line in block.splitlines())
                yield fields["id"].strip(), fields["data"].strip()
        elif not isinstance(event, h11.Response):
            return


async def test_missed_notices_are_had_by_last_event_id() -> None:
    changed = "notifications/tools/list_changed"
    async with open_counting_backend() as backend:
        session = BackendSession("2025-11-25", client={})
        backend.sessions[session.id] = session
        headers = {"mcp-session-id": session.id}
        port = int(backend.url.split("/")[2].partition(":")[2])
        ids: list[str] = []
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as stream,
            aclosing(events(stream, backend.url, **headers)) as received,
        ):
            ids.append((await anext(received))[0])
            for _ in range(2):
                session.notify(changed)
                event_id, data = await anext(received)
                assert json.loads(data)["method"] == changed
                ids.append(event_id)
            backend.drop_get_streams()
            with pytest.raises(StopAsyncIteration):
                await anext(received)
        session.notify(changed)
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as stream,
            aclosing(events(stream, backend.url, **headers, **{"last-event-id": ids[1]})) as received,
        ):
            ids += [event_id for event_id, _ in [await anext(received) for _ in range(3)]]
        assert len(set(ids)) == 6
        assert (len(session.notices), backend.counts["resume"]) == (3, 1)


async def test_as_a_process() -> None:
    command = [sys.executable, "-m", "tests.e2e.backends.counting", "--behaviour", '{"answer": "sse"}']
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with process.stdout:
        ready, url = (await process.stdout.receive_some()).decode().split()
        assert ready == "ready"
        async with Client(url) as mcp:  # asks for the newest revision first, and falls back
            assert text(await mcp.call_tool("counter")) == "1"
            host, _, port = url.split("/")[2].partition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(b"GET /counts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answer = b"".join([chunk async for chunk in stream])
            counts = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert (counts["tools/call"], counts["initialize"]) == (1, 1)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(5):
            assert await process.wait() == 0
