"""The demo backends as a client sees them: real processes, both revisions of the protocol."""

import json
import signal
import subprocess
import sys
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client, MCPError, StdioServerParameters

pytestmark = pytest.mark.e2e

NOTES, CLOCK = "vmcp_actors.demo.notes", "vmcp_actors.demo.clock"
both_revisions = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


def client(module: str, mode: str = "legacy", **options: Any) -> Client:
    server = StdioServerParameters(command=sys.executable, args=["-m", module])
    return Client(server, mode=mode, cache=None, **options)


def text(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def test_a_server_that_keeps_state_does_not_claim_the_stateless_revision() -> None:
    async with client(NOTES, "2026-07-28") as notes:
        with pytest.raises(MCPError, match="Invalid request parameters"):
            await notes.list_tools()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_transaction_spans_calls(mode: str) -> None:
    async with client(NOTES, mode) as notes:

        async def call(name: str, **arguments: Any) -> str:
            result = await notes.call_tool(name, arguments)
            assert not result.is_error
            return text(result)

        tools = (await notes.list_tools()).tools
        assert [tool.name for tool in tools] == ["begin", "add", "rollback", "commit", "list"]
        assert await call("list") == "no notes"
        assert await call("add", text="one") == "added"
        await call("begin")
        assert await call("add", text="two") == "added to the open transaction"
        assert await call("list") == "- one\n- two (pending)"
        assert await call("rollback") == "1 dropped"
        assert await call("list") == "- one"
        await call("begin")
        await call("add", text="three")
        assert await call("commit") == "1 committed"
        assert (await notes.call_tool("list")).structured_content == {
            "notes": [{"text": "one", "pending": False}, {"text": "three", "pending": False}],
            "transaction": False,
        }
        [resource] = (await notes.read_resource("notes://all")).contents
        assert isinstance(resource, types.TextResourceContents)
        assert resource.text == "- one\n- three"
        prompt = await notes.get_prompt("summarize")
        assert "- three" in prompt.messages[0].content.text


async def test_two_connections_share_no_notes() -> None:
    async with client(NOTES) as mine, client(NOTES) as yours:
        await mine.call_tool("add", {"text": "mine"})
        assert text(await yours.call_tool("list")) == "no notes"


async def test_misuse_is_told_and_changes_nothing() -> None:
    async with client(NOTES) as notes:
        for name, arguments, says in [
            ("commit", {}, "no transaction is open: nothing to commit"),
            ("rollback", {}, "no transaction is open: nothing to roll back"),
            ("add", {}, "`text` must be a text that is not empty"),
            ("add", {"text": 7}, "`text` must be a text that is not empty"),
        ]:
            result = await notes.call_tool(name, arguments)
            assert (result.is_error, text(result)) == (True, says)
        await notes.call_tool("begin")
        result = await notes.call_tool("begin")
        assert result.is_error
        assert "open already" in text(result)
        for request in (
            notes.call_tool("nope"),
            notes.read_resource("notes://nope"),
            notes.get_prompt("nope"),
        ):
            with pytest.raises(MCPError, match="unknown") as caught:
                await request
            assert caught.value.code == types.INVALID_PARAMS


@both_revisions
async def test_now_in_a_zone(mode: str) -> None:
    async with client(CLOCK, mode) as clock:
        result = await clock.call_tool("now", {"timezone": "Asia/Kolkata"})
        assert text(result).endswith("+05:30")
        assert result.structured_content == {"timezone": "Asia/Kolkata", "time": text(result)}
        assert text(await clock.call_tool("now")).endswith("+00:00")
        for zone in ("Mars/Olympus", "Europe", "../etc/passwd", "\0"):
            unknown = await clock.call_tool("now", {"timezone": zone})
            assert (unknown.is_error, text(unknown)) == (True, f"unknown time zone: {zone}")


@both_revisions
async def test_countdown_reports_progress_and_logs(mode: str) -> None:
    seen: list[Any] = []
    all_seen = trio.Event()

    def saw(entry: Any) -> None:
        seen.append(entry)
        if len(seen) == 5:
            all_seen.set()

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        saw(params.data)

    async def progress(done: float, total: float | None, _message: str | None) -> None:
        saw((done, total))

    async with client(CLOCK, mode, logging_callback=log, log_level="info") as clock:
        result = await clock.call_tool("countdown", {"seconds": 0.25, "step": 0.1}, progress_callback=progress)
        assert result.structured_content == {"seconds": 0.25, "steps": 3}
        with trio.fail_after(2):
            await all_seen.wait()
    # The client runs each callback in a task of its own, so only the values have an order that can be relied on.
    assert {entry for entry in seen if isinstance(entry, str)} == {"counting down 0.25 s", "done"}
    assert sorted(entry for entry in seen if isinstance(entry, tuple)) == [(0.1, 0.25), (0.2, 0.25), (0.25, 0.25)]


async def test_numbers_out_of_range_are_refused() -> None:
    async with client(CLOCK) as clock:
        for name, arguments in [
            ("sleep", {}),
            ("sleep", {"seconds": -1}),
            ("sleep", {"seconds": True}),
            ("countdown", {"seconds": 0}),
            ("countdown", {"seconds": 1, "step": 0}),
            ("countdown", {"seconds": 1e300}),
        ]:
            result = await clock.call_tool(name, arguments)
            assert result.is_error
            assert "must be a number above" in text(result)


@both_revisions
async def test_a_cancelled_call_leaves_the_connection_usable(mode: str) -> None:
    async with client(CLOCK, mode) as clock:
        for name in ("sleep", "countdown"):
            with trio.move_on_after(0.2) as scope:
                await clock.call_tool(name, {"seconds": 60})
            assert scope.cancelled_caught
        with trio.fail_after(5):
            assert text(await clock.call_tool("sleep", {"seconds": 0})) == "slept 0 s"


async def _started(module: str) -> trio.Process:
    """The module as a child process that has answered `initialize` and runs a long call if it has one."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    await _send(process, id=1, method="initialize", params=hello)
    assert process.stdout is not None
    answer = b""
    while not answer.endswith(b"\n"):
        answer += await process.stdout.receive_some()
    assert json.loads(answer)["id"] == 1
    await _send(process, method="notifications/initialized")
    if module == CLOCK:
        await _send(process, id=2, method="tools/call", params={"name": "sleep", "arguments": {"seconds": 60}})
    return process


async def _send(process: trio.Process, **message: Any) -> None:
    assert process.stdin is not None
    await process.stdin.send_all(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@pytest.mark.parametrize("module", [NOTES, CLOCK])
@pytest.mark.parametrize("how", ["stdin closes", "SIGTERM", "the client is gone"])
async def test_the_process_ends_in_silence(module: str, how: str) -> None:
    process = await _started(module)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(5):
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        elif how == "stdin closes":
            await process.stdin.aclose()
        else:
            await process.stdout.aclose()
            await _send(process, id=3, method="ping")
            await trio.sleep(0.2)  # long enough for the answer to fail before stdin tells the same
            await process.stdin.aclose()
        assert await process.wait() == 0
        assert await process.stderr.receive_some() == b""
    for stream in (process.stdin, process.stdout, process.stderr):
        await stream.aclose()
