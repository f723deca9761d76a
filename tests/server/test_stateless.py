"""Clients of the stateless revision, served as they are (P2): requests, errors, streams, what they listen for."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sessions.harness import backend
from vmcp_actors.model import ANONYMOUS, ClientProfile, Era, JsonObject
from vmcp_actors.settings import AggregationSettings, StatelessSettings, ToolOverride, WorkloadRules
from vmcp_actors.testing import MemoryBackend, MemorySession

from .harness import Exchange, served

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
INFO = {"name": "test", "version": "1"}
LISTENING = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}, "resources": {"subscribe": True}}


def native(name: str = "a", **attributes: Any) -> MemoryBackend:
    return backend(name, eras=(Era.STATELESS,), **attributes)


def error(exchange: Exchange) -> tuple[int, int]:
    return exchange.status, exchange.json["error"]["code"]


async def until_messages(exchange: Exchange, count: int) -> list[Any]:
    with trio.fail_after(100):
        while len(exchange.messages) < count:
            await trio.sleep(0.1)
    return exchange.messages


# --- requests and results ---------------------------------------------------------------------------------------------


async def test_a_request_is_answered_without_a_session(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a]) as gateway:
        exchange = await gateway.client().ask("tools/call", name="a_echo", arguments={"text": "x"})
        assert exchange.status == 200
        assert exchange.headers["content-type"] == "application/json"
        assert "mcp-session-id" not in exchange.headers
        result = exchange.json["result"]
        assert result["content"] == [{"type": "text", "text": "x"}]
        assert result["resultType"] == "complete"
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "test"


async def test_discover_says_what_all_backends_can_do(autojump_clock: MockClock) -> None:
    doubles = [
        native("a", capabilities={"tools": {}, "completions": {}}, instructions="Be kind."),
        native("b", capabilities={"tools": {}, "resources": {"subscribe": True}}),
    ]
    async with served(doubles) as gateway:
        result = await gateway.client().result("server/discover")
        assert result["supportedVersions"] == ["2026-07-28"]
        assert result["capabilities"] == {
            "tools": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
        }
        assert result["instructions"] == "## a\nBe kind."
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")


@pytest.mark.parametrize(
    ("caching", "merged"),
    [
        ([{"ttlMs": 500, "cacheScope": "public"}, {"ttlMs": 90, "cacheScope": "public"}], (90, "public")),
        ([{"ttlMs": 500, "cacheScope": "public"}, {"ttlMs": 900, "cacheScope": "private"}], (500, "private")),
        ([{"ttlMs": 500, "cacheScope": "public"}, {}], (0, "private")),
        ([{"ttlMs": "500", "cacheScope": "everybody"}, {"ttlMs": -1, "cacheScope": 1}], (0, "private")),
    ],
)
async def test_merged_lists_are_as_fresh_as_the_least_fresh(
    autojump_clock: MockClock, caching: list[JsonObject], merged: tuple[int, str]
) -> None:
    doubles = [native(name, caching=each) for name, each in zip("ab", caching, strict=True)]
    async with served(doubles) as gateway:
        result = await gateway.client().result("tools/list")
        assert (result["ttlMs"], result["cacheScope"]) == merged
        assert len(result["tools"]) == 6


async def test_each_backend_is_told_what_this_very_request_declares(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a]) as gateway:
        client = gateway.client()
        await client.result("tools/call", name="a_echo", arguments={}, capabilities={"sampling": {}})
        await client.result("tools/call", name="a_echo", arguments={}, capabilities={"roots": {}, "tasks": {}})
        declared = [params["_meta"][CAPABILITIES] for _, method, params in a.history if method == "tools/call"]
        assert declared == [{"sampling": {}}, {"roots": {}}]
        assert gateway.supervisor.statistics().sessions == 1


async def test_all_requests_of_a_principal_share_the_connections(autojump_clock: MockClock) -> None:
    """Also those that come at the same time, before there is anything."""
    a = native()
    async with served([a]) as gateway:
        exchanges = [gateway.client().begin_stateless("tools/call", name="a_echo", arguments={}) for _ in range(20)]
        await trio.sleep(1)
        assert [exchange.status for exchange in exchanges] == [200] * 20
        assert a.counts["connect"] == 1
        assert a.counts["tools/list"] == 1


async def test_addresses_do_not_share_connections(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a]) as gateway:
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
            await gateway.client(address=address).result("tools/list")
        assert a.counts["connect"] == 2


async def test_the_shared_connections_end_when_nobody_uses_them(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a], stateless=StatelessSettings(idle_timeout=60)) as gateway:
        client = gateway.client()
        await client.result("tools/list")
        await trio.sleep(50)
        await client.result("tools/list")
        await trio.sleep(50)
        assert a.sessions
        await trio.sleep(30)
        assert not a.sessions
        assert gateway.supervisor.statistics().ended == {"idle": 1}
        await client.result("tools/list")
        assert a.counts["connect"] == 2


async def test_a_shared_session_cannot_be_reached_by_an_id(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a]) as gateway:
        client = gateway.client()
        await client.result("tools/list")
        (session,) = gateway.supervisor._live
        exchange = await client.post(client.message("tools/list"), mcp_session_id=session)
        assert exchange.status == 404


async def test_a_session_id_is_ignored(autojump_clock: MockClock) -> None:
    async with served([native()]) as gateway:
        client = gateway.client()
        client.session = "nonsense"
        exchange = await client.ask("tools/list")
        assert exchange.status == 200
        assert "mcp-session-id" not in exchange.headers


async def test_both_revisions_are_served_side_by_side(autojump_clock: MockClock) -> None:
    a = backend("a", eras=(Era.STATEFUL, Era.STATELESS))
    async with served([a]) as gateway:
        stateful, stateless = gateway.client(), gateway.client()
        await stateful.initialize()
        assert (await stateful.tool("a_count"))["content"][0]["text"] == "1"
        assert (await stateless.result("tools/call", name="a_count"))["content"][0]["text"] == "1"
        assert (await stateful.tool("a_count"))["content"][0]["text"] == "2"


async def test_notifications_are_accepted_and_ignored(autojump_clock: MockClock) -> None:
    async with served([native()]) as gateway:
        client = gateway.client()
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        exchange = await client.post(message, mcp_protocol_version="2026-07-28")
        assert (exchange.status, exchange.body) == (202, b"")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [VERSION, CAPABILITIES, "_meta", "params"])
async def test_an_incomplete_envelope_is_refused(autojump_clock: MockClock, missing: str) -> None:
    async with served([native()]) as gateway:
        message, headers = gateway.client().stateless("tools/list")
        if missing == "params":
            del message["params"]
        elif missing == "_meta":
            del message["params"]["_meta"]
        else:
            del message["params"]["_meta"][missing]
        exchange = await gateway.client().post(message, **headers)
        assert error(exchange) == (400, -32602)
        assert exchange.json["id"] == message["id"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mcp_method": None},
        {"mcp_method": "TOOLS/CALL"},
        {"mcp_method": "tools/list"},
        {"mcp_name": None},
        {"mcp_name": "A_ECHO"},
        {"mcp_name": "=?base64?%%%?="},
        {"mcp_protocol_version": None},
        {"mcp_protocol_version": "2025-11-25"},
    ],
    ids=str,
)
async def test_headers_that_say_something_else_than_the_body_are_refused(
    autojump_clock: MockClock, wrong: dict[str, str | None]
) -> None:
    a = native()
    async with served([a]) as gateway:
        client = gateway.client()
        message, headers = client.stateless("tools/call", name="a_echo", arguments={})
        exchange = await client.post(message, **{**headers, **wrong})
        assert error(exchange) == (400, -32020)
        assert a.counts["tools/call"] == 0


async def test_a_name_that_is_no_header_value_comes_in_base64(autojump_clock: MockClock) -> None:
    a = native(resources=({"uri": "x://ü", "name": "u"},), capabilities={"tools": {}, "resources": {}})
    async with served([a]) as gateway:
        message, headers = gateway.client().stateless("resources/read", uri="x://ü")
        assert headers["mcp_name"] == "=?base64?eDovL8O8?="
        exchange = await gateway.client().post(message, **headers)
        assert exchange.json["result"]["contents"][0]["uri"] == "x://ü"


async def test_annotated_arguments_of_a_renamed_tool_are_compared_and_repeated_upstream(
    autojump_clock: MockClock,
) -> None:
    """The client mirrors under the name that it knows; the backend gets its own."""
    schema = {"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Text"}}}
    a = native(http=True, definitions={"echo": {"inputSchema": schema}})
    rules = WorkloadRules(overrides={"echo": ToolOverride(name="parrot")})
    aggregation = AggregationSettings(workloads={"a": rules})
    async with served([a], aggregation=aggregation) as gateway:
        client = gateway.client()
        message, headers = client.stateless("tools/call", name="a_parrot", arguments={"text": "hi"})
        missing = await client.post(message, **headers)
        wrong = await client.post(message, **headers, mcp_param_text="ho")
        unasked = await client.post(message, **headers, mcp_param_text="hi", mcp_param_other="x")
        assert error(missing) == error(wrong) == (400, -32020)
        assert unasked.status == 200
        assert a.headers[-1]["mcp-name"] == "echo"
        assert a.headers[-1]["Mcp-Param-Text"] == "hi"


@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/get",
        "no/such",
    ],
)
async def test_methods_that_the_revision_does_not_have_are_not_found(autojump_clock: MockClock, method: str) -> None:
    async with served([native()]) as gateway:
        assert error(await gateway.client().ask(method)) == (404, -32601)


async def test_an_unknown_revision_is_refused_with_those_that_are_served(autojump_clock: MockClock) -> None:
    async with served([native()]) as gateway:
        message, headers = gateway.client().stateless("tools/list")
        message["params"]["_meta"][VERSION] = "2099-01-01"
        exchange = await gateway.client().post(message, **{**headers, "mcp_protocol_version": "2099-01-01"})
        assert error(exchange) == (400, -32022)
        assert exchange.json["error"]["data"] == {"requested": "2099-01-01", "supported": ["2026-07-28"]}


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_there_is_only_post(autojump_clock: MockClock, method: str) -> None:
    async with served([native()]) as gateway:
        exchange = await gateway.client().http(method, mcp_protocol_version="2026-07-28")
        assert exchange.status == 405
        assert exchange.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("code", "status", "passed_on"),
    [(-32021, 400, -32021), (-32002, 400, -32602), (-32601, 404, -32601), (-32603, 200, -32603), (7, 200, 7)],
)
async def test_a_backends_error_has_the_status_of_its_code(
    autojump_clock: MockClock, code: int, status: int, passed_on: int
) -> None:
    async def fail(_: MemorySession, __: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        raise MCPError(code, "no", {"requiredCapabilities": {"sampling": {}}})

    a = native()
    a.tools["fail"] = fail
    async with served([a]) as gateway:
        exchange = await gateway.client().ask("tools/call", name="a_fail", arguments={})
        assert error(exchange) == (status, passed_on)
        assert exchange.json["error"]["data"] == {"requiredCapabilities": {"sampling": {}}}


async def test_a_resource_that_is_nowhere_is_an_invalid_parameter(autojump_clock: MockClock) -> None:
    doubles = [native(name, resources=({"uri": f"x://{name}", "name": "n"},)) for name in "ab"]
    async with served([*doubles]) as gateway:
        assert error(await gateway.client().ask("resources/read", uri="x://none")) == (400, -32602)


async def test_a_bad_log_level_is_refused(autojump_clock: MockClock) -> None:
    async with served([native()]) as gateway:
        assert error(await gateway.client().ask("tools/list", log_level="loud")) == (400, -32602)


# --- before the result ------------------------------------------------------------------------------------------------


async def chatty(session: MemorySession, arguments: JsonObject) -> Any:
    """A tool that tells of its progress and logs."""
    token = arguments["_meta"].get("progressToken")
    for step in range(3):
        if token is not None:
            session.notify("notifications/progress", {"progressToken": token, "progress": step})
        for level in ("debug", "warning"):
            session.notify("notifications/message", {"level": level, "data": step})
        await trio.sleep(1)
    return "done"


def chatterbox(**attributes: Any) -> MemoryBackend:
    a = native(**attributes)
    a.tools["chat"] = chatty
    return a


async def test_progress_and_logs_come_on_the_stream_of_their_request(autojump_clock: MockClock) -> None:
    async with served([chatterbox()]) as gateway:
        exchange = gateway.client().begin_stateless(
            "tools/call", name="a_chat", arguments={}, progress="p1", log_level="info"
        )
        messages = await until_messages(exchange, 7)
        assert exchange.headers["content-type"] == "text/event-stream"
        assert exchange.headers["x-accel-buffering"] == "no"
        assert b"id:" not in exchange.body
        assert [(m["params"].get("progressToken"), m["params"].get("level")) for m in messages[:-1]] == [
            ("p1", None),
            (None, "warning"),
        ] * 3
        assert messages[-1]["result"]["content"][0]["text"] == "done"


async def test_who_asks_for_no_logs_and_no_progress_gets_none(autojump_clock: MockClock) -> None:
    async with served([chatterbox()]) as gateway:
        exchange = await gateway.client().ask("tools/call", name="a_chat", arguments={})
        assert exchange.headers["content-type"] == "application/json"


async def test_a_long_call_is_kept_alive(autojump_clock: MockClock) -> None:
    async with served([native()]) as gateway:
        exchange = await gateway.client().ask("tools/call", name="a_sleep", arguments={"seconds": 40})
        assert exchange.chunks[:2] == [b": keepalive\n\n"] * 2
        assert exchange.messages[-1]["result"]["content"][0]["text"] == "slept"


async def test_a_client_that_closes_the_stream_cancels_its_request(autojump_clock: MockClock) -> None:
    a = native()
    async with served([a]) as gateway:
        exchange = gateway.client().begin_stateless("tools/call", name="a_sleep", arguments={"seconds": 50})
        await trio.sleep(1)
        exchange.hang_up.set()
        await trio.sleep(1)
        assert a.counts["notifications/cancelled"] == 1
        (statistics,) = gateway.supervisor.sessions()
        assert statistics.running_calls == 0


# --- input_required between two that speak the stateless revision -----------------------------------------------------


async def needy(_: MemorySession, arguments: JsonObject) -> Any:
    await trio.lowlevel.checkpoint()
    params = arguments["_params"]
    if "inputResponses" not in params:
        request = {"method": "elicitation/create", "params": {"message": "who?", "vendor": 1}}
        return {"resultType": "input_required", "inputRequests": {"who": request}, "requestState": "s=é"}
    return f"{params['inputResponses']} {params['requestState']}"


async def test_what_is_needed_and_its_state_pass_as_they_are(autojump_clock: MockClock) -> None:
    a = native()
    a.tools["needy"] = needy
    async with served([a]) as gateway:
        client = gateway.client()
        needed = await client.result("tools/call", name="a_needy", arguments={})
        assert needed["resultType"] == "input_required"
        assert needed["inputRequests"]["who"]["params"] == {"message": "who?", "vendor": 1}
        assert needed["requestState"] == "s=é"
        assert "ttlMs" not in needed
        answers = {"who": {"action": "accept"}, "extra": {"x": 1}}
        result = await client.result(
            "tools/call", name="a_needy", arguments={}, inputResponses=answers, requestState="s=é"
        )
        assert result["content"][0]["text"] == f"{answers} s=é"


# --- what is listened for ---------------------------------------------------------------------------------------------


async def test_a_listen_is_acknowledged_and_fed_by_all_backends(autojump_clock: MockClock) -> None:
    doubles = [native("a", capabilities=LISTENING), native("b", capabilities=LISTENING)]
    async with served(doubles) as gateway:
        wanted = {"toolsListChanged": True, "promptsListChanged": False, "nonsense": True}
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications=wanted)
        (ack,) = await until_messages(exchange, 1)
        assert ack["method"] == "notifications/subscriptions/acknowledged"
        assert ack["params"]["notifications"] == {"toolsListChanged": True}
        for double in doubles:
            double.notify("notifications/tools/list_changed")
            double.notify("notifications/prompts/list_changed")
            await trio.sleep(1)
        messages = exchange.messages
        assert [message["method"] for message in messages[1:]] == ["notifications/tools/list_changed"] * 2
        assert {message["params"]["_meta"][SUBSCRIPTION] for message in messages} == {1}


async def test_each_listen_gets_what_it_asked_for_under_its_own_id(autojump_clock: MockClock) -> None:
    a = native(capabilities=LISTENING)
    async with served([a]) as gateway:
        client = gateway.client()
        tools = client.begin_stateless("subscriptions/listen", notifications={"toolsListChanged": True})
        prompts = client.begin_stateless("subscriptions/listen", notifications={"promptsListChanged": True})
        await until_messages(prompts, 1)
        a.notify("notifications/tools/list_changed")
        a.notify("notifications/prompts/list_changed")
        for exchange, subscription, kind in ((tools, 1, "tools"), (prompts, 2, "prompts")):
            message = (await until_messages(exchange, 2))[1]
            assert message["method"] == f"notifications/{kind}/list_changed"
            assert message["params"]["_meta"] == {SUBSCRIPTION: subscription}


async def test_resources_are_watched_for_as_long_as_somebody_listens(autojump_clock: MockClock) -> None:
    """Two listeners, one subscription; under the URI that the client knows."""
    uri = {"uri": "x://1", "name": "one"}
    doubles = [native(name, resources=(uri,), capabilities=LISTENING) for name in "ab"]
    async with served(doubles) as gateway:
        client = gateway.client()
        wanted = {"resourceSubscriptions": ["vmcp://b/x://1"]}
        first = client.begin_stateless("subscriptions/listen", notifications=wanted)
        second = client.begin_stateless("subscriptions/listen", notifications=wanted)
        assert (await until_messages(second, 1))[0]["params"]["notifications"] == wanted
        for double in doubles:
            double.notify("notifications/resources/updated", {"uri": "x://1"})
        message = (await until_messages(first, 2))[1]
        assert message["params"]["uri"] == "vmcp://b/x://1"
        (memory,) = doubles[1].sessions.values()

        first.hang_up.set()
        await trio.sleep(2)
        assert any("resourceSubscriptions" in listen for listen in memory.listens.values())
        second.hang_up.set()
        await trio.sleep(2)
        assert not any("resourceSubscriptions" in listen for listen in memory.listens.values())


async def test_a_resource_that_cannot_be_watched_is_left_out(autojump_clock: MockClock) -> None:
    a = native(resources=({"uri": "x://1", "name": "one"},), capabilities=LISTENING)
    b = native("b", resources=({"uri": "x://2", "name": "two"},), capabilities=LISTENING)
    async with served([a, b]) as gateway:
        wanted = {"resourceSubscriptions": ["x://none", "x://1"], "toolsListChanged": True}
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications=wanted)
        (ack,) = await until_messages(exchange, 1)
        granted = {"toolsListChanged": True, "resourceSubscriptions": ["x://1"]}
        assert ack["params"]["notifications"] == granted


@pytest.mark.parametrize(
    "wanted", [None, [], "tools", {"resourceSubscriptions": "x://1"}, {"resourceSubscriptions": [1]}]
)
async def test_a_listen_that_does_not_say_for_what_is_refused(autojump_clock: MockClock, wanted: Any) -> None:
    async with served([native()]) as gateway:
        assert error(await gateway.client().ask("subscriptions/listen", notifications=wanted)) == (400, -32602)


async def test_a_listen_ends_properly_when_the_gateway_does(autojump_clock: MockClock) -> None:
    async with served([native(capabilities=LISTENING)]) as gateway:
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications={"toolsListChanged": True})
        await until_messages(exchange, 1)
        gateway.nursery.start_soon(gateway.supervisor.drain)
        last = (await until_messages(exchange, 2))[1]
        assert last["id"] == 1
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"][SUBSCRIPTION] == 1
        await wait_all_tasks_blocked()
        assert exchange.finished


async def test_an_open_listen_keeps_the_connections(autojump_clock: MockClock) -> None:
    a = native(capabilities=LISTENING)
    async with served([a]) as gateway:
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications={"toolsListChanged": True})
        await trio.sleep(1000)
        assert a.counts["connect"] == 1
        a.notify("notifications/tools/list_changed")
        assert len(await until_messages(exchange, 2)) == 2


async def test_nothing_is_kept_of_a_session_that_has_ended(autojump_clock: MockClock) -> None:
    a = native(capabilities=LISTENING)
    async with served([a]) as gateway:
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications={"toolsListChanged": True})
        await until_messages(exchange, 1)
        ended = weakref.ref(await gateway.supervisor.lease(ANONYMOUS, ClientProfile(address="127.0.0.1", info=INFO)))
        assert ended() is not None
        ended().request_close("test", drain=0.0)  # type: ignore[union-attr]
        assert (await until_messages(exchange, 2))[1]["result"]["resultType"] == "complete"
        await trio.sleep(1)
        gc.collect()
        assert ended() is None
