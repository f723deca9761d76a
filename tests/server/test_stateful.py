"""The MCP endpoint for the stateful revisions: statuses, streams, cancellation (mission P1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sessions.harness import backend, text_of
from vmcp_actors.model import Era, JsonObject
from vmcp_actors.settings import ServerSettings
from vmcp_actors.testing import MemoryBackend, MemorySession

from .harness import INITIALIZE, served


async def test_initialize_makes_a_session_and_says_what_it_can_do(autojump_clock: MockClock) -> None:
    """S1: an id of visible ASCII in the header, the requested revision, and the merged capabilities."""
    async with served([backend("a", instructions="Hello.")]) as gateway:
        client = gateway.client()
        answer = await client.initialize()
        other = await gateway.client().initialize(protocolVersion="2025-03-26")

        assert answer.status == 200
        assert answer.json["id"] == 0
        assert answer.json["result"] == {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}, "logging": {}},
            "serverInfo": {"name": "test", "version": answer.json["result"]["serverInfo"]["version"]},
            "instructions": "Hello.",
        }
        assert other.json["result"]["protocolVersion"] == "2025-03-26"
        assert other.headers["mcp-session-id"] != client.session
        assert len(str(client.session)) >= 32
        assert all(0x21 <= ord(character) <= 0x7E for character in str(client.session))


async def test_an_unknown_revision_is_answered_with_the_newest_stateful_one(autojump_clock: MockClock) -> None:
    """The client decides whether it can live with it."""
    async with served([backend("a")]) as gateway:
        answer = await gateway.client().initialize(protocolVersion="1999-01-01")

        assert answer.json["result"]["protocolVersion"] == "2025-11-25"


async def test_tools_are_listed_and_called_with_plain_json_answers(autojump_clock: MockClock) -> None:
    """Nothing has to be sent before the result, so there is no stream."""
    async with served([backend("a"), backend("b")]) as gateway:
        client = gateway.client()
        await client.initialize()
        listed = await client.request("tools/list")
        exchange = await client.post(client.message("tools/call", name="b_echo", arguments={"text": "hi"}))

        assert [tool["name"] for tool in listed["result"]["tools"]][:4] == ["a_echo", "a_count", "a_sleep", "b_echo"]
        assert exchange.headers["content-type"] == "application/json"
        assert text_of(exchange.json["result"]) == "hi"


async def test_what_a_backend_sends_passes_through_unchanged(autojump_clock: MockClock) -> None:
    """A3: unknown fields of definitions and results, numbers as they are, nothing added."""
    odd: JsonObject = {
        "content": [{"type": "hologram", "data": "…", "size": 12345678901234567890}],
        "structuredContent": {"ratio": 1.5, "none": None},
        "_meta": {"vendor/x": [1]},
        "x-new": True,
    }

    async def strange(_: MemorySession, __: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        return odd

    definition = {
        "annotations": {"readOnlyHint": True},
        "icons": [{"src": "i"}],
        "_meta": {"a": 1},
        "x-y": {"$ref": "#"},
    }
    a = MemoryBackend("a", tools={"strange": strange}, definitions={"strange": definition})
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        listed = await client.request("tools/list")

        assert listed["result"]["tools"] == [{"name": "a_strange", "inputSchema": {"type": "object"}, **definition}]
        assert await client.tool("a_strange") == odd


async def test_two_clients_do_not_see_each_other(autojump_clock: MockClock) -> None:
    """The same request id and the same tool at the same time, and each its own state."""
    async with served([backend("a")]) as gateway:
        one, two = gateway.client(), gateway.client()
        await one.initialize()
        await two.initialize()
        counted = [text_of(await client.tool("a_count")) for client in (one, one, two, one)]

        assert counted == ["1", "2", "1", "3"]


async def test_progress_commits_the_answer_to_a_stream_in_order(autojump_clock: MockClock) -> None:
    """Progress under the client's own token, then the result, then the end of the stream."""

    async def stepping(session: MemorySession, arguments: JsonObject) -> Any:
        for step in range(3):
            token = arguments["_meta"]["progressToken"]
            session.notify("notifications/progress", {"progressToken": token, "progress": step})
            await trio.sleep(1)
        return "done"

    async with served([MemoryBackend("a", tools={"stepping": stepping})]) as gateway:
        client = gateway.client()
        await client.initialize()
        message = client.message("tools/call", name="a_stepping", arguments={}, _meta={"progressToken": "p"})
        exchange = await client.post(message)

        assert exchange.headers["content-type"] == "text/event-stream"
        *progress, result = exchange.messages
        assert [notice["params"] for notice in progress] == [{"progressToken": "p", "progress": n} for n in range(3)]
        assert result["id"] == message["id"]
        assert text_of(result["result"]) == "done"


