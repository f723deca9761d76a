"""Sessions over memory backends, in virtual time: what mission S1–S7, S11–S13 and S16 promise."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vmcp_actors.errors import (
    BackendError,
    BackendLost,
    BackendSessionLost,
    BackendTimeout,
    BackendUnavailable,
    Busy,
    Delivered,
    Draining,
    InvalidParams,
    MethodNotFound,
    NoBackends,
    SessionClosed,
    SessionLimitReached,
    SessionNotFound,
    UnknownPrompt,
    UnknownResource,
    UnknownTool,
    UnresolvedConflicts,
)
from vmcp_actors.model import ClientProfile, Identity, JsonObject, Notice
from vmcp_actors.sessions import REINITIALIZED, SessionFactory
from vmcp_actors.settings import AggregationSettings, RestartSettings
from vmcp_actors.testing import MemoryBackend, MemorySession, backends

from .harness import backend, echo, supervised, text_of


async def test_backend_state_survives_between_calls_and_is_private_to_the_session(autojump_clock: MockClock) -> None:
    """S1: the connection that served the first call serves the second, and nobody else's."""
    async with supervised([backend("a")]) as supervisor:
        ours = await supervisor.start_session()
        theirs = await supervisor.start_session()
        counted = [text_of(await ours.call_tool("a_count")) for _ in range(3)]

        assert counted == ["1", "2", "3"]
        assert text_of(await theirs.call_tool("a_count")) == "1"
        assert ours.id != theirs.id
        assert ours.backend_sessions["a"] != theirs.backend_sessions["a"]


async def test_nothing_is_connected_or_listed_twice(autojump_clock: MockClock) -> None:
    """S3: a hundred calls use the one connection that discovered the tools."""
    double = backend("a")
    async with supervised([double]) as supervisor:
        session = await supervisor.start_session()
        for _ in range(100):
            await session.call_tool("a_echo", {"text": "x"})
        await session.close()

    assert double.counts == {
        "connect": 1,
        "initialize": 1,
        "notifications/initialized": 1,
        "tools/list": 1,
        "tools/call": 100,
        "goodbye": 1,
    }


async def test_a_connection_never_uses_a_request_id_twice(autojump_clock: MockClock) -> None:
    """MCP 2025-11-25, basic §Requests: also not for the handshake, the lists and the calls together."""
    double = backend("a")
    async with supervised([double]) as supervisor:
        session = await supervisor.start_session()
        await session.call_tool("a_echo", {"text": "x"})
        double.tools["new"] = echo
        double.notify("notifications/tools/list_changed")
        await trio.sleep(1)
        await session.call_tool("a_new", {"text": "x"})

    assert len(double.request_ids) == 5
    assert len(set(double.request_ids)) == 5


async def test_backends_connect_in_parallel(autojump_clock: MockClock) -> None:
    """S4: twenty backends of a second each take a second, within the bound of twenty at once."""
    doubles = [backend(f"b{number}", connect_delay=1) for number in range(20)]
    async with supervised(doubles, backend_init_concurrency=20) as supervisor:
        start = trio.current_time()
        session = await supervisor.start_session()

        assert trio.current_time() - start == pytest.approx(1)
        assert len(session.tools) == 60


async def test_connecting_is_bounded_per_session_and_for_the_process(autojump_clock: MockClock) -> None:
    """S4: ten at once by default; here five of two sessions share a process bound of five."""
    doubles = [backend(f"b{number}", connect_delay=1) for number in range(10)]
    async with supervised(
        doubles, backend_init_concurrency=5, global_backend_init_concurrency=5, ready_timeout=100
    ) as supervisor:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.start_session)
            nursery.start_soon(supervisor.start_session)

        assert trio.current_time() - start == pytest.approx(4)


