"""Every feature for clients of either kind of revision over backends of either kind: the four bridges (P4).

`docs/explain/protocol-matrix.md` is the table of these tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vmcp_actors.model import Era, JsonObject
from vmcp_actors.settings import StatelessSettings
from vmcp_actors.testing import MemoryBackend, MemorySession
from vmcp_actors.wire.stateless import PROTOCOL_VERSION

from .harness import Client, Exchange, served

ABLE = {"sampling": {}, "elicitation": {"form": {}}, "roots": {}}
RESOURCES = ({"uri": "x://1", "name": "one", "icons": [{"src": "i"}], "vendor": {"kept": True}},)
PROMPTS = ({"name": "p", "arguments": [{"name": "a"}]},)
ALL = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
QUESTIONS = {
    "elicitation/create": ({"message": "who?", "requestedSchema": {"type": "object"}}, {"action": "accept"}),
    "sampling/createMessage": ({"messages": [], "maxTokens": 9}, {"role": "assistant", "model": "m"}),
    "roots/list": ({}, {"roots": [{"uri": "file:///r"}]}),
}

bridges = pytest.mark.parametrize("backend", ["stateful", "stateless"])
clients = pytest.mark.parametrize("client", ["stateful", "stateless"])


async def echo(_: MemorySession, arguments: JsonObject) -> Any:
    await trio.lowlevel.checkpoint()
    return {"content": [], "structuredContent": {"said": arguments["text"]}, "vendor": 1, "_meta": {"theirs": 2}}


async def ask(session: MemorySession, arguments: JsonObject) -> Any:
    """A tool that needs something of the client, in the way of the revision in which it was called."""
    method = arguments["method"]
    params, _ = QUESTIONS[method]
    if PROTOCOL_VERSION not in arguments["_meta"]:
        return f"got {await session.ask(method, params)}"
    await trio.lowlevel.checkpoint()
    request = arguments["_params"]
    if "inputResponses" not in request:
        needs = {"q": {"method": method, "params": params}}
        return {"resultType": "input_required", "inputRequests": needs, "requestState": "their state"}
    assert request["requestState"] == "their state"
    return f"got {request['inputResponses']['q']}"


async def work(session: MemorySession, arguments: JsonObject) -> Any:
    """A tool that reports, and takes its time."""
    token = arguments["_meta"].get("progressToken")
    if token is not None:
        session.notify("notifications/progress", {"progressToken": token, "progress": 1, "message": "half"})
    session.notify("notifications/message", {"level": "debug", "data": "fine print"})
    session.notify("notifications/message", {"level": "warning", "data": "careful"})
    await trio.sleep(5)
    return "done"


class Either:
    """A client of either revision: the same methods, each in its own way."""

    def __init__(self, client: Client, era: str) -> None:
        self.http = client
        self.stateful = era == "stateful"

    def begin(
        self, method: str, *, progress: str | None = None, log_level: str | None = None, **params: Any
    ) -> Exchange:
        if not self.stateful:
            more = {"log_level": log_level} if log_level else {}
            more |= {"progress": progress} if progress else {}
            return self.http.begin_stateless(method, capabilities=ABLE, **params, **more)
        if progress:
            params["_meta"] = {"progressToken": progress}
        return self.http.begin_post(self.http.message(method, **params))

    async def result(self, method: str, **params: Any) -> Any:
        exchange = self.begin(method, **params)
        return (await until(exchange, finished=True))[-1]["result"]

    async def watch(self, **wanted: Any) -> Exchange:
        """A stream on which changes come; the resources that are wanted are subscribed to."""
        if not self.stateful:
            exchange = self.begin("subscriptions/listen", notifications=wanted)
            await until(exchange, count=1)
            return exchange
        for uri in wanted.get("resourceSubscriptions", ()):
            await self.result("resources/subscribe", uri=uri)
        exchange = self.http.begin("GET")
        await wait_all_tasks_blocked()
        return exchange


async def until(exchange: Exchange, *, count: int = 0, finished: bool = False) -> list[Any]:
    """The messages of an exchange, once there are so many, or all of them."""
    with trio.fail_after(1000):
        while not (exchange.finished if finished else len(exchange.messages) >= count):
            await trio.sleep(0.1)
    return [exchange.json] if exchange.headers["content-type"] == "application/json" else exchange.messages


@asynccontextmanager
async def bridge(client: str, backend: str) -> AsyncIterator[tuple[Either, MemoryBackend]]:
    """A client of one kind, in front of a backend of one kind; the gateway leases sessions where that is needed."""
    double = MemoryBackend(
        "b",
        tools={"echo": echo, "ask": ask, "work": work},
        resources=RESOURCES,
        prompts=PROMPTS,
        capabilities=ALL,
        eras=(Era(backend),),
    )
    async with served([double], stateless=StatelessSettings(mode="lease")) as gateway:
        either = Either(gateway.client(), client)
        if either.stateful:
            await either.http.initialize(capabilities=ABLE)
        yield either, double


@bridges
@clients
async def test_tools(autojump_clock: MockClock, client: str, backend: str) -> None:
    """Listed and called; what nobody here understands passes untouched."""
    async with bridge(client, backend) as (either, double):
        listed = await either.result("tools/list")
        assert [tool["name"] for tool in listed["tools"]] == ["b_echo", "b_ask", "b_work"]
        result = await either.result("tools/call", name="b_echo", arguments={"text": "x"})
        assert (result["structuredContent"], result["vendor"]) == ({"said": "x"}, 1)
        assert result["_meta"]["theirs"] == 2
        assert ("resultType" in result) is (client == "stateless")
        assert double.counts["tools/call"] == 1


@bridges
@clients
async def test_prompts(autojump_clock: MockClock, client: str, backend: str) -> None:
    async with bridge(client, backend) as (either, _):
        assert (await either.result("prompts/list"))["prompts"] == [{"name": "b_p", "arguments": [{"name": "a"}]}]
        assert (await either.result("prompts/get", name="b_p", arguments={"a": "1"}))["description"] == "b has p"


@bridges
@clients
async def test_resources(autojump_clock: MockClock, client: str, backend: str) -> None:
    async with bridge(client, backend) as (either, _):
        assert (await either.result("resources/list"))["resources"] == [*RESOURCES]
        result = await either.result("resources/read", uri="x://1")
        assert result["contents"] == [{"uri": "x://1", "text": "b has x://1"}]
        assert ("ttlMs" in result) is (client == "stateless")


@bridges
@clients
async def test_completion(autojump_clock: MockClock, client: str, backend: str) -> None:
    async with bridge(client, backend) as (either, _):
        reference = {"type": "ref/prompt", "name": "b_p"}
        result = await either.result("completion/complete", ref=reference, argument={"name": "a", "value": ""})
        assert result["completion"]["values"] == ["{'type': 'ref/prompt', 'name': 'p'}"]


@bridges
@clients
async def test_progress(autojump_clock: MockClock, client: str, backend: str) -> None:
    """On the stream of the call, under the client's own token."""
    async with bridge(client, backend) as (either, _):
        exchange = either.begin("tools/call", name="b_work", arguments={}, progress="mine")
        messages = await until(exchange, finished=True)
        (told,) = [message["params"] for message in messages if message.get("method") == "notifications/progress"]
        assert told == {"progressToken": "mine", "progress": 1, "message": "half"}
        assert messages[-1]["result"]["content"][0]["text"] == "done"