async def test_a_long_call_becomes_a_stream_with_comments(autojump_clock: MockClock) -> None:
    """So that proxies do not cut a connection that seems dead."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        exchange = await client.post(client.message("tools/call", name="a_sleep", arguments={"seconds": 40}))

        assert exchange.headers["content-type"] == "text/event-stream"
        assert exchange.body.count(b": keepalive") == 1
        assert text_of(exchange.messages[-1]["result"]) == "slept"


async def test_cancelled_cancels_the_call_down_to_the_backend(autojump_clock: MockClock) -> None:
    """By the client's id here, by our own id there; the request still ends."""
    a = backend("a")
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        message = client.message("tools/call", name="a_sleep", arguments={"seconds": 50})
        exchange = client.begin_post(message)
        await trio.sleep(1)
        notice = {"requestId": message["id"], "reason": "changed my mind"}
        accepted = await client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": notice})
        await trio.sleep(1)

        assert accepted.status == 202
        assert exchange.finished
        assert exchange.json["error"]["message"] == "cancelled: changed my mind"
        assert a.counts["notifications/cancelled"] == 1


async def test_cancelling_what_is_not_there_is_accepted_and_ignored(autojump_clock: MockClock) -> None:
    """It may have ended a moment ago."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        for request_id in (99, "x", None, {"a": 1}):
            notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
            assert (await client.post(notice)).status == 202


async def test_a_client_that_disconnects_does_not_cancel_its_call(autojump_clock: MockClock) -> None:
    """MCP 2025-11-25: a dropped stream is no cancellation."""
    finished: list[str] = []

    async def slow(_: MemorySession, __: JsonObject) -> Any:
        await trio.sleep(10)
        finished.append("ran to its end")
        return "done"

    async with served([MemoryBackend("a", tools={"slow": slow})]) as gateway:
        client = gateway.client()
        await client.initialize()
        exchange = client.begin_post(client.message("tools/call", name="a_slow", arguments={}))
        await trio.sleep(1)
        exchange.hang_up.set()
        await trio.sleep(20)

        assert finished == ["ran to its end"]


async def test_the_same_id_twice_at_the_same_time_is_refused(autojump_clock: MockClock) -> None:
    """Answers could not be told apart; one after the other is fine."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        message = client.message("tools/call", name="a_sleep", arguments={"seconds": 1})
        first = client.begin_post(message)
        await wait_all_tasks_blocked()
        second = await client.post(message)
        await trio.sleep(2)
        third = await client.post(message)

        assert (second.status, second.json["error"]["code"]) == (400, -32600)
        assert first.finished
        assert third.status == 200


async def test_the_get_stream_carries_list_changed_and_ends_with_the_session(autojump_clock: MockClock) -> None:
    """S5: tools of a late backend are announced; DELETE ends the stream."""
    late = backend("late", down="not yet")
    async with served([backend("a"), late]) as gateway:
        client = gateway.client()
        await client.initialize()
        stream = client.begin("GET")
        await trio.sleep(1)
        late.down = None
        await trio.sleep(60)

        assert stream.headers["content-type"] == "text/event-stream"
        assert [message["method"] for message in stream.messages] == ["notifications/tools/list_changed"]
        assert gateway.supervisor.sessions()[0].open_streams == 1
        assert (await client.http("DELETE")).status == 204
        assert stream.finished