async def test_a_silent_backend_holds_the_session_up_for_ready_timeout_only(autojump_clock: MockClock) -> None:
    """S5: and when it comes up its tools join, and the client is told once."""
    doubles = [backend(f"b{number}") for number in range(19)]
    silent = backend("silent", silent=True)
    notices: list[Notice] = []
    async with supervised([*doubles, silent], ready_timeout=5) as supervisor:
        start = trio.current_time()
        session = await supervisor.start_session()
        session.listen(notices.append)
        assert trio.current_time() - start == pytest.approx(5)
        assert len(session.tools) == 57
        silent.silent = False
        await trio.sleep(60)

        assert len(session.tools) == 60
        assert notices == [Notice("notifications/tools/list_changed")]
        assert text_of(await session.call_tool("silent_echo", {"text": "here"})) == "here"


async def test_a_backend_that_is_down_does_not_delay_the_session(autojump_clock: MockClock) -> None:
    """A refused connection is an answer: there is nothing to wait for."""
    async with supervised([backend("a"), backend("b", down="connection refused")]) as supervisor:
        start = trio.current_time()
        session = await supervisor.start_session()

        assert trio.current_time() == start
        with pytest.raises(UnknownTool, match=r"backend b: unavailable: connection refused, next try in \d+ s"):
            await session.call_tool("b_echo")


async def test_no_backend_at_all_leaves_a_session_that_says_why(autojump_clock: MockClock) -> None:
    """S6: it lives, lists nothing, and a call answers with the reason of each backend."""
    doubles = [backend("a", down="connection refused"), backend("b", down="no such host")]
    async with supervised(doubles) as supervisor:
        session = await supervisor.start_session()

        assert session.tools == ()
        with pytest.raises(NoBackends) as caught:
            await session.call_tool("a_echo")
        assert caught.value.message.startswith(
            "No tools available: all backends failed to initialize during session setup. "
            "Check backend health and retry."
        )
        assert "a: unavailable: connection refused" in caught.value.message
        assert "b: unavailable: no such host" in caught.value.message


async def test_a_backend_that_dies_takes_nobody_with_it(autojump_clock: MockClock) -> None:
    """S7: its calls fail at once and name it, others go on, and it comes back by itself."""
    a, b = backend("a"), backend("b")
    failures: list[BackendError] = []
    async with supervised([a, b]) as supervisor:
        session = await supervisor.start_session()

        async def call(name: str) -> None:
            try:
                await session.call_tool(name, {"seconds": 10})
            except BackendError as error:
                failures.append(error)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "a_sleep")
            nursery.start_soon(call, "b_sleep")
            await trio.sleep(1)
            a.crash("killed")
            await wait_all_tasks_blocked()
            assert trio.current_time() - start == pytest.approx(1)
            assert [str(error) for error in failures] == ["backend a: killed"]

        assert failures[0].delivered is Delivered.UNKNOWN
        assert len(failures) == 1
        assert text_of(await session.call_tool("a_count")) == "1"
        assert a.counts["connect"] == 2


async def test_a_call_of_a_lost_backend_is_never_sent_twice(autojump_clock: MockClock) -> None:
    """S10: what may have been run is not run again."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(BackendLost):
                    await session.call_tool("a_sleep", {"seconds": 10})

            nursery.start_soon(call)
            await trio.sleep(1)
            a.crash()
        await trio.sleep(30)

        assert a.counts["tools/call"] == 1


async def test_a_backend_that_keeps_dying_becomes_unavailable_and_its_tools_stay(autojump_clock: MockClock) -> None:
    """S7: after too many restarts calls say so, never "tool not found"; later it comes back by itself."""
    a = backend("a")
    async with supervised([a], restart=RestartSettings(unavailable_retry=60)) as supervisor:
        session = await supervisor.start_session()
        for _ in range(6):
            with trio.fail_after(10):
                await session.call_tool("a_echo")
            a.crash("out of memory")
            await wait_all_tasks_blocked()
        (stats,) = session.statistics().backends

        assert stats.state == "unavailable"
        assert len(session.tools) == 3
        with pytest.raises(BackendUnavailable, match=r"backend a: unavailable: out of memory, next try in 60 s"):
            await session.call_tool("a_echo")
        await trio.sleep(61)
        assert text_of(await session.call_tool("a_echo", {"text": "back"})) == "back"


async def test_calls_to_a_backend_on_its_way_back_wait_a_little(autojump_clock: MockClock) -> None:
    """A restart within the ready timeout is not the model's problem."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        a.connect_delay = 2
        a.crash()
        await wait_all_tasks_blocked()

        assert text_of(await session.call_tool("a_echo", {"text": "waited"})) == "waited"