@bridges
@clients
async def test_logging(autojump_clock: MockClock, client: str, backend: str) -> None:
    """A stateful client says once which level it wants, a stateless one with each request; the backend is told."""
    async with bridge(client, backend) as (either, double):
        if either.stateful:
            await either.result("logging/setLevel", level="warning")
        exchange = either.begin("tools/call", name="b_work", arguments={}, log_level="warning")
        messages = await until(exchange, finished=True)
        logs = [message["params"]["data"] for message in messages if message.get("method") == "notifications/message"]
        # What a backend of a stateful revision sends is its own choice, and passes for a stateful client.
        assert logs[-1] == "careful"
        assert client == "stateful" or logs == ["careful"]
        if backend == "stateful":
            assert [p["level"] for _, method, p in double.history if method == "logging/setLevel"] == ["warning"]
        else:
            (call,) = [params for _, method, params in double.history if method == "tools/call"]
            assert call["_meta"]["io.modelcontextprotocol/logLevel"] == "warning"


@bridges
@clients
async def test_changed_lists(autojump_clock: MockClock, client: str, backend: str) -> None:
    async with bridge(client, backend) as (either, double):
        exchange = await either.watch(toolsListChanged=True)
        before = len(exchange.messages)
        double.tools["new"] = echo
        double.notify("notifications/tools/list_changed")
        message = (await until(exchange, count=before + 1))[before]
        assert message["method"] == "notifications/tools/list_changed"
        assert "b_new" in [tool["name"] for tool in (await either.result("tools/list"))["tools"]]