async def test_notices_wait_for_the_get_stream_and_go_to_exactly_one(autojump_clock: MockClock) -> None:
    """What happens before the stream is open is not lost, and not said twice."""
    a = backend("a")
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        a.notify("notifications/message", {"level": "info", "data": "early"})
        one = client.begin("GET")
        await wait_all_tasks_blocked()
        two = client.begin("GET")
        await wait_all_tasks_blocked()
        a.notify("notifications/message", {"level": "info", "data": "late"})
        await wait_all_tasks_blocked()
        two.hang_up.set()
        await wait_all_tasks_blocked()
        a.notify("notifications/message", {"level": "info", "data": "later"})
        await wait_all_tasks_blocked()

        assert [message["params"]["data"] for message in one.messages] == ["early", "later"]
        assert [message["params"]["data"] for message in two.messages] == ["late"]


async def test_a_reader_that_is_stuck_costs_the_session_nothing(autojump_clock: MockClock) -> None:
    """Its outbox is bounded, its notices dropped, and calls go on."""
    a = backend("a")
    async with served([a], server=ServerSettings(stream_capacity=8)) as gateway:
        client = gateway.client()
        await client.initialize()
        stream = client.begin("GET")
        await wait_all_tasks_blocked()
        stream.stuck = True
        for number in range(1000):
            a.notify("notifications/message", {"level": "info", "data": number})
        await wait_all_tasks_blocked()

        assert text_of(await client.tool("a_echo", text="still here")) == "still here"


async def test_delete_ends_the_session_and_everything_in_it(autojump_clock: MockClock) -> None:
    """Afterwards its id is unknown, and so it is for a second DELETE."""
    a = backend("a")
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        deleted = await client.http("DELETE")
        assert deleted.status == 204
        assert a.counts["goodbye"] == 1
        assert gateway.supervisor.statistics().sessions == 0
        for exchange in (await client.http("DELETE"), await client.post(client.message("tools/list"))):
            assert (exchange.status, exchange.json["error"]["message"]) == (404, "Session not found")


async def test_a_stateless_client_is_told_to_fall_back(autojump_clock: MockClock) -> None:
    """400 with the supported revisions, whether it says so in the header or in the body."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        probe = client.message("server/discover", _meta=meta)
        by_header = await client.post(probe, mcp_protocol_version="2026-07-28", mcp_method="server/discover")
        by_body = await client.post(probe)

        for exchange in (by_header, by_body):
            assert exchange.status == 400
            assert exchange.json["id"] == probe["id"]
            assert exchange.json["error"]["code"] == -32022
            assert exchange.json["error"]["data"]["requested"] == "2026-07-28"
            assert "2025-11-25" in exchange.json["error"]["data"]["supported"]


BAD_POSTS: list[tuple[bytes, dict[str, str | None], int, int]] = [
    (b"{", {}, 400, -32700),
    (b"", {}, 400, -32700),
    (b"\xff\xfe", {}, 400, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 4000, {}, 400, -32700),
    (b"[" * 4000, {}, 400, -32600),
    (b"[]", {}, 400, -32600),
    (b"3", {}, 400, -32600),
    (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":1}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"mcp_session_id": None}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"mcp_session_id": "made-up"}, 404, -32001),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"mcp_protocol_version": "1.0"}, 400, -32022),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"accept": "application/json"}, 406, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"accept": "text/html"}, 406, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"content_type": "text/plain"}, 415, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"origin": "https://evil.example.com"}, 403, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"host": "evil.example.com"}, 421, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"host": None}, 421, -32600),
    (b" " * 5000, {}, 413, -32600),
    (b"{}", {"content_length": "5000"}, 413, -32600),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), BAD_POSTS)
async def test_bad_posts_get_the_status_and_code_that_fit(
    autojump_clock: MockClock, body: bytes, headers: dict[str, str | None], status: int, code: int
) -> None:
    """Each is refused, with a JSON-RPC error as its body, and the session goes on."""
    async with served([backend("a")], server=ServerSettings(max_body_bytes=4999)) as gateway:
        client = gateway.client()
        await client.initialize()
        exchange = await client.http("POST", body, **headers)

        assert (exchange.status, exchange.json["error"]["code"]) == (status, code)
        assert exchange.json["error"]["message"]
        assert (await client.request("ping"))["result"] == {}


async def test_a_body_that_does_not_arrive_is_408(autojump_clock: MockClock) -> None:
    """A client that announces a body and sends none holds nothing for ever."""
    async with served([backend("a")]) as gateway:
        start = trio.current_time()
        exchange = gateway.client().begin("POST", slow=True)
        await trio.sleep(31)

        assert (exchange.status, exchange.finished) == (408, True)
        assert trio.current_time() - start == pytest.approx(31)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_other_methods_are_405_with_allow(autojump_clock: MockClock, method: str) -> None:
    """RFC 9110: the response names what is allowed."""
    async with served([backend("a")]) as gateway:
        exchange = await gateway.client().http(method)

        assert exchange.status == 405
        assert exchange.headers["allow"] == "GET, POST, DELETE"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_get_and_delete_need_a_session(autojump_clock: MockClock, method: str) -> None:
    """Without an id 400, with an unknown one 404."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()

        assert (await client.http(method)).status == 400
        assert (await client.http(method, mcp_session_id="nope")).status == 404
        assert (await client.http(method, mcp_session_id="nope", mcp_protocol_version="1.0")).status == 400