async def test_a_forgotten_backend_session_is_made_anew_once_and_the_calls_repeated(autojump_clock: MockClock) -> None:
    """S8: however many calls hit it; each is repeated once, and says that backend state is gone."""
    a = backend("a")
    results: list[JsonObject] = []
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        await session.call_tool("a_count")
        a.forget_sessions()
        async with trio.open_nursery() as nursery:
            for _ in range(5):

                async def call() -> None:
                    results.append(await session.call_tool("a_count"))

                nursery.start_soon(call)

        assert sorted(text_of(result) for result in results) == ["1", "2", "3", "4", "5"]
        assert any(result.get("_meta", {}).get(REINITIALIZED) is True for result in results)
        assert a.counts["initialize"] == 2


async def test_with_session_loss_error_the_call_fails_and_the_next_one_runs(autojump_clock: MockClock) -> None:
    """S8: for backends where running on empty state does harm."""
    a = backend("a", session_loss="error")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        await session.call_tool("a_count")
        a.forget_sessions()
        with pytest.raises(BackendSessionLost, match="backend a: backend session lost, its state is gone"):
            await session.call_tool("a_count")
        calls = a.counts["tools/call"]
        result = await session.call_tool("a_count")

        assert text_of(result) == "1"
        assert REINITIALIZED not in result.get("_meta", {})
        assert a.counts["tools/call"] == calls + 1


async def test_stored_metadata_follows_the_backend_sessions(autojump_clock: MockClock) -> None:
    """S8, S14: the store names the backend session that is in use, and forgets the session with its end."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        store = supervisor.test_store  # type: ignore[attr-defined]
        session = await supervisor.start_session()
        await wait_all_tasks_blocked()
        first = await store.load(session.id)
        a.crash()
        await session.call_tool("a_echo")
        await wait_all_tasks_blocked()
        second = await store.load(session.id)

        assert first.backend_sessions["a"].reveal() == "a-1"
        assert second.backend_sessions["a"].reveal() == "a-2"
        await session.close()
        await wait_all_tasks_blocked()
        assert await store.load(session.id) is None


async def test_list_changed_lists_that_backend_again_and_tells_the_client_once(autojump_clock: MockClock) -> None:
    """S16: a storm of notices is one listing, and one notice."""
    a, b = backend("a"), backend("b")
    notices: list[Notice] = []
    async with supervised([a, b]) as supervisor:
        session = await supervisor.start_session()
        session.listen(notices.append)
        a.tools["new"] = echo
        for _ in range(50):
            a.notify("notifications/tools/list_changed")
        await trio.sleep(1)

        assert notices == [Notice("notifications/tools/list_changed")]
        assert a.counts["tools/list"] == 2
        assert b.counts["tools/list"] == 1
        assert text_of(await session.call_tool("a_new", {"text": "x"})) == "x"


async def test_list_changed_is_passed_on_even_if_our_copy_shows_no_change(autojump_clock: MockClock) -> None:
    """The backend may know better: a tool that came and went, say. Once for a storm of them."""
    a = backend("a")
    notices: list[Notice] = []
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        session.listen(notices.append)
        for _ in range(5):
            a.notify("notifications/tools/list_changed")
        await trio.sleep(1)

        assert a.counts["tools/list"] == 2
        assert notices == [Notice("notifications/tools/list_changed")]


async def test_cancelling_a_call_cancels_it_at_the_backend(autojump_clock: MockClock) -> None:
    """The backend is told which request, by its own id."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        with trio.move_on_after(1):
            await session.call_tool("a_sleep", {"seconds": 100})
        await wait_all_tasks_blocked()

        cancelled = [params for _, method, params in a.history if method == "notifications/cancelled"]
        assert len(cancelled) == 1
        assert session.statistics().running_calls == 0


