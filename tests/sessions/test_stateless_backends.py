"""Backends of the stateless revision, for sessions of clients of a stateful one (P3, P4)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from mcp.shared.exceptions import MCPError
from trio.testing import MockClock

from tests.sessions.harness import backend, supervised, text_of
from vmcp_actors.errors import BackendProtocolError, BackendReplied, ClientReplied
from vmcp_actors.model import ClientProfile, Era, JsonObject, Notice, PendingAnswer
from vmcp_actors.sessions import Session, SessionSupervisor
from vmcp_actors.testing import MemoryBackend, MemorySession

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"

CLIENT = ClientProfile(capabilities={"elicitation": {}, "sampling": {}, "roots": {"listChanged": True}})


def stateless(name: str, **attributes: Any) -> MemoryBackend:
    return backend(name, eras=(Era.STATELESS,), **attributes)


class Answering:
    """A client that answers what it is asked, and notes it."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, JsonObject]] = []
        self.given_up: list[str] = []

    def __call__(self, method: str, params: JsonObject) -> PendingAnswer:
        self.asked.append((method, params))
        return Answer(self, self.answers[method.partition("/")[0]])


class Answer:
    def __init__(self, client: Answering, answer: Any) -> None:
        self.client = client
        self.answer = answer
        self.on_progress: Any = None

    async def wait(self) -> JsonObject:
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await trio.sleep_forever()
        return dict(self.answer)

    def give_up(self, reason: str) -> None:
        self.client.given_up.append(reason)


async def start(supervisor: SessionSupervisor, asked: Answering | None = None) -> Session:
    session = await supervisor.start_session(client=CLIENT)
    if asked is not None:
        session.listen(lambda _: None, ask=asked)
    return session


def calls(double: MemoryBackend, method: str = "tools/call") -> list[JsonObject]:
    return [params for _, name, params in double.history if name == method]


# --- which revision is spoken -----------------------------------------------------------------------------------------


async def test_a_backend_of_the_stateless_revision_serves_a_stateful_session(autojump_clock: MockClock) -> None:
    a = stateless("a")
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        assert text_of(await session.call_tool("a_echo", {"text": "x"})) == "x"
        (statistics,) = session.statistics().backends
        assert statistics.era == "stateless"


async def test_a_backend_that_speaks_both_is_met_in_the_revision_of_the_client(autojump_clock: MockClock) -> None:
    """So that it can keep a session for it, and ask it things: as without a gateway."""
    a = backend("a", eras=(Era.STATEFUL, Era.STATELESS))
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        assert text_of(await session.call_tool("a_count")) == "1"
        assert a.counts["initialize"] == 1
        assert a.counts["server/discover"] == 0


async def test_what_a_backend_speaks_is_found_out_once(autojump_clock: MockClock) -> None:
    a = stateless("a")
    async with supervised([a]) as supervisor:
        for _ in range(3):
            await start(supervisor)
        assert a.counts["initialize"] == 1
        assert a.counts["server/discover"] == 3


async def test_a_backend_that_becomes_another_version_is_probed_again(autojump_clock: MockClock) -> None:
    """The call that finds it out was refused, so it is sent again, in the revision that the backend speaks now."""
    a = stateless("a")
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        a.eras = (Era.STATEFUL,)
        result = await session.call_tool("a_echo", {"text": "x"})
        assert text_of(result) == "x"
        assert "_meta" not in result
        assert session.statistics().backends[0].era == "stateful"
        a.eras = (Era.STATELESS,)
        a.crash()
        assert text_of(await session.call_tool("a_echo", {"text": "y"})) == "y"
        assert session.statistics().backends[0].era == "stateless"


async def test_a_refusal_in_both_revisions_says_why_initialize_was_refused(autojump_clock: MockClock) -> None:
    a = backend("a", eras=())
    async with supervised([a], ready_timeout=1.0) as supervisor:
        session = await start(supervisor)
        assert "refused to initialize: Unsupported protocol version" in str(session.statistics().backends[0].reason)


# --- what a request carries -------------------------------------------------------------------------------------------