@pytest.mark.parametrize(
    "params",
    [{}, {"protocolVersion": 3}, {"protocolVersion": "2025-11-25", "capabilities": []}],
)
async def test_a_bad_initialize_makes_no_session(autojump_clock: MockClock, params: JsonObject) -> None:
    """It is answered with what is wrong."""
    async with served([backend("a")]) as gateway:
        exchange = await gateway.client().post({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params})

        assert exchange.json["id"] == 7
        assert exchange.json["error"]["code"] == -32602
        assert gateway.supervisor.statistics().started == 0


async def test_errors_of_accepted_requests_are_answers_with_http_200(autojump_clock: MockClock) -> None:
    """A tool's failure is not the transport's."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()

        assert (await client.request("tools/call", name="nope"))["error"]["code"] == -32602
        assert (await client.request("no/such"))["error"]["code"] == -32601
        assert (await client.request("resources/read", uri="x://y"))["error"]["code"] == -32002


async def test_the_session_limit_is_503_with_retry_after(autojump_clock: MockClock) -> None:
    """S13: the words of the specification, and no numbers."""
    async with served([backend("a")], max_sessions=1) as gateway:
        await gateway.client().initialize()
        exchange = await gateway.client().post(INITIALIZE)

        assert exchange.status == 503
        assert exchange.headers["retry-after"] == "30"
        assert exchange.json["error"] == {
            "code": -32000,
            "message": "Maximum concurrent sessions exceeded. Please try again later or contact administrator.",
        }


async def test_too_many_calls_is_503_with_retry_after(autojump_clock: MockClock) -> None:
    """The session is busy; nothing was begun."""
    async with served([backend("a")], max_calls=1) as gateway:
        client = gateway.client()
        await client.initialize()
        client.begin_post(client.message("tools/call", name="a_sleep", arguments={"seconds": 5}))
        await wait_all_tasks_blocked()
        exchange = await client.post(client.message("ping"))

        assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")


async def test_a_bug_of_ours_is_an_error_without_details(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback, the client a JSON-RPC error."""

    async def broken(_: MemorySession, __: JsonObject) -> Any:
        raise ZeroDivisionError("secret detail")

    async with served([MemoryBackend("a", tools={"broken": broken})]) as gateway:
        client = gateway.client()
        await client.initialize()
        answer = await client.request("tools/call", name="a_broken", arguments={})

        assert answer["error"] == {"code": -32603, "message": "Internal error"}
        assert "secret detail" in caplog.text


