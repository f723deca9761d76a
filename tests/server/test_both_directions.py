"""Requests from backends to clients, and streams that are resumed (mission P1, P4)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sessions.harness import backend, text_of
from vmcp_actors.model import JsonObject
from vmcp_actors.settings import ServerSettings
from vmcp_actors.testing import MemoryBackend, MemorySession
from vmcp_actors.wire.sse import EventDecoder

from .harness import Client, Exchange, served

ABLE = {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}


async def asking(session: MemorySession, arguments: JsonObject) -> Any:
    """A tool that asks the client, and says what it got."""
    try:
        answer = await session.ask(arguments["method"], arguments.get("params", {}))
    except MCPError as error:
        return f"refused: {error.code} {error.message}"
    return f"got: {answer}"


async def stepping(session: MemorySession, arguments: JsonObject) -> Any:
    """A tool that logs a step every second."""
    for step in range(int(arguments["steps"])):
        session.notify("notifications/message", {"level": "info", "data": step})
        await trio.sleep(1)
    return "done"


def asker(name: str = "a") -> MemoryBackend:
    return MemoryBackend(name, tools={"ask": asking, "step": stepping})


def ids_of(exchange: Exchange) -> list[str]:
    """The event ids of a stream."""
    ids = []
    decoder = EventDecoder(1 << 20)
    for line in exchange.body.splitlines(keepends=True):
        before = decoder.last_event_id
        decoder.feed(line)
        if decoder.last_event_id != before:
            ids.append(decoder.last_event_id)
    return ids


async def until_messages(exchange: Exchange, count: int) -> list[Any]:
    with trio.fail_after(100):
        while len(exchange.messages) < count:
            await trio.sleep(0.1)
    return exchange.messages


def begin_ask(client: Client, tool: str, method: str, **params: Any) -> Exchange:
    arguments = {"method": method, "params": params}
    return client.begin_post(client.message("tools/call", name=tool, arguments=arguments))


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list"])
async def test_a_backend_asks_the_client_on_the_stream_of_the_call(autojump_clock: MockClock, method: str) -> None:
    """The question, the client's answer by POST, then the result on the same stream."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        exchange = begin_ask(client, "a_ask", method, message="?", **{"x-odd": 1})
        (question,) = await until_messages(exchange, 1)
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "x-odd": [2]}}
        accepted = await client.post(answer)
        _, result = await until_messages(exchange, 2)

        assert question["method"] == method
        assert question["params"] == {"message": "?", "x-odd": 1}
        assert accepted.status == 202
        assert text_of(result["result"]) == "got: {'action': 'accept', 'x-odd': [2]}"


async def test_the_clients_error_is_the_backends_error(autojump_clock: MockClock) -> None:
    """Code and message pass through."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        exchange = begin_ask(client, "a_ask", "elicitation/create")
        (question,) = await until_messages(exchange, 1)
        await client.post({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "declined"}})
        _, result = await until_messages(exchange, 2)

        assert text_of(result["result"]) == "refused: -1 declined"


async def test_backends_are_told_exactly_what_the_client_declared(autojump_clock: MockClock) -> None:
    """No more and no less, per session; what we do not relay (tasks) is not declared."""
    a = asker()
    async with served([a]) as gateway:
        await gateway.client().initialize(capabilities={**ABLE, "tasks": {}, "experimental": {"x": {}}})
        await gateway.client().initialize(capabilities={})
        declared = [params["capabilities"] for _, method, params in a.history if method == "initialize"]

        assert declared == [{**ABLE, "experimental": {"x": {}}}, {}]


async def test_what_the_client_did_not_declare_is_refused_without_asking_it(autojump_clock: MockClock) -> None:
    """A clean refusal to the backend, and plain JSON to the client."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities={"sampling": {}})
        result = await client.tool("a_ask", method="elicitation/create")
        unknown = await client.tool("a_ask", method="no/such")

        assert text_of(result).startswith("refused: -32601")
        assert text_of(unknown).startswith("refused: -32601")


async def test_questions_of_two_backends_never_have_the_same_id(autojump_clock: MockClock) -> None:
    """And each answer goes to the backend that asked."""
    async with served([asker("a"), asker("b")]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        exchanges = [begin_ask(client, f"{name}_ask", "roots/list", who=name) for name in "ab"]
        questions = [(await until_messages(exchange, 1))[0] for exchange in exchanges]
        for question in reversed(questions):
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"for": question["params"]["who"]}}
            await client.post(answer)
        results = [(await until_messages(exchange, 2))[1] for exchange in exchanges]

        assert questions[0]["id"] != questions[1]["id"]
        assert [text_of(result["result"]) for result in results] == ["got: {'for': 'a'}", "got: {'for': 'b'}"]


