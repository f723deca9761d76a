"""Logs of event streams and what a session keeps of them: nothing lost that need not be, and never too much."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.garbage import garbage
from vmcp_actors.errors import ClientUnreachable
from vmcp_actors.model import Notice
from vmcp_actors.server.front import Front
from vmcp_actors.server.streams import EventWriter, StreamLog
from vmcp_actors.wire.sse import EventDecoder


def updated(number: int) -> Notice:
    return Notice("notifications/resources/updated", {"uri": f"x://{number}"})


def log_message(number: int) -> Notice:
    return Notice("notifications/message", {"level": "info", "data": number})


def numbers(log: StreamLog, cursor: int = 0) -> list[str]:
    return [json.loads(entry.data)["params"]["uri"].removeprefix("x://") for entry in log.take(cursor)]


async def test_what_waits_for_a_stream_comes_however_often_there_was_one(autojump_clock: MockClock) -> None:
    front = Front(100)
    for turn in range(10):
        for number in range(60):
            front.notify(updated(1000 * turn + number))
        log = front.open_stream()
        assert len(log.take(0)) == 60
        front.closed_stream(log)


async def test_while_nobody_listens_a_flood_is_cut_off_and_what_comes_later_is_kept(autojump_clock: MockClock) -> None:
    front = Front(4)
    for number in range(10):
        front.notify(updated(number))
    with pytest.raises(ClientUnreachable, match="does not read"):
        front.ask("roots/list", {})
    log = front.open_stream()
    assert numbers(log) == ["0", "1", "2", "3"]
    front.closed_stream(log)
    front.notify(updated(11))
    assert numbers(front.open_stream()) == ["11"]


async def test_a_stream_that_overflowed_is_resumed_to_its_end_and_then_followed_by_another(
    autojump_clock: MockClock,
) -> None:
    front = Front(4)
    log = front.open_stream()
    for number in range(5):
        front.notify(updated(number))
    assert log.finished
    front.notify(updated(7))
    again, place = front.resume_stream(f"{log.name}-0")
    assert again is log
    assert numbers(again, place) == ["0", "1", "2", "3", "4"]
    front.closed_stream(again)
    after, place = front.resume_stream(f"{log.name}-5")
    assert after is not log
    assert numbers(after, place) == ["7"]


async def test_the_message_that_finds_no_room_is_the_last_one(autojump_clock: MockClock) -> None:
    """So a result is not lost to a slow reader, and a question that nobody will read is refused."""
    front = Front(4)
    log = front.answer_stream()
    for _ in range(4):
        front.ask_on(log.put, "roots/list", {})
    assert log.put(b"the result")
    assert log.finished
    assert [entry.data for entry in log.take(0)][-1] == b"the result"
    with pytest.raises(ClientUnreachable, match="does not read"):
        front.ask_on(log.put, "roots/list", {})


async def test_dropped_messages_do_not_count_as_kept(autojump_clock: MockClock) -> None:
    front = Front(16)
    slow = front.open_stream()
    for number in range(3000):
        front.notify(log_message(number))
    assert "16 events kept" in repr(front)
    slow.take(0)
    quick = front.answer_stream()
    quick.put(b"{}")
    quick.take(0)
    for number in range(3000, 3010):
        front.notify(log_message(number))
    again, place = front.resume_stream(f"{quick.name}-0")
    assert [entry.data for entry in again.take(place)] == [b"{}"]


async def test_streams_that_were_never_used_leave_nothing(autojump_clock: MockClock) -> None:
    front = Front(16)
    for _ in range(1000):
        front.closed_stream(front.open_stream())
    assert front.statistics().streams == 0


async def test_a_place_that_is_not_there_yet_skips_nothing(autojump_clock: MockClock) -> None:
    front = Front(16)
    log = front.open_stream()
    front.notify(updated(1))
    log.take(0)
    again, place = front.resume_stream(f"{log.name}-999999")
    front.notify(updated(2))
    assert numbers(again, place) == ["2"]


async def test_two_readers_of_a_stream_miss_nothing_and_wait_for_nothing(autojump_clock: MockClock) -> None:
    """The one whose client is slow, and the one that has resumed the stream meanwhile."""
    log = StreamLog("p1", capacity=16)
    written: dict[str, list[tuple[float, Any]]] = {"slow": [], "quick": []}

    async def read(name: str, seconds: float) -> None:
        decoder = EventDecoder(1 << 20)

        async def send(event: Any) -> None:
            await trio.sleep(seconds)
            for found in decoder.feed(event.get("body", b"")):
                written[name].append((trio.current_time() - began, found.data))

        await EventWriter(send, keepalive=15.0).write(log)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "slow", 0.5)
        nursery.start_soon(read, "quick", 0.0)
        for number in range(6):
            await trio.sleep(0.3)
            log.put(str(number).encode())
        await trio.sleep(20)
        log.finish()
    for name, times in written.items():
        assert [data for _, data in times] == [str(number) for number in range(6)], name
        assert times[-1][0] < 4, name


async def test_a_front_that_is_gone_leaves_nothing_in_cycles() -> None:
    def use() -> None:
        front = Front(10)
        front.open_stream().notify(updated(1))
        front.notify(updated(2))
        front.close()

    with garbage() as found:
        use()
    assert found == {}