async def test_operators_pages(autojump_clock: MockClock) -> None:
    """Health, readiness and the tree with counts; no session id in it (X4)."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        await client.tool("a_echo", text="x")
        health = await client.http("GET", path="/healthz")
        ready = await client.http("GET", path="/readyz")
        status = await client.http("GET", path="/status")
        missing = await client.http("GET", path="/nowhere")

        assert (health.status, ready.status, status.status, missing.status) == (200, 200, 200, 404)
        tree = status.json
        assert tree["supervisor"]["sessions"] == 1
        assert tree["sessions"][0]["backends"][0]["state"] == "ready"
        assert tree["sessions"][0]["handled_calls"] == 1
        assert client.session not in status.body.decode()
        assert "a-1" not in status.body.decode()
        await gateway.supervisor.drain()
        assert (await client.http("GET", path="/readyz")).status == 503
        assert (await client.http("GET", path="/healthz")).status == 200
        assert (await client.post(INITIALIZE)).status == 503


@pytest.mark.parametrize(
    ("settings", "server", "headers", "status"),
    [
        (ServerSettings(), "127.0.0.1", {"origin": "http://localhost:6274"}, 200),
        (ServerSettings(), "127.0.0.1", {"host": "localhost:4483"}, 200),
        (ServerSettings(), "127.0.0.1", {"host": "[::1]:4483"}, 200),
        (ServerSettings(), "127.0.0.1", {"host": "127.0.0.1.evil.com"}, 421),
        (ServerSettings(), "127.0.0.1", {"host": "["}, 421),
        (ServerSettings(), "127.0.0.1", {"origin": "null"}, 403),
        (ServerSettings(), "127.0.0.1", {"origin": "http://["}, 403),
        (ServerSettings(), "10.0.0.5", {"host": "vmcp.example.com"}, 200),
        (ServerSettings(), "10.0.0.5", {"host": "vmcp.example.com", "origin": "https://vmcp.example.com"}, 200),
        (ServerSettings(), "10.0.0.5", {"host": "vmcp.example.com", "origin": "http://localhost:1"}, 403),
        (ServerSettings(allowed_hosts=("vmcp.example.com",)), "127.0.0.1", {"host": "vmcp.example.com:80"}, 200),
        (ServerSettings(allowed_hosts=("vmcp.example.com",)), "10.0.0.5", {"host": "other.example.com"}, 421),
        (
            ServerSettings(allowed_origins=("https://app.example.com",)),
            "127.0.0.1",
            {"origin": "https://app.example.com"},
            200,
        ),
        (
            ServerSettings(allowed_origins=("https://app.example.com",)),
            "127.0.0.1",
            {"origin": "https://app.example.org"},
            403,
        ),
    ],
)
async def test_host_and_origin(
    autojump_clock: MockClock, settings: ServerSettings, server: str, headers: dict[str, str], status: int
) -> None:
    """A page of a foreign site cannot reach a server on loopback, whatever name it uses for it."""
    async with served([backend("a")], server=settings) as gateway:
        body = json.dumps(INITIALIZE).encode()
        exchange = await gateway.client().http("POST", body, server=server, **headers)

        assert exchange.status == status


@pytest.mark.parametrize("stateless", [False, True])
async def test_what_can_just_be_read_and_not_be_written_again_is_refused(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, stateless: bool
) -> None:
    """The stack is deeper where a message is encoded than where it was decoded."""

    async def swallow(*_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "gone"

    a = MemoryBackend("a", eras=tuple(Era), tools={"swallow": swallow})
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        statuses = set()
        for depth in range(880, 1000, 4):
            body: dict[str, Any] = {"name": "a_swallow", "arguments": {"text": "@"}}
            message, headers = client.message("tools/call", **body), {}
            if stateless:
                message, headers = client.stateless("tools/call", **body)
            data = json.dumps(message).replace('"@"', "[" * depth + "]" * depth).encode()
            exchange = await client.http("POST", data, **headers)
            statuses.add((exchange.status, exchange.json.get("error", {}).get("code")))
        assert (200, None) in statuses
        assert (400, -32700) in statuses
        assert statuses <= {(200, None), (200, -32600), (400, -32600), (400, -32700)}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_websocket_is_refused(autojump_clock: MockClock) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(event)

    async with served([backend("a")]) as gateway:
        await gateway.app({"type": "websocket", "headers": [], "path": "/mcp"}, receive, send)
    assert [event["type"] for event in sent] == ["websocket.close"]