async def test_a_call_that_takes_too_long_times_out_and_is_cancelled_at_the_backend(autojump_clock: MockClock) -> None:
    """The timeout is the backend's, by configuration."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        start = trio.current_time()
        with pytest.raises(BackendTimeout, match="backend a: no answer to tools/call within 60 s"):
            await session.call_tool("a_sleep", {"seconds": 1000})
        await wait_all_tasks_blocked()

        assert trio.current_time() - start == pytest.approx(60)
        assert a.counts["notifications/cancelled"] == 1


async def test_progress_reaches_the_caller_under_its_own_token_and_extends_the_time(autojump_clock: MockClock) -> None:
    """A tool that reports progress may take longer than one that says nothing; unknown fields pass."""

    async def slow(session: MemorySession, arguments: JsonObject) -> Any:
        for step in range(4):
            await trio.sleep(50)
            token = arguments["_meta"]["progressToken"]
            session.notify("notifications/progress", {"progressToken": token, "progress": step, "x-odd": True})
        return "done"

    a = MemoryBackend("a", tools={"slow": slow})
    notices: list[Notice] = []
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        params = {"name": "a_slow", "arguments": {}, "_meta": {"progressToken": "mine"}}
        result = await session.request("tools/call", params, on_notice=notices.append)

        assert text_of(result) == "done"
        assert [notice.params for notice in notices] == [
            {"progressToken": "mine", "progress": step, "x-odd": True} for step in range(4)
        ]


async def test_log_messages_go_to_the_call_that_caused_them_else_to_the_client(autojump_clock: MockClock) -> None:
    """A pipe does not say to which request a message belongs; a single one under way is it."""

    async def chatty(session: MemorySession, _: JsonObject) -> Any:
        session.notify("notifications/message", {"level": "info", "data": "working"})
        await trio.lowlevel.checkpoint()
        return "done"

    a = MemoryBackend("a", tools={"chatty": chatty})
    related: list[Notice] = []
    others: list[Notice] = []
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        session.listen(others.append)
        await session.call_tool("a_chatty", on_notice=related.append)
        a.notify("notifications/message", {"level": "info", "data": "by myself"})

        assert [notice.params["data"] for notice in related if notice.params] == ["working"]
        assert [notice.params["data"] for notice in others if notice.params] == ["by myself"]


async def test_log_level_is_set_at_every_backend_also_at_late_ones_and_respected(autojump_clock: MockClock) -> None:
    """What is below the client's level does not reach it, whatever the backend thinks of levels."""
    a, late = backend("a"), backend("late", down="not yet")
    others: list[Notice] = []
    async with supervised([a, late]) as supervisor:
        session = await supervisor.start_session()
        session.listen(others.append)
        await session.request("logging/setLevel", {"level": "warning"})
        late.down = None
        await trio.sleep(60)
        a.notify("notifications/message", {"level": "info", "data": "quiet"})
        a.notify("notifications/message", {"level": "error", "data": "loud"})

        assert (a.counts["logging/setLevel"], late.counts["logging/setLevel"]) == (1, 1)
        assert [
            notice.params["data"] for notice in others if notice.method == "notifications/message" and notice.params
        ] == ["loud"]
        with pytest.raises(InvalidParams, match="level must be one of"):
            await session.request("logging/setLevel", {"level": "shouting"})


async def test_close_lets_running_calls_finish_and_refuses_new_ones(autojump_clock: MockClock) -> None:
    """S11: then the backend gets its goodbye, and nothing is left."""
    a = backend("a")
    results: list[JsonObject] = []
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                results.append(await session.call_tool("a_sleep", {"seconds": 3}))

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            session.request_close("test", drain=10)
            with pytest.raises(SessionClosed, match="session closed"):
                await session.call_tool("a_echo")
            await session.close()

        assert trio.current_time() - start == pytest.approx(3)
        assert text_of(results[0]) == "slept"
        assert a.counts["goodbye"] == 1
        assert a.sessions == {}
        assert session.closed
        with pytest.raises(SessionNotFound):
            supervisor.lookup(session.id.reveal())