async def test_every_request_says_what_the_client_declared(autojump_clock: MockClock) -> None:
    a = stateless("a")
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        await session.call_tool("a_echo", {"text": "x"})
        meta = calls(a)[0]["_meta"]
        assert meta[VERSION] == "2026-07-28"
        assert meta[CAPABILITIES] == CLIENT.capabilities
        assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "vmcp-actors"


async def test_headers_repeat_the_backends_own_names_and_annotated_arguments(autojump_clock: MockClock) -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "x-mcp-header": "Text"},
            "deep": {"type": "object", "properties": {"flag": {"type": "boolean", "x-mcp-header": "Flag"}}},
        },
    }
    a = stateless("a", http=True, definitions={"echo": {"inputSchema": schema}})
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        await session.call_tool("a_echo", {"text": "grün ", "deep": {"flag": True}})
        assert a.headers[-1] == {
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "echo",
            "Mcp-Param-Text": "=?base64?Z3LDvG4g?=",
            "Mcp-Param-Flag": "true",
        }


async def test_a_tool_with_unusable_header_annotations_is_left_out_over_http(autojump_clock: MockClock) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", "x-mcp-header": "N"}}}
    over_http = stateless("a", http=True, definitions={"echo": {"inputSchema": schema}})
    over_pipe = stateless("b", definitions={"echo": {"inputSchema": schema}})
    async with supervised([over_http, over_pipe]) as supervisor:
        session = await start(supervisor)
        names = [tool["name"] for tool in session.tools]
        assert "a_echo" not in names
        assert "b_echo" in names