@bridges
@clients
async def test_resource_subscriptions(autojump_clock: MockClock, client: str, backend: str) -> None:
    async with bridge(client, backend) as (either, double):
        exchange = await either.watch(resourceSubscriptions=["x://1"])
        before = len(exchange.messages)
        double.notify("notifications/resources/updated", {"uri": "x://1"})
        message = (await until(exchange, count=before + 1))[before]
        assert message["method"] == "notifications/resources/updated"
        assert message["params"]["uri"] == "x://1"
        assert ("_meta" in message["params"]) is (client == "stateless")


async def needs_of_the_client(client: str, backend: str, method: str) -> None:
    """What the backend asks reaches the client unchanged, and the client's answer the backend."""
    params, answer = QUESTIONS[method]
    call: JsonObject = {"name": "b_ask", "arguments": {"method": method}}
    async with bridge(client, backend) as (either, double):
        if either.stateful:
            exchange = either.begin("tools/call", **call)
            (question,) = await until(exchange, count=1)
            assert (question["method"], question.get("params", {})) == (method, params)
            await either.http.post({"jsonrpc": "2.0", "id": question["id"], "result": answer})
            result = (await until(exchange, finished=True))[-1]["result"]
        else:
            needed = await either.result("tools/call", **call)
            assert needed["resultType"] == "input_required"
            ((key, question),) = needed["inputRequests"].items()
            assert (question["method"], question.get("params", {})) == (method, params)
            more = {"inputResponses": {key: answer}, "requestState": needed["requestState"]}
            result = await either.result("tools/call", **call, **more)
        assert result["content"][0]["text"] == f"got {answer}"
        assert double.counts["tools/call"] == (1 if backend == "stateful" else 2)


@bridges
@clients
async def test_elicitation(autojump_clock: MockClock, client: str, backend: str) -> None:
    await needs_of_the_client(client, backend, "elicitation/create")


@bridges
@clients
async def test_sampling(autojump_clock: MockClock, client: str, backend: str) -> None:
    await needs_of_the_client(client, backend, "sampling/createMessage")


@bridges
@clients
async def test_roots(autojump_clock: MockClock, client: str, backend: str) -> None:
    await needs_of_the_client(client, backend, "roots/list")


@bridges
@clients
async def test_cancellation(autojump_clock: MockClock, client: str, backend: str) -> None:
    """By a notification in the stateful revisions, by closing the stream in the stateless one; down to the backend."""
    async with bridge(client, backend) as (either, double):
        exchange = either.begin("tools/call", name="b_work", arguments={}, progress="p")
        await until(exchange, count=1)
        if either.stateful:
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            await either.http.post(cancelled)
        else:
            exchange.hang_up.set()
        await trio.sleep(1)
        assert double.counts["notifications/cancelled"] == 1


@bridges
@clients
async def test_a_lost_connection(autojump_clock: MockClock, client: str, backend: str) -> None:
    """A call that was under way fails at once and is not sent again; the next one runs over the next connection."""
    async with bridge(client, backend) as (either, double):
        exchange = either.begin("tools/call", name="b_work", arguments={})
        await trio.sleep(1)
        double.crash("died")
        answer = (await until(exchange, finished=True))[-1]
        assert "b: died" in answer["error"]["message"]
        assert double.counts["tools/call"] == 1
        result = await either.result("tools/call", name="b_echo", arguments={"text": "again"})
        assert result["structuredContent"] == {"said": "again"}