async def test_close_cancels_what_does_not_finish_in_the_drain_time(autojump_clock: MockClock) -> None:
    """S11: the client is answered, the backend told."""
    a = backend("a")
    async with supervised([a]) as supervisor:
        session = await supervisor.start_session()
        call = session.submit("tools/call", {"name": "a_sleep", "arguments": {"seconds": 1000}})
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await session.close(drain=10)

        assert trio.current_time() - start == pytest.approx(10)
        with pytest.raises(Exception, match="ended while the call was running"):
            call.reply.result()


async def test_a_backend_that_hangs_at_goodbye_is_left_after_the_goodbye_timeout(autojump_clock: MockClock) -> None:
    """S11: the goodbye is bounded."""

    class Rude(MemoryBackend):
        pass

    a = backend("a")
    async with supervised([a], goodbye_timeout=5) as supervisor:
        session = await supervisor.start_session()
        link_goodbye = session._actor.connections["a"]._link._transport  # type: ignore[union-attr]

        async def hang() -> None:
            await trio.sleep_forever()

        link_goodbye.goodbye = hang  # type: ignore[method-assign,union-attr]
        start = trio.current_time()
        await session.close()

        assert trio.current_time() - start == pytest.approx(5)


async def test_idle_sessions_are_closed_and_used_ones_are_not(autojump_clock: MockClock) -> None:
    """S12: a call in flight is not idle, nor is an open stream."""
    async with supervised([backend("a")], idle_timeout=100) as supervisor:
        idle = await supervisor.start_session()
        calling = await supervisor.start_session()
        streaming = await supervisor.start_session()
        calling.submit("tools/call", {"name": "a_sleep", "arguments": {"seconds": 59}})
        with streaming.stream_open():
            await trio.sleep(110)
            assert idle.closed
            assert not calling.closed
            assert not streaming.closed
        await trio.sleep(110)

        assert streaming.closed
        assert supervisor.statistics().ended == {"idle": 3}


async def test_lifetime_slides_with_use_and_ends_also_with_an_open_stream(autojump_clock: MockClock) -> None:
    """S12: half an hour after the last use it is over."""
    async with supervised([backend("a")], ttl=1000, idle_timeout=10_000) as supervisor:
        session = await supervisor.start_session()
        with session.stream_open():
            for _ in range(5):
                await trio.sleep(900)
                await session.call_tool("a_echo")
            assert not session.closed
            await trio.sleep(1010)

        assert session.closed
        assert supervisor.statistics().ended == {"lifetime": 1}


async def test_limits_of_sessions_in_all_and_per_client(autojump_clock: MockClock) -> None:
    """S13: refused at once, and an ended session makes room."""
    here, there = ClientProfile(address="10.0.0.1"), ClientProfile(address="10.0.0.2")
    someone = Identity("https://issuer", "someone")
    async with supervised([backend("a")], max_sessions=4, max_per_client=2) as supervisor:
        first = await supervisor.start_session(client=here)
        await supervisor.start_session(client=here)
        with pytest.raises(SessionLimitReached) as caught:
            await supervisor.start_session(client=here)
        await supervisor.start_session(client=there)
        await supervisor.start_session(someone, here)
        with pytest.raises(SessionLimitReached):
            await supervisor.start_session(client=there)
        await first.close()
        await wait_all_tasks_blocked()
        await supervisor.start_session(client=here)

        assert supervisor.statistics().refused == 2
        assert "4" not in caught.value.message


async def test_limits_hold_while_sessions_are_being_started(autojump_clock: MockClock) -> None:
    """S13: many starts at once cannot pass a limit that each of them alone would respect."""
    outcomes: list[str] = []
    async with supervised([backend("a", connect_delay=1)], max_sessions=3, max_per_client=100) as supervisor:

        async def start() -> None:
            try:
                await supervisor.start_session()
                outcomes.append("started")
            except SessionLimitReached:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(start)

        assert sorted(outcomes) == ["refused"] * 7 + ["started"] * 3


