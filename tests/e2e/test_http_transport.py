"""The streamable HTTP transport against a real HTTP backend that counts what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError

from tests.e2e.backends.counting import open_counting_backend
from vmcp_actors.errors import (
    BackendLost,
    BackendProtocolError,
    BackendSessionLost,
    BackendUnauthorized,
    BackendUnavailable,
    Delivered,
)
from vmcp_actors.model import BackendSpec, HttpEndpoint, Secret
from vmcp_actors.transports.http import HttpDispatcher, open_http

pytestmark = pytest.mark.e2e

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


class Inbox:
    """What a dispatcher hands up."""

    def __init__(self) -> None:
        self.notifications: list[tuple[str, Any, Any]] = []
        self.requests: list[str] = []
        self.arrived = trio.Event()

    async def on_request(self, context: Any, method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        self.requests.append(method)
        await trio.lowlevel.checkpoint()
        if method != "ping":
            raise MCPError(-32601, "no such method")
        return {}

    async def on_notify(self, context: Any, method: str, params: Mapping[str, Any] | None) -> None:
        await trio.lowlevel.checkpoint()
        self.notifications.append((method, params, context.message_metadata.related_request_id))
        self.arrived.set()


@asynccontextmanager
async def connected(
    url: str, inbox: Inbox | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[HttpDispatcher]:
    """An initialized dispatcher."""
    inbox = inbox or Inbox()
    secret = {name: Secret(value) for name, value in (headers or {}).items()}
    spec = BackendSpec("b", HttpEndpoint(url, headers=secret))
    async with open_http(spec) as dispatcher, trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run, inbox.on_request, inbox.on_notify)
        await dispatcher.send_raw_request("initialize", INITIALIZE)
        await dispatcher.notify("notifications/initialized", None)
        yield dispatcher
        nursery.cancel_scope.cancel()


async def until(condition: Any) -> None:
    """Wait for something real to happen."""
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def test_the_sdks_client_session_runs_over_our_dispatcher() -> None:
    """It is a dispatcher of the SDK: its own client cannot tell the difference."""
    async with open_counting_backend() as backend:
        spec = BackendSpec("b", HttpEndpoint(backend.url))
        async with open_http(spec) as dispatcher, ClientSession(dispatcher=dispatcher) as session:
            await session.initialize()
            tools = await session.list_tools()
            progress: list[float] = []

            async def on_progress(value: float, total: float | None, message: str | None) -> None:
                progress.append(value)

            first = await session.call_tool("counter", {})
            second = await session.call_tool("counter", {})
            stepped = await session.call_tool("progress", {"steps": 3}, progress_callback=on_progress)
            await session.send_ping()

            assert "echo" in {tool.name for tool in tools.tools}
            assert [result.content[0].text for result in (first, second)] == ["1", "2"]  # type: ignore[union-attr]
            assert not stepped.is_error
            assert len(progress) == 3
            with pytest.raises(MCPError) as caught:
                await session.call_tool("error", {})
            assert (caught.value.code, caught.value.data is not None) == (-32050, True)
            await dispatcher.goodbye()
        assert backend.counts["DELETE"] == 1


@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_a_hundred_calls_go_over_one_kept_connection(answer: str) -> None:
    """JSON or event stream: the connection is used again."""
    async with open_counting_backend(answer=answer) as backend, connected(backend.url) as dispatcher:
        await until(lambda: backend.counts["GET"] == 1)
        for _ in range(100):
            await dispatcher.send_raw_request("tools/call", call("echo", text="x"))

        assert backend.counts["tools/call"] == 100
        # One is the GET stream's. Event streams end a moment after their answer, so a few connections take turns.
        assert backend.counts["connections"] <= (2 if answer == "json" else 8)


async def test_notifications_name_the_request_they_belong_to_and_keep_their_order() -> None:
    """Progress and log come with the id of the call; a change notice on the GET stream with none."""
    inbox = Inbox()
    async with open_counting_backend() as backend, connected(backend.url, inbox) as dispatcher:
        params = {**call("progress", steps=5), "_meta": {"progressToken": 42}}
        await dispatcher.send_raw_request("tools/call", params, {"request_id": 42})
        progress = [params["progress"] for method, params, _ in inbox.notifications if method.endswith("/progress")]
        related = {related for _, _, related in inbox.notifications}
        inbox.notifications.clear()
        inbox.arrived = trio.Event()
        await dispatcher.send_raw_request("tools/call", call("grow"))
        with trio.fail_after(10):
            await inbox.arrived.wait()

        assert progress == sorted(progress)
        assert len(progress) == 5
        assert related == {42}
        assert inbox.notifications == [("notifications/tools/list_changed", {}, None)]


async def test_a_ping_is_answered_while_a_call_runs() -> None:
    """The backend asks in the middle of the call and goes on only with the answer."""
    inbox = Inbox()
    async with open_counting_backend() as backend, connected(backend.url, inbox) as dispatcher:
        await until(lambda: backend.counts["GET"] == 1)
        result = await dispatcher.send_raw_request("tools/call", call("ping_me"))

        assert not result.get("isError")
        assert inbox.requests == ["ping"]


async def test_a_request_on_the_answer_stream_gets_its_answer() -> None:
    """Here a refusal, since this client declared nothing."""
    inbox = Inbox()
    async with open_counting_backend() as backend, connected(backend.url, inbox) as dispatcher:
        with trio.fail_after(10):
            result = await dispatcher.send_raw_request("tools/call", call("ask"))

        assert result["isError"] or inbox.requests == ["elicitation/create"]


async def test_a_dropped_get_stream_is_opened_again_where_it_stopped() -> None:
    """With Last-Event-ID, so that what was said meanwhile is not lost."""
    inbox = Inbox()
    async with open_counting_backend() as backend, connected(backend.url, inbox) as dispatcher:
        await until(lambda: backend.counts["GET"] == 1)
        await dispatcher.send_raw_request("tools/call", call("grow"))
        await until(lambda: inbox.notifications)
        backend.drop_get_streams()
        await dispatcher.send_raw_request("tools/call", call("grow"))
        await until(lambda: len(inbox.notifications) == 2)

        assert backend.counts["resume"] == 1


async def test_a_backend_without_get_stream_is_asked_once() -> None:
    """405 is an answer, not a fault: no storm of reconnects."""
    async with open_counting_backend(get_405=True) as backend, connected(backend.url) as dispatcher:
        await until(lambda: backend.counts["GET"] == 1)
        await trio.sleep(1.5)
        await dispatcher.send_raw_request("tools/call", call("echo", text="x"))

        assert backend.counts["GET"] == 1


async def test_cancelling_a_request_tells_the_backend() -> None:
    """And costs nobody else anything."""
    async with open_counting_backend() as backend, connected(backend.url) as dispatcher:
        with trio.move_on_after(0.2):
            await dispatcher.send_raw_request("tools/call", call("sleep", seconds=30))
        await until(lambda: backend.counts["cancelled"] == 1)

        await dispatcher.send_raw_request("tools/call", call("echo", text="x"))


async def test_a_timeout_is_the_sdks_error_and_cancels() -> None:
    """As the Dispatcher protocol has it."""
    async with open_counting_backend() as backend, connected(backend.url) as dispatcher:
        with pytest.raises(MCPError, match="no answer within"):
            await dispatcher.send_raw_request("tools/call", call("sleep", seconds=30), {"timeout": 0.2})

        await until(lambda: backend.counts["cancelled"] == 1)


async def test_a_forgotten_session_is_told_apart_from_a_tools_own_not_found() -> None:
    """HTTP 404 ends the connection as `BackendSessionLost`, not delivered."""
    inbox = Inbox()
    async with open_counting_backend() as backend:
        spec = BackendSpec("b", HttpEndpoint(backend.url))
        async with open_http(spec) as dispatcher:
            with pytest.RaisesGroup(BackendSessionLost):
                async with trio.open_nursery() as nursery:
                    await nursery.start(dispatcher.run, inbox.on_request, inbox.on_notify)
                    await dispatcher.send_raw_request("initialize", INITIALIZE)
                    await dispatcher.notify("notifications/initialized", None)
                    with pytest.raises(MCPError):
                        await dispatcher.send_raw_request("tools/call", call("no such tool"))
                    backend.forget_sessions()
                    with trio.CancelScope(shield=True), pytest.raises(BackendSessionLost) as caught:
                        await dispatcher.send_raw_request("tools/call", call("echo", text="x"))
                    await trio.sleep_forever()

            assert caught.value.delivered is Delivered.NO


async def test_a_connection_that_breaks_during_a_call_leaves_open_whether_it_ran() -> None:
    """It is reported, and not sent again."""
    async with open_counting_backend(crash_mid_call=True) as backend, connected(backend.url) as dispatcher:
        with pytest.raises(BackendLost) as caught:
            await dispatcher.send_raw_request("tools/call", call("counter"))

        assert caught.value.delivered is Delivered.UNKNOWN
        assert backend.counts["tools/call"] == 1


async def test_kept_connections_that_the_backend_closed_are_replaced_silently() -> None:
    """A server that closes idle connections costs a new connection, not a call."""
    async with open_counting_backend() as backend, connected(backend.url) as dispatcher:
        await until(lambda: backend.counts["GET"] == 1)
        await dispatcher.send_raw_request("tools/call", call("echo", text="x"))
        backend.close_connections()
        await trio.sleep(0.1)

        assert await dispatcher.send_raw_request("tools/call", call("echo", text="y"))


@pytest.mark.parametrize(
    ("status", "error", "delivered"),
    [
        (401, BackendUnauthorized, Delivered.NO),
        (403, BackendUnauthorized, Delivered.NO),
        (302, BackendProtocolError, Delivered.UNKNOWN),
    ],
)
async def test_http_errors_become_the_error_that_says_what_to_do(
    status: int, error: type[Exception], delivered: Delivered
) -> None:
    """The status is not lost, as it is with the SDK's client."""
    async with (
        open_counting_backend(status_for={"tools/call": status}) as backend,
        connected(backend.url) as dispatcher,
    ):
        with pytest.raises(error, match=str(status)) as caught:
            await dispatcher.send_raw_request("tools/call", call("echo", text="x"))

        assert caught.value.delivered is delivered  # type: ignore[attr-defined]


async def test_configured_headers_are_sent() -> None:
    """And without them the backend refuses."""
    async with open_counting_backend(require_headers={"x-key": "k"}) as backend:
        async with connected(backend.url, headers={"X-Key": "k"}) as dispatcher:
            assert await dispatcher.send_raw_request("tools/call", call("echo", text="x"))
        with pytest.RaisesGroup(BackendUnauthorized):
            async with connected(backend.url):
                pass


async def test_nobody_there_is_unavailable_and_not_delivered() -> None:
    """The text says what happened, not a traceback."""
    spec = BackendSpec("b", HttpEndpoint("http://127.0.0.1:9/mcp"))
    async with open_http(spec) as dispatcher:
        with pytest.raises(BackendUnavailable, match="backend b: connection refused") as caught:
            await dispatcher.send_raw_request("initialize", INITIALIZE)

    assert caught.value.delivered is Delivered.NO
    assert "over" not in repr(dispatcher)