async def test_a_client_that_answers_nobody_holds_nothing_for_ever(autojump_clock: MockClock) -> None:
    """The question ends with the call. A person may think for longer than a call may be silent, but not for ever."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        exchange = begin_ask(client, "a_ask", "elicitation/create")
        await trio.sleep(500)
        assert not exchange.finished
        await trio.sleep(200)

        assert exchange.finished
        question, cancelled, error = exchange.messages
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"]["requestId"] == question["id"]
        assert error["error"]["message"].startswith("backend a: no answer to tools/call")


async def test_cancelling_the_call_cancels_the_question(autojump_clock: MockClock) -> None:
    """The client need not answer what nobody waits for; a late answer is ignored."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        message = client.message("tools/call", name="a_ask", arguments={"method": "roots/list"})
        exchange = client.begin_post(message)
        (question,) = await until_messages(exchange, 1)
        notice = {"requestId": message["id"]}
        await client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": notice})
        await trio.sleep(1)
        late = await client.post({"jsonrpc": "2.0", "id": question["id"], "result": {}})

        assert exchange.finished
        assert late.status == 202


async def test_a_question_of_no_call_goes_to_the_get_stream(autojump_clock: MockClock) -> None:
    """Also when the stream is opened only afterwards."""
    a = asker()
    answers: list[JsonObject] = []
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        (session,) = a.sessions.values()

        async def ask() -> None:
            answers.append(await session.ask("roots/list", {}))

        gateway.nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        stream = client.begin("GET")
        (question,) = await until_messages(stream, 1)
        await client.post({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
        await trio.sleep(1)

        assert answers == [{"roots": []}]


async def test_closing_the_session_ends_its_questions(autojump_clock: MockClock) -> None:
    """Nothing waits for the client of a session that is gone."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        exchange = begin_ask(client, "a_ask", "roots/list")
        await until_messages(exchange, 1)
        start = trio.current_time()
        deleted = await client.http("DELETE")

        assert deleted.status == 204
        assert trio.current_time() - start < 1
        assert text_of(exchange.messages[-1]["result"]) == "refused: -32603 the session is closing"


async def test_roots_list_changed_is_told_to_every_backend(autojump_clock: MockClock) -> None:
    """They may want to ask again."""
    doubles = [asker("a"), asker("b")]
    async with served(doubles) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        await client.post({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
        await wait_all_tasks_blocked()

        assert [double.counts["notifications/roots/list_changed"] for double in doubles] == [1, 1]


async def test_a_broken_answer_stream_is_resumed_where_it_stopped(autojump_clock: MockClock) -> None:
    """By GET with Last-Event-ID: the missed messages, then the result, then the end; nothing twice."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize()
        message = client.message("tools/call", name="a_step", arguments={"steps": 5})
        broken = client.begin_post(message)
        await trio.sleep(1.5)
        broken.hang_up.set()
        seen = ids_of(broken)
        assert len(seen) == 3  # the priming event and two steps
        await trio.sleep(1)
        resumed = await client.http("GET", last_event_id=seen[1])

        steps = [m["params"]["data"] for m in resumed.messages if m.get("method") == "notifications/message"]
        assert steps == [1, 2, 3, 4]
        assert resumed.messages[-1]["id"] == message["id"]
        assert resumed.finished


async def test_a_result_waits_for_a_client_that_was_disconnected(autojump_clock: MockClock) -> None:
    """The call is not cancelled, and its answer is there afterwards, also from the very beginning of the stream."""
    async with served([asker()]) as gateway:
        client = gateway.client()
        await client.initialize()
        broken = client.begin_post(client.message("tools/call", name="a_step", arguments={"steps": 3}))
        await trio.sleep(0.5)
        broken.hang_up.set()
        await trio.sleep(60)
        resumed = await client.http("GET", last_event_id=ids_of(broken)[0])

        assert text_of(resumed.messages[-1]["result"]) == "done"
        assert len(resumed.messages) == 4


async def test_event_ids_are_unique_in_the_session_and_streams_begin_with_a_priming_event(
    autojump_clock: MockClock,
) -> None:
    """MCP 2025-11-25: an id with no data, and how long to wait before resuming; not for older clients."""
    async with served([asker()]) as gateway:
        client, old = gateway.client(), gateway.client()
        await client.initialize()
        await old.initialize(protocolVersion="2025-06-18")
        answers = [
            await client.post(client.message("tools/call", name="a_step", arguments={"steps": 2})) for _ in range(3)
        ]
        plain = await old.post(old.message("tools/call", name="a_step", arguments={"steps": 2}))
        ids = [event_id for answer in answers for event_id in ids_of(answer)]

        assert len(ids) == len(set(ids)) == 12
        assert answers[0].body.startswith(b"id: p")
        assert b"retry: 1000" in answers[0].body
        assert b"retry" not in plain.body
        assert len(plain.messages) == 3


async def test_a_get_stream_is_resumed_without_losing_what_was_said_meanwhile(autojump_clock: MockClock) -> None:
    """Messages after the last that the client saw, whether they had been written or not."""
    a = asker()
    async with served([a]) as gateway:
        client = gateway.client()
        await client.initialize()
        first = client.begin("GET")
        await wait_all_tasks_blocked()
        for number in range(3):
            a.notify("notifications/message", {"level": "info", "data": number})
        await trio.sleep(1)
        seen = ids_of(first)
        first.hang_up.set()
        await wait_all_tasks_blocked()
        a.notify("notifications/message", {"level": "info", "data": "meanwhile"})
        again = client.begin("GET", last_event_id=seen[2])
        await trio.sleep(1)
        a.notify("notifications/message", {"level": "info", "data": "after"})
        await trio.sleep(1)

        assert [message["params"]["data"] for message in again.messages] == [2, "meanwhile", "after"]


async def test_a_stream_that_is_no_longer_kept_is_refused(autojump_clock: MockClock) -> None:
    """An answer that cannot come is not waited for; a lost GET stream is simply opened anew."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        exchange = await client.post(client.message("tools/list"), accept="text/event-stream, application/json")
        absurd = await client.http("GET", last_event_id=ids_of(exchange)[0].partition("-")[0] + "-" + "9" * 5000)
        refused = await client.http("GET", last_event_id="p99-1")
        anew = client.begin("GET", last_event_id="g99-1")
        await trio.sleep(1)

        assert (refused.status, absurd.status) == (400, 400)
        assert anew.status == 200


async def test_what_is_kept_for_replay_is_bounded(autojump_clock: MockClock) -> None:
    """However much a session says, it keeps a thousand events."""
    a = asker()
    async with served([a], server=ServerSettings(stream_capacity=100)) as gateway:
        client = gateway.client()
        await client.initialize()
        stream = client.begin("GET")
        for number in range(3000):
            a.notify("notifications/message", {"level": "info", "data": number})
            if number % 50 == 0:
                await wait_all_tasks_blocked()
        await trio.sleep(1)
        assert len(stream.messages) == 3000
        stream.hang_up.set()
        await wait_all_tasks_blocked()
        again = client.begin("GET", last_event_id=ids_of(stream)[1])
        await trio.sleep(1)

        assert len(again.messages) == 1024


async def test_a_client_that_names_the_event_stream_first_gets_one(autojump_clock: MockClock) -> None:
    """Clients must take both; this one says what it would rather have."""
    async with served([backend("a")]) as gateway:
        client = gateway.client()
        await client.initialize()
        exchange = await client.post(client.message("tools/list"), accept="text/event-stream, application/json")

        assert exchange.headers["content-type"] == "text/event-stream"
        assert len(exchange.messages[0]["result"]["tools"]) == 3


async def test_a_backend_that_breaks_its_stream_off_has_us_do_the_same(autojump_clock: MockClock) -> None:
    """MCP 2025-11-25: the response ends before the answer, and the client comes back for it by GET."""

    async def polling(session: MemorySession, _: JsonObject) -> Any:
        session.break_stream()
        await trio.sleep(5)
        return "done"

    async with served([MemoryBackend("a", tools={"polling": polling})]) as gateway:
        client, old = gateway.client(), gateway.client()
        await client.initialize()
        await old.initialize(protocolVersion="2025-06-18")
        start = trio.current_time()
        broken = await client.post(client.message("tools/call", name="a_polling", arguments={}))
        broken_after = trio.current_time() - start
        resumed = await client.http("GET", last_event_id=ids_of(broken)[0])
        patient = await old.post(old.message("tools/call", name="a_polling", arguments={}))

        assert broken.messages == []
        assert broken_after < 1
        assert text_of(resumed.messages[-1]["result"]) == "done"
        assert text_of(patient.messages[-1]["result"]) == "done"


async def test_progress_of_the_client_on_a_question_comes_to_the_backend_that_asked(
    autojump_clock: MockClock,
) -> None:
    """Under the token of that backend; both may have chosen the same one."""
    doubles = [asker("a"), asker("b")]
    async with served(doubles) as gateway:
        client = gateway.client()
        await client.initialize(capabilities=ABLE)
        asked = []
        exchanges = []
        for name in "ab":
            arguments = {"method": "sampling/createMessage", "params": {"_meta": {"progressToken": "same"}}}
            exchange = client.begin_post(client.message("tools/call", name=f"{name}_ask", arguments=arguments))
            asked += await until_messages(exchange, 1)
            exchanges.append(exchange)
        tokens = [question["params"]["_meta"]["progressToken"] for question in asked]
        assert len(set(tokens)) == 2
        progress = {"progressToken": tokens[1], "progress": 0.5, "message": "thinking"}
        await client.post({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        await client.post(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 99, "progress": 1}}
        )
        await wait_all_tasks_blocked()
        told = [[params for _, method, params in d.history if method == "notifications/progress"] for d in doubles]
        assert told == [[], [{"progressToken": "same", "progress": 0.5, "message": "thinking"}]]
        for question, exchange in zip(asked, exchanges, strict=True):
            await client.post({"jsonrpc": "2.0", "id": question["id"], "result": {"role": "assistant"}})
            assert (await until_messages(exchange, 2))[1]["result"]["content"][0]["text"].startswith("got:")