async def test_sessions_are_bound_to_the_identity_that_made_them(autojump_clock: MockClock) -> None:
    """X2: somebody else's session looks as if it did not exist."""
    owner, other = Identity("i", "owner"), Identity("i", "other")
    async with supervised([backend("a")]) as supervisor:
        session = await supervisor.start_session(owner)

        assert supervisor.lookup(session.id.reveal(), owner) is session
        for stranger in (other, Identity()):
            with pytest.raises(SessionNotFound):
                supervisor.lookup(session.id.reveal(), stranger)


async def test_drain_closes_everything_also_what_is_being_started(autojump_clock: MockClock) -> None:
    """Shutdown: no new sessions, and those being made never come to be."""
    outcomes: list[str] = []
    async with supervised([backend("a", connect_delay=3)]) as supervisor:
        live = await supervisor.start_session()

        async def start() -> None:
            try:
                await supervisor.start_session()
            except Draining:
                outcomes.append("draining")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.sleep(1)
            await supervisor.drain()

        assert outcomes == ["draining"]
        assert live.closed
        with pytest.raises(Draining):
            await supervisor.start_session()
        stats = supervisor.statistics()
        assert (stats.sessions, stats.starting, stats.draining) == (0, 0, True)


async def test_cancelling_a_start_leaves_nothing(autojump_clock: MockClock) -> None:
    """A client that leaves during initialize costs nothing afterwards."""
    a = backend("a", connect_delay=3)
    async with supervised([a]) as supervisor:
        with trio.move_on_after(1):
            await supervisor.start_session()
        await wait_all_tasks_blocked()

        assert supervisor.statistics().sessions == 0
        assert supervisor.statistics().starting == 0
        assert a.sessions == {}
        assert repr(supervisor.test_store) == "<MemoryStore: 0 sessions>"  # type: ignore[attr-defined]


async def test_manual_conflicts_refuse_the_session_and_name_the_tools(autojump_clock: MockClock) -> None:
    """A1: nothing is shadowed silently."""
    aggregation = AggregationSettings(strategy="manual")
    async with supervised([backend("a"), backend("b")], aggregation=aggregation) as supervisor:
        with pytest.raises(UnresolvedConflicts, match=r"echo \(a, b\)"):
            await supervisor.start_session()

        assert supervisor.statistics().sessions == 0


async def test_manual_conflict_of_a_late_backend_keeps_it_out_and_the_session_alive(autojump_clock: MockClock) -> None:
    """A backend that comes late cannot break what works."""
    b = backend("b", down="not yet")
    aggregation = AggregationSettings(strategy="manual")
    async with supervised([backend("a"), b], aggregation=aggregation) as supervisor:
        session = await supervisor.start_session()
        b.down = None
        await trio.sleep(60)

        assert len(session.tools) == 3
        assert text_of(await session.call_tool("echo", {"text": "still a"})) == "still a"
        b.tools = {"other": echo}
        b.notify("notifications/tools/list_changed")
        await trio.sleep(1)
        assert text_of(await session.call_tool("other", {"text": "b joined"})) == "b joined"


async def test_too_many_calls_of_one_session_are_refused_at_once(autojump_clock: MockClock) -> None:
    """Admission counts what is queued and what runs."""
    async with supervised([backend("a")], max_calls=5) as supervisor:
        session = await supervisor.start_session()
        for _ in range(5):
            session.submit("tools/call", {"name": "a_sleep", "arguments": {"seconds": 1}})
        await wait_all_tasks_blocked()

        with pytest.raises(Busy) as caught:
            await session.call_tool("a_echo")
        assert caught.value.delivered is Delivered.NO
        await trio.sleep(2)
        await session.call_tool("a_echo")


async def test_calls_of_one_session_run_in_parallel(autojump_clock: MockClock) -> None:
    """Four calls of a second take a second."""
    async with supervised([backend("a")]) as supervisor:
        session = await supervisor.start_session()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(session.call_tool, "a_sleep", {"seconds": 1})

        assert trio.current_time() - start == pytest.approx(1)


