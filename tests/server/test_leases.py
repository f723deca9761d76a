"""Stateless clients in front of backends of stateful revisions: declined, or with a leased session (P4)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from tests.sessions.harness import backend
from vmcp_actors.errors import InvalidParams
from vmcp_actors.model import ClientProfile, Era, Identity, JsonObject, RequestContext
from vmcp_actors.settings import StatelessSettings
from vmcp_actors.testing import MemoryBackend, MemorySession

from .harness import Client, Exchange, Served, served
from .test_both_directions import asker
from .test_stateless import chatty, error, native, needy, until_messages

LEASE = StatelessSettings(mode="lease")
ABLE = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
STATEFUL = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


def text(result: Any) -> str:
    return str(result["content"][0]["text"])


async def ask_for(client: Client, method: str, **more: Any) -> Any:
    """Call the tool that asks the client for something."""
    arguments = {"method": method, "params": {"message": "who?"}}
    return await client.result("tools/call", name="a_ask", arguments=arguments, capabilities=ABLE, **more)


# --- auto and off -----------------------------------------------------------------------------------------------------


async def test_with_a_stateful_backend_clients_are_told_to_fall_back(autojump_clock: MockClock) -> None:
    """Found out once, by asking the backends; from then on told at once."""
    doubles = [native("a"), backend("b")]
    async with served(doubles) as gateway:
        for _ in range(3):
            exchange = await gateway.client().ask("server/discover")
            assert error(exchange) == (400, -32022)
            assert exchange.json["error"]["data"] == {"requested": "2026-07-28", "supported": STATEFUL}
        assert [double.counts["connect"] for double in doubles] == [1, 1]
        assert doubles[1].counts["initialize"] == 0
        assert {health.backend: health.status for health in gateway.supervisor.health} == {
            "a": "healthy",
            "b": "unknown",
        }
        await trio.sleep(1)
        assert gateway.supervisor.statistics().sessions == 0


async def test_while_a_backend_is_down_clients_fall_back(autojump_clock: MockClock) -> None:
    """What it speaks is not known. It is asked again, but not for every request."""
    b = native("b", down="no such host")
    async with served([native("a"), b]) as gateway:
        client = gateway.client()
        assert error(await client.ask("tools/list")) == (400, -32022)
        tries = b.counts["connect"]
        assert error(await client.ask("tools/list")) == (400, -32022)
        assert b.counts["connect"] == tries
        b.down = None
        await trio.sleep(31)
        assert len((await client.result("tools/list"))["tools"]) == 6


async def test_a_backend_that_is_lost_later_does_not_change_how_clients_are_served(autojump_clock: MockClock) -> None:
    b = native("b")
    async with served([native("a"), b], ready_timeout=1.0) as gateway:
        client = gateway.client()
        await client.result("tools/list")
        b.down = "gone"
        b.crash()
        exchange = await client.ask("tools/call", name="b_echo", arguments={})
        assert exchange.json["error"]["message"].startswith("backend b: unavailable: gone")
        assert text(await client.result("tools/call", name="a_echo", arguments={"text": "x"})) == "x"


async def test_a_backend_that_was_upgraded_is_noticed_when_it_comes_back(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with served([a]) as gateway:
        assert error(await gateway.client().ask("tools/list")) == (400, -32022)
        stateful = gateway.client()
        await stateful.initialize()
        a.eras = (Era.STATELESS,)
        a.crash()
        await trio.sleep(1)
        assert text(await stateful.tool("a_echo", text="x")) == "x"
        assert len((await gateway.client().result("tools/list"))["tools"]) == 3


async def test_mode_off_declines_without_asking_the_backends(autojump_clock: MockClock) -> None:
    a = native("a")
    async with served([a], stateless=StatelessSettings(mode="off")) as gateway:
        client = gateway.client()
        assert error(await client.ask("server/discover")) == (400, -32022)
        assert error(await client.http("GET", mcp_protocol_version="2026-07-28")) == (400, -32022)
        assert a.counts["connect"] == 0


# --- lease: state and isolation ---------------------------------------------------------------------------------------


async def test_a_client_that_leaves_before_its_lease_is_there_has_nothing_run(autojump_clock: MockClock) -> None:
    a = backend("a", connect_delay=2.0)
    async with served([a], stateless=LEASE) as gateway:
        exchange = gateway.client().begin_stateless("tools/call", name="a_echo", arguments={"text": "x"})
        await trio.sleep(1)
        exchange.hang_up.set()
        await trio.sleep(5)
        assert (a.counts["initialize"], a.counts["tools/call"]) == (1, 0)
        assert text(await gateway.client().result("tools/call", name="a_echo", arguments={"text": "y"})) == "y"
        assert a.counts["initialize"] == 1  # the lease is there for the next


async def test_a_backends_state_survives_between_requests(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        counts = [text(await client.result("tools/call", name="a_count", arguments={})) for _ in range(3)]
        assert counts == ["1", "2", "3"]
        assert a.counts["initialize"] == 1


@pytest.mark.parametrize("other", [{"address": "10.0.0.9"}, {"name": "other"}], ids=str)
async def test_another_principal_has_a_session_of_its_own(autojump_clock: MockClock, other: dict[str, str]) -> None:
    async with served([backend("a")], stateless=LEASE) as gateway:
        for client in (gateway.client(), gateway.client(**other)):
            assert text(await client.result("tools/call", name="a_count", arguments={})) == "1"


async def test_identities_do_not_share_whatever_their_address(autojump_clock: MockClock) -> None:
    a = backend("a")
    async with served([a], stateless=LEASE) as gateway:
        alice, bob = Identity("iss", "alice"), Identity("iss", "bob")
        here, there = ClientProfile(address="h"), ClientProfile(address="t")
        first = await gateway.supervisor.lease(alice, here)
        assert await gateway.supervisor.lease(alice, there) is first
        assert await gateway.supervisor.lease(bob, here) is not first


async def test_backends_are_told_what_the_client_declares(autojump_clock: MockClock) -> None:
    """A client that declares something else gets another session: what was said in `initialize` cannot be unsaid."""
    a = backend("a")
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        for capabilities in ({"roots": {}}, {}, {"roots": {}}):
            await client.result("tools/list", capabilities=capabilities)
        declared = [params["capabilities"] for _, method, params in a.history if method == "initialize"]
        assert declared == [{"roots": {}}, {}]


async def test_limits_count_for_leased_sessions_too(autojump_clock: MockClock) -> None:
    async with served([backend("a")], stateless=LEASE, max_per_client=1) as gateway:
        await gateway.client(name="one").result("tools/list")
        exchange = await gateway.client(name="two").ask("tools/list")
        assert error(exchange) == (503, -32000)
        assert exchange.headers["retry-after"] == "30"


async def test_after_the_idle_limit_state_is_gone(autojump_clock: MockClock) -> None:
    async with served([backend("a")], stateless=StatelessSettings("lease", 60)) as gateway:
        client = gateway.client()
        await client.result("tools/call", name="a_count", arguments={})
        await trio.sleep(100)
        assert text(await client.result("tools/call", name="a_count", arguments={})) == "1"


# --- lease: what the revisions have different names for ---------------------------------------------------------------


async def test_results_of_stateful_backends_get_what_is_required(autojump_clock: MockClock) -> None:
    a = backend("a", resources=({"uri": "x://1", "name": "one"},), capabilities={"tools": {}, "resources": {}})
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        for method, params in (("tools/list", {}), ("resources/read", {"uri": "x://1"}), ("server/discover", {})):
            result = await client.result(method, **params)
            assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        for method, params in (("tools/call", {"name": "a_echo", "arguments": {}}),):
            assert "ttlMs" not in await client.result(method, **params)


async def test_logs_of_stateful_backends_come_to_those_who_ask(autojump_clock: MockClock) -> None:
    """The backend is told the most talkative level that anybody wanted; each request gets its own."""
    a = backend("a")
    a.tools["chat"] = chatty
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        quiet = await client.ask("tools/call", name="a_chat", arguments={})
        loud = await client.ask("tools/call", name="a_chat", arguments={}, log_level="debug")
        some = await client.ask("tools/call", name="a_chat", arguments={}, log_level="warning")
        levels = [params["level"] for _, method, params in a.history if method == "logging/setLevel"]
        assert levels == ["debug"]
        assert quiet.headers["content-type"] == "application/json"
        assert [m["params"]["level"] for m in loud.messages[:-1]] == ["debug", "warning"] * 3
        assert [m["params"]["level"] for m in some.messages[:-1]] == ["warning"] * 3


async def test_progress_of_stateful_backends_comes_under_the_clients_token(autojump_clock: MockClock) -> None:
    a = backend("a")
    a.tools["chat"] = chatty
    async with served([a], stateless=LEASE) as gateway:
        exchange = await gateway.client().ask("tools/call", name="a_chat", arguments={}, progress="p1")
        assert [m["params"]["progressToken"] for m in exchange.messages[:-1]] == ["p1"] * 3


async def test_subscriptions_of_listeners_are_requests_to_stateful_backends(autojump_clock: MockClock) -> None:
    resources = ({"uri": "x://1", "name": "one"},)
    a = backend("a", resources=resources, capabilities={"tools": {"listChanged": True}, "resources": {}})
    async with served([a], stateless=LEASE) as gateway:
        wanted = {"resourceSubscriptions": ["x://1"], "toolsListChanged": True}
        exchange = gateway.client().begin_stateless("subscriptions/listen", notifications=wanted)
        await until_messages(exchange, 1)
        a.notify("notifications/resources/updated", {"uri": "x://1"})
        a.notify("notifications/tools/list_changed")
        methods = [message["method"] for message in await until_messages(exchange, 3)]
        assert methods[1:] == ["notifications/resources/updated", "notifications/tools/list_changed"]
        assert (a.counts["resources/subscribe"], a.counts["resources/unsubscribe"]) == (1, 0)
        exchange.hang_up.set()
        await trio.sleep(1)
        assert a.counts["resources/unsubscribe"] == 1


# --- lease: what a backend asks in the middle of a call ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
async def test_a_question_becomes_what_is_needed_and_the_retry_resumes_the_call(
    autojump_clock: MockClock, method: str
) -> None:
    a = asker()
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, method)
        assert needed["resultType"] == "input_required"
        ((key, request),) = needed["inputRequests"].items()
        assert request == {"method": method, "params": {"message": "who?"}}
        answers = {key: {"action": "accept"}}
        result = await ask_for(client, method, inputResponses=answers, requestState=needed["requestState"])
        assert text(result) == "got: {'action': 'accept'}"
        assert a.counts["tools/call"] == 1


async def test_a_call_may_need_input_several_times(autojump_clock: MockClock) -> None:
    async def twice(session: MemorySession, _: JsonObject) -> Any:
        first = await session.ask("elicitation/create", {"message": "1"})
        second = await session.ask("elicitation/create", {"message": "2"})
        return f"{first['n']} {second['n']}"

    a = MemoryBackend("a", tools={"twice": twice})
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        more: JsonObject = {}
        for number in (1, 2):
            needed = await client.result("tools/call", name="a_twice", arguments={}, capabilities=ABLE, **more)
            ((key, request),) = needed["inputRequests"].items()
            assert request["params"] == {"message": str(number)}
            more = {"inputResponses": {key: {"n": number}}, "requestState": needed["requestState"]}
        result = await client.result("tools/call", name="a_twice", arguments={}, capabilities=ABLE, **more)
        assert text(result) == "1 2"


async def test_answers_that_are_missing_are_asked_for_again_and_others_ignored(autojump_clock: MockClock) -> None:
    async with served([asker()], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, "roots/list")
        again = await ask_for(client, "roots/list", inputResponses={"x": {}}, requestState=needed["requestState"])
        assert again["resultType"] == "input_required"
        assert again["inputRequests"] == needed["inputRequests"]
        assert again["requestState"] != needed["requestState"]
        (key,) = needed["inputRequests"]
        result = await ask_for(
            client, "roots/list", inputResponses={key: {"roots": []}}, requestState=again["requestState"]
        )
        assert text(result) == "got: {'roots': []}"


async def resumed(client: Client, needed: Any, **changes: Any) -> Exchange:
    (key,) = needed["inputRequests"]
    request = {
        "name": "a_ask",
        "arguments": {"method": "roots/list", "params": {"message": "who?"}},
        "capabilities": ABLE,
        "inputResponses": {key: {"roots": []}},
        "requestState": needed["requestState"],
    }
    return await client.ask("tools/call", **(request | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"requestState": "vmcp-parked.AAAAAAAAAAAAAAAAAAAAAA"},
        {"requestState": "something"},
        {"requestState": 3},
        {"arguments": {"method": "roots/list", "params": {"message": "me?"}}},
        {"name": "b_ask"},
    ],
    ids=str,
)
async def test_a_handle_is_good_for_its_own_request_only(autojump_clock: MockClock, changes: JsonObject) -> None:
    """And a wrong try does not use it up."""
    doubles = [asker("a"), asker("b")]
    async with served(doubles, stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, "roots/list")
        assert error(await resumed(client, needed, **changes)) == (400, -32602)
        assert (await resumed(client, needed)).status == 200


async def test_a_handle_is_good_for_one_use(autojump_clock: MockClock) -> None:
    async with served([asker()], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, "roots/list")
        assert (await resumed(client, needed)).status == 200
        assert error(await resumed(client, needed)) == (400, -32602)


@pytest.mark.parametrize("other", [{"address": "10.0.0.9"}, {"name": "other"}], ids=str)
async def test_a_handle_is_good_for_its_principal_only(autojump_clock: MockClock, other: dict[str, str]) -> None:
    async with served([asker()], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, "roots/list")
        assert error(await resumed(gateway.client(**other), needed)) == (400, -32602)
        assert (await resumed(client, needed)).status == 200


async def test_a_call_whose_client_never_comes_back_ends(autojump_clock: MockClock) -> None:
    """After five minutes; the backend is told, and nothing is left of it."""
    a = asker()
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await ask_for(client, "roots/list")
        assert gateway.supervisor.sessions()[0].running_calls == 1
        await trio.sleep(299)
        assert a.counts["notifications/cancelled"] == 0
        await trio.sleep(2)
        assert a.counts["notifications/cancelled"] == 1
        assert gateway.supervisor.sessions()[0].running_calls == 0
        assert error(await resumed(client, needed)) == (400, -32602)


async def test_a_client_that_leaves_after_it_came_back_cancels_the_call(autojump_clock: MockClock) -> None:
    async def slow(session: MemorySession, _: JsonObject) -> Any:
        await session.ask("roots/list", {})
        await trio.sleep(50)

    a = MemoryBackend("a", tools={"slow": slow})
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        needed = await client.result("tools/call", name="a_slow", arguments={}, capabilities=ABLE)
        answers = {key: {"roots": []} for key in needed["inputRequests"]}
        exchange = client.begin_stateless(
            "tools/call",
            name="a_slow",
            arguments={},
            capabilities=ABLE,
            inputResponses=answers,
            requestState=needed["requestState"],
        )
        await trio.sleep(1)
        exchange.hang_up.set()
        await trio.sleep(1)
        assert a.counts["notifications/cancelled"] == 1


async def test_progress_after_the_answer_comes_under_the_new_token(autojump_clock: MockClock) -> None:
    async def steps(session: MemorySession, arguments: JsonObject) -> Any:
        await session.ask("roots/list", {})
        token = arguments["_meta"]["progressToken"]
        session.notify("notifications/progress", {"progressToken": token, "progress": 1})
        await trio.sleep(1)
        return "done"

    a = MemoryBackend("a", tools={"steps": steps})
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        call: JsonObject = {"name": "a_steps", "arguments": {}, "capabilities": ABLE}
        needed = await client.result("tools/call", **call, progress="one")
        answers = {key: {"roots": []} for key in needed["inputRequests"]}
        exchange = await client.ask(
            "tools/call", **call, progress="two", inputResponses=answers, requestState=needed["requestState"]
        )
        assert [m["params"]["progressToken"] for m in exchange.messages[:-1]] == ["two"]


async def test_what_the_client_did_not_declare_is_refused_to_the_backend(autojump_clock: MockClock) -> None:
    async with served([asker()], stateless=LEASE) as gateway:
        arguments = {"method": "elicitation/create", "params": {}}
        result = await gateway.client().result("tools/call", name="a_ask", arguments=arguments, capabilities={})
        assert text(result).startswith("refused: -32601")


async def test_urls_that_must_be_visited_first_become_what_is_needed(autojump_clock: MockClock) -> None:
    unlocked: list[str] = []
    visits = [{"mode": "url", "url": "https://x", "message": "log in", "elicitationId": "e1"}]

    async def locked(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        if "inputResponses" in arguments["_params"]:
            raise AssertionError("the backend knows no such thing")
        if not unlocked:
            raise MCPError(-32042, "log in first", {"elicitations": visits})
        return "in"

    a = MemoryBackend("a", tools={"locked": locked})
    async with served([a], stateless=LEASE) as gateway:
        client = gateway.client()
        unable = await client.ask("tools/call", name="a_locked", arguments={})
        assert error(unable) == (400, -32021)
        assert unable.json["error"]["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}
        call: JsonObject = {"name": "a_locked", "arguments": {}, "capabilities": ABLE}
        needed = await client.result("tools/call", **call)
        ((key, request),) = needed["inputRequests"].items()
        assert request["params"] == {"mode": "url", "url": "https://x", "message": "log in"}
        unlocked.append(request["params"]["url"])
        result = await client.result("tools/call", **call, inputResponses={key: {"action": "accept"}})
        assert text(result) == "in"


# --- states of backends, where principals are known -------------------------------------------------------------------


async def test_a_backends_state_is_good_for_the_principal_that_got_it(autojump_clock: MockClock) -> None:
    """Backends see all principals under the same credentials, and cannot tell them apart."""
    doubles = [native("a"), native("b")]
    for double in doubles:
        double.tools["needy"] = needy
    context = RequestContext(era=Era.STATELESS)

    async def call(gateway: Served, who: str, name: str, **more: Any) -> Any:
        session = await gateway.supervisor.lease(Identity("iss", who), ClientProfile())
        params = {"name": name, "arguments": {}, "inputResponses": {}, **more}
        if not more:
            del params["inputResponses"]
        return await session.interact("tools/call", params, context).result()

    async with served(doubles) as gateway:
        state = (await call(gateway, "alice", "a_needy"))["requestState"]
        assert state.endswith("s=é")
        assert text(await call(gateway, "alice", "a_needy", requestState=state)) == "{} s=é"
        for who, name, tried in (("bob", "a_needy", state), ("alice", "b_needy", state), ("alice", "a_needy", "s=é")):
            with pytest.raises(InvalidParams, match="requestState is not one that was given to you"):
                await call(gateway, who, name, requestState=tried)