async def test_a_tool_that_changed_its_annotations_is_listed_again_and_called_once_more(
    autojump_clock: MockClock,
) -> None:
    """HeaderMismatch says that the tool was not run."""

    async def picky(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        if a.headers[-1].get("Mcp-Param-Region") != arguments["region"]:
            raise MCPError(-32020, "Mcp-Param-Region header is missing")
        return "ran"

    a = stateless("a", http=True)
    a.tools["picky"] = picky
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
        a.definitions["picky"] = {"inputSchema": schema}
        assert text_of(await session.call_tool("a_picky", {"region": "eu"})) == "ran"
        assert len(calls(a)) == 2


async def test_the_log_level_goes_with_every_request(autojump_clock: MockClock) -> None:
    a = stateless("a")
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        await session.call_tool("a_echo", {"text": "x"})
        await session.request("logging/setLevel", {"level": "warning"})
        await session.call_tool("a_echo", {"text": "x"})
        assert [params["_meta"].get(LOG_LEVEL) for params in calls(a)] == [None, "warning"]
        assert a.counts["logging/setLevel"] == 0


async def test_results_lose_what_only_the_stateless_revision_knows(autojump_clock: MockClock) -> None:
    a = stateless("a", resources=({"uri": "x://1", "name": "one"},), capabilities={"tools": {}, "resources": {}})
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        assert set(await session.call_tool("a_echo", {"text": "x"})) == {"content"}
        assert set(await session.read_resource("x://1")) == {"contents"}


async def test_a_cancelled_request_is_announced_on_a_pipe(autojump_clock: MockClock) -> None:
    a = stateless("a")
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        with trio.move_on_after(1):
            await session.call_tool("a_sleep", {"seconds": 100})
        await trio.sleep(1)
        assert [params["reason"] for params in calls(a, "notifications/cancelled")] == ["the client cancelled it"]


# --- what the backend tells unasked -----------------------------------------------------------------------------------


async def test_changed_lists_are_listened_for(autojump_clock: MockClock) -> None:
    a = stateless("a", capabilities={"tools": {"listChanged": True}, "prompts": {}})
    notices: list[Notice] = []
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        session.listen(notices.append)
        assert [params["notifications"] for params in calls(a, "subscriptions/listen")] == [{"toolsListChanged": True}]
        a.tools["new"] = a.tools["echo"]
        a.notify("notifications/tools/list_changed")
        await trio.sleep(1)
        assert notices == [Notice("notifications/tools/list_changed")]
        assert text_of(await session.call_tool("a_new", {"text": "x"})) == "x"


async def test_a_backend_without_changes_is_not_listened_to(autojump_clock: MockClock) -> None:
    a = stateless("a", capabilities={"tools": {}})
    async with supervised([a]) as supervisor:
        await start(supervisor)
        assert a.counts["subscriptions/listen"] == 0


async def test_subscriptions_become_part_of_what_is_listened_for(autojump_clock: MockClock) -> None:
    """The new listen is there before the old one ends; updates come without the backend's tag."""
    a = stateless(
        "a",
        resources=({"uri": "x://1", "name": "one"},),
        capabilities={"tools": {"listChanged": True}, "resources": {"subscribe": True}},
    )
    notices: list[Notice] = []
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        session.listen(notices.append)
        await session.request("resources/subscribe", {"uri": "x://1"})
        await trio.testing.wait_all_tasks_blocked()
        (memory,) = a.sessions.values()
        assert list(memory.listens.values()) == [{"toolsListChanged": True, "resourceSubscriptions": ["x://1"]}]
        a.notify("notifications/resources/updated", {"uri": "x://1"})
        a.notify("notifications/resources/updated", {"uri": "x://2"})
        assert notices == [Notice("notifications/resources/updated", {"uri": "x://1"})]
        await session.request("resources/unsubscribe", {"uri": "x://1"})
        await trio.sleep(2)
        assert list(memory.listens.values()) == [{"toolsListChanged": True}]


async def test_a_backend_that_refuses_to_tell_of_changes_refuses_the_subscription(autojump_clock: MockClock) -> None:
    resources = ({"uri": "x://1", "name": "one"},)
    a = stateless("a", resources=resources, capabilities={"tools": {}, "resources": {}}, lets_listen=False)
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        with pytest.raises(BackendReplied, match="does not tell of changes of x://1"):
            await session.request("resources/subscribe", {"uri": "x://1"})
        assert text_of(await session.call_tool("a_echo", {"text": "x"})) == "x"


async def test_lists_of_which_nobody_tells_are_listed_again_when_their_time_is_over(autojump_clock: MockClock) -> None:
    a = stateless("a", capabilities={"tools": {}}, caching={"ttlMs": 60_000, "cacheScope": "public"})
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        a.tools["new"] = a.tools["echo"]
        await session.request("tools/list")
        assert "a_new" not in [tool["name"] for tool in session.tools]
        await trio.sleep(61)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(session.request, "tools/list")
        assert "a_new" in [tool["name"] for tool in session.tools]
        assert a.counts["tools/list"] == 2


# --- what the backend needs -------------------------------------------------------------------------------------------


def needing(**requests: Any) -> Any:
    """A tool that needs these, with a state, and then says what it got."""

    async def tool(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        params = arguments["_params"]
        if "inputResponses" not in params:
            return {"resultType": "input_required", "inputRequests": requests, "requestState": "säcret=="}
        return f"{params['requestState']} {sorted(params['inputResponses'].items())}"

    return tool


ELICIT = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}
ROOTS = {"method": "roots/list"}


async def test_what_a_backend_needs_is_asked_of_the_client_and_sent_with_its_state(autojump_clock: MockClock) -> None:
    a = stateless("a")
    a.tools["needy"] = needing(who=ELICIT, where=ROOTS)
    client = Answering(elicitation={"action": "decline"}, roots={"roots": []})
    async with supervised([a]) as supervisor:
        session = await start(supervisor, client)
        result = await session.call_tool("a_needy", {"n": 1})
        assert text_of(result) == "säcret== [('where', {'roots': []}), ('who', {'action': 'decline'})]"
        assert sorted(client.asked) == [("elicitation/create", ELICIT["params"]), ("roots/list", {})]
        first, second = calls(a)
        assert second["arguments"] == first["arguments"] == {"n": 1}
        ids = [request_id for (_, request_id) in a.request_ids]
        assert len(set(ids)) == len(ids)


async def test_a_state_that_is_not_there_is_not_sent(autojump_clock: MockClock) -> None:
    a = stateless("a")

    async def tool(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        if "inputResponses" in arguments["_params"]:
            return str("requestState" in arguments["_params"])
        return {"resultType": "input_required", "inputRequests": {"x": ROOTS}}

    a.tools["needy"] = tool
    async with supervised([a]) as supervisor:
        session = await start(supervisor, Answering(roots={"roots": []}))
        assert text_of(await session.call_tool("a_needy")) == "False"


async def test_rounds_end_after_ten(autojump_clock: MockClock) -> None:
    a = stateless("a")

    async def tool(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        return {"resultType": "input_required", "requestState": "again"}

    a.tools["needy"] = tool
    async with supervised([a]) as supervisor:
        session = await start(supervisor, Answering())
        with pytest.raises(BackendProtocolError, match="more than 10 times"):
            await session.call_tool("a_needy")
        assert len(calls(a)) == 11


async def test_the_clients_refusal_is_the_end_of_the_call(autojump_clock: MockClock) -> None:
    """The other questions of the round are given up."""
    a = stateless("a")
    a.tools["needy"] = needing(who=ELICIT, where=ROOTS)
    client = Answering(elicitation=ClientReplied(-1, "no user here"), roots=None)
    async with supervised([a]) as supervisor:
        session = await start(supervisor, client)
        with pytest.raises(ClientReplied, match="no user here"):
            await session.call_tool("a_needy")
        assert client.given_up == ["the backend no longer needs it"]


@pytest.mark.parametrize(
    ("requests", "complaint"),
    [
        ({"x": {"method": "tools/list"}}, "needs 'tools/list', which clients cannot be asked"),
        ({"x": "elicitation/create"}, "needs None, which clients cannot be asked"),
        ([ELICIT], "needs input, and does not say which"),
    ],
)
async def test_what_clients_cannot_be_asked_fails_the_call(
    autojump_clock: MockClock, requests: Any, complaint: str
) -> None:
    a = stateless("a")

    async def tool(_: MemorySession, arguments: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        return {"resultType": "input_required", "inputRequests": requests}

    a.tools["needy"] = tool
    async with supervised([a]) as supervisor:
        session = await start(supervisor, Answering())
        with pytest.raises(BackendProtocolError, match=complaint):
            await session.call_tool("a_needy")


async def test_a_client_is_not_asked_for_what_it_did_not_declare(autojump_clock: MockClock) -> None:
    a = stateless("a")
    a.tools["needy"] = needing(who=ELICIT)
    client = Answering()
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session(client=ClientProfile(capabilities={"roots": {}}))
        session.listen(lambda _: None, ask=client)
        with pytest.raises(BackendProtocolError, match="needs elicitation/create, which the client did not declare"):
            await session.call_tool("a_needy")
        assert client.asked == []


async def test_a_client_that_never_answers_holds_the_call_for_a_bounded_time(autojump_clock: MockClock) -> None:
    a = stateless("a")
    a.tools["needy"] = needing(where=ROOTS)
    client = Answering(roots=None)
    async with supervised([a]) as supervisor:
        session = await start(supervisor, client)
        began = trio.current_time()
        with pytest.raises(BackendProtocolError, match="did not give in time"):
            await session.call_tool("a_needy")
        assert trio.current_time() - began == pytest.approx(600, abs=1)
        assert len(client.given_up) == 1


async def test_a_result_of_a_kind_that_nobody_here_knows_is_no_result(autojump_clock: MockClock) -> None:
    a = stateless("a")

    async def tool(_: MemorySession, __: JsonObject) -> Any:
        await trio.lowlevel.checkpoint()
        return {"resultType": "task", "taskId": "t"}

    a.tools["later"] = tool
    async with supervised([a]) as supervisor:
        session = await start(supervisor)
        with pytest.raises(BackendProtocolError, match="sent a result of unknown kind 'task'"):
            await session.call_tool("a_later")


async def test_a_stateless_backend_that_asks_all_the_same_is_refused(autojump_clock: MockClock) -> None:
    a = stateless("a")

    async def tool(session: MemorySession, _: JsonObject) -> Any:
        with pytest.raises(MCPError, match="servers of this revision send no requests"):
            await session.ask("roots/list", {})
        return "refused"

    a.tools["curious"] = tool
    client = Answering(roots={"roots": []})
    async with supervised([a]) as supervisor:
        session = await start(supervisor, client)
        assert text_of(await session.call_tool("a_curious")) == "refused"
        assert client.asked == []