async def test_everything_a_session_offers_is_reached_under_the_backends_own_names(autojump_clock: MockClock) -> None:
    """S2: resources, prompts and completion besides tools, with the reference rewritten."""
    a = backend(
        "a",
        capabilities={"tools": {}, "resources": {"subscribe": True}, "prompts": {}, "completions": {}},
        resources=({"uri": "file:///notes", "name": "notes", "x-odd": 1},),
        prompts=({"name": "greet", "arguments": [{"name": "who"}]},),
        instructions="Be kind.",
    )
    async with supervised([a, backend("b")]) as supervisor:
        session = await supervisor.start_session()
        read = await session.read_resource("file:///notes")
        prompt = await session.get_prompt("a_greet", {"who": "you"})
        completion = await session.complete({"type": "ref/prompt", "name": "a_greet"}, {"name": "who", "value": "y"})

        assert session.resources == ({"uri": "file:///notes", "name": "notes", "x-odd": 1},)
        assert session.resource_templates == ()
        assert [prompt["name"] for prompt in session.prompts] == ["a_greet"]
        assert read["contents"][0]["text"] == "a has file:///notes"
        assert prompt["description"] == "a has greet"
        assert "'greet'" in completion["completion"]["values"][0]
        assert session.instructions == "## a\nBe kind."
        assert session.capabilities == {
            "tools": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "prompts": {"listChanged": True},
            "logging": {},
            "completions": {},
        }
        await session.request("resources/subscribe", {"uri": "file:///notes"})
        notices: list[Notice] = []
        session.listen(notices.append)
        a.notify("notifications/resources/updated", {"uri": "file:///notes"})
        assert notices == [Notice("notifications/resources/updated", {"uri": "file:///notes"})]


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("tools/call", {"name": "nope"}, UnknownTool),
        ("tools/call", {}, InvalidParams),
        ("tools/call", {"name": 3}, InvalidParams),
        ("tools/call", {"name": "a_echo", "arguments": []}, InvalidParams),
        ("prompts/get", {"name": "nope"}, UnknownPrompt),
        ("resources/read", {"uri": "nope://x"}, UnknownResource),
        ("completion/complete", {"ref": "x"}, InvalidParams),
        ("tools/list", {"cursor": "made up"}, InvalidParams),
        ("no/such", {}, MethodNotFound),
    ],
)
async def test_bad_requests_get_the_error_that_fits(
    autojump_clock: MockClock, method: str, params: JsonObject, error: type[Exception]
) -> None:
    """Each is answered, and the session goes on."""
    async with supervised([backend("a"), backend("b")]) as supervisor:
        session = await supervisor.start_session()
        with pytest.raises(error):
            await session.request(method, params)

        assert await session.request("ping") == {}


async def test_a_session_works_in_a_plain_nursery_without_supervisor_or_server(autojump_clock: MockClock) -> None:
    """S2, S3: the factory needs a nursery, and nothing else."""
    a = backend("a")
    factory = SessionFactory(transport=backends([a]))
    async with trio.open_nursery() as nursery:
        session = await factory.make_session(Identity(), [a.spec], start=nursery.start)
        assert text_of(await session.call_tool("a_count")) == "1"
        await session.close()

    assert a.counts["goodbye"] == 1


async def test_decorators_wrap_the_session(autojump_clock: MockClock) -> None:
    """O3: a decorator sees every request, and may answer it."""

    class Shouting:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def handle(self, request: Any) -> JsonObject:
            result = await self.inner.handle(request)
            return {**result, "seen": request.method}

    a = backend("a")
    factory = SessionFactory(transport=backends([a]), decorators=[Shouting])
    async with trio.open_nursery() as nursery:
        session = await factory.make_session(Identity(), [a.spec], start=nursery.start)
        assert (await session.call_tool("a_echo"))["seen"] == "tools/call"
        await session.close()


async def test_reprs_show_counts_and_no_ids(autojump_clock: MockClock) -> None:
    """X4: a session id is a secret, also in a debugger."""
    async with supervised([backend("a")]) as supervisor:
        session = await supervisor.start_session()
        shown = f"{session!r} {supervisor!r} {session.id!r} {session.statistics()} {session.backend_sessions}"

        assert "1/1 backends, 3 tools" in repr(session)
        assert session.id.reveal() not in shown
        assert "a-1" not in shown
