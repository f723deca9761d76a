"""The HTTP/1.1 client against scripted peers: framing, reuse, limits, delivery, and no connection left behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.garbage import garbage
from vmcp_actors.transports.http1 import HttpConnection
from vmcp_actors.transports.http1_messages import (
    MAX_HEADER_BYTES,
    BadResponse,
    ConnectFailed,
    ConnectionBroken,
    encode_request,
)
from vmcp_actors.transports.origin import Origin, parse_url
from vmcp_actors.transports.pool import HttpPool, PoolStatistics

ORIGIN = Origin("http", "backend.test", 8080)
LIMIT = 1 << 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Stapled = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Peer:
    """The other end of every connection that a pool opens, in memory."""

    def __init__(self) -> None:
        self.streams: list[Stapled] = []

    async def connect(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(theirs)
        return ours

    async def answer(self, data: bytes, *, stream: int = -1) -> bytes:
        """Wait for a request, answer it with `data`; returns the request."""
        request = bytes(await self.streams[stream].receive_some())
        if data:
            await self.streams[stream].send_all(data)
        return request

    async def hung_up(self, stream: int = -1) -> bool:
        """Whether the client closed this connection. Hangs, for the fail_after of the test, if it did not."""
        with trio.move_on_after(1):
            return await self.streams[stream].receive_some() == b""
        return False


@pytest.fixture
def peer() -> Peer:
    return Peer()


@asynccontextmanager
async def pool_with(peer: Peer, *, max_idle: int = 8) -> AsyncIterator[HttpPool]:
    with trio.fail_after(60):
        async with HttpPool(ORIGIN, connect=peer.connect, max_idle=max_idle) as pool:
            yield pool


async def fetch(client: HttpPool | HttpConnection, max_bytes: int = LIMIT) -> bytes:
    response = await client.request("GET", "/")
    return await response.read(max_bytes)


async def connection_answering(*pieces: bytes, eof: bool = False) -> tuple[HttpConnection, Stapled]:
    ours, theirs = trio.testing.memory_stream_pair()
    for piece in pieces:
        await theirs.send_all(piece)
    if eof:
        await theirs.send_eof()
    return HttpConnection(ours, ORIGIN), theirs


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "host_header", "target"),
    [
        ("http://Example.org", Origin("http", "example.org", 80), b"example.org", "/"),
        ("http://a.b:8080/mcp?x=1&y=%20#z", Origin("http", "a.b", 8080), b"a.b:8080", "/mcp?x=1&y=%20"),
        ("https://a:443/ä", Origin("https", "a", 443), b"a", "/%C3%A4"),
        ("https://a:80?q", Origin("https", "a", 80), b"a:80", "/?q"),
        ("http://[::1]:9/mcp", Origin("http", "::1", 9), b"[::1]:9", "/mcp"),
        ("http://[fe80::1%25eth0]/", Origin("http", "fe80::1%25eth0", 80), b"[fe80::1]", "/"),
        ("http://bücher.example/", Origin("http", "xn--bcher-kva.example", 80), b"xn--bcher-kva.example", "/"),
        ("http://my_service/", Origin("http", "my_service", 80), b"my_service", "/"),
    ],
)
def test_parse_url(url: str, origin: Origin, host_header: bytes, target: str) -> None:
    assert parse_url(url) == (origin, target)
    assert parse_url(url)[0].host_header == host_header


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/",
        "a/b",
        "http:///x",
        "http://user:secret@a/",
        "http://a:0/",
        "http://a:99999/",
        "http://a:x/",
        "http://a/secret\r\nx: y",
        "http://a b/",
        "http://[::x]/",
        "http://a,secret/",
        "http://" + "ä" * 70 + "/",
    ],
)
def test_parse_url_refuses_without_repeating_secrets(url: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # each problem has its own words
        parse_url(url)
    assert "secret" not in str(caught.value)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_request_is_one_piece() -> None:
    assert encode_request(b"h:1", "POST", "/mcp?a=b", [(b"accept", b"*")], b"{}") == (
        b"POST /mcp?a=b HTTP/1.1\r\nhost: h:1\r\naccept: *\r\naccept-encoding: identity\r\ncontent-length: 2\r\n\r\n{}"
    )


def test_length_is_sent_where_a_body_is_expected() -> None:
    assert b"content-length" not in encode_request(b"h", "GET", "/", (), None)
    assert b"content-length: 0\r\n" in encode_request(b"h", "POST", "/", (), None)
    assert b"content-length: 0\r\n" in encode_request(b"h", "DELETE", "/", (), b"")


def test_given_host_header_wins() -> None:
    assert encode_request(b"h", "GET", "/", [(b"Host", b"other")], None).lower().count(b"host:") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x", b"secret\r\nevil: 1"),
        (b"x", b"secret\n"),
        (b"x", b"secret\r"),
        (b"x", b"secret\0"),
        (b"x: y\r\nz", b"secret"),
        (b"x y", b"secret"),
        (b"", b"secret"),
        (b"Content-Length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"Accept-Encoding", b"gzip"),
        (b"connection", b"close"),
    ],
)
def test_header_injection_is_refused_without_repeating_values(name: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        encode_request(b"h", "GET", "/", [(b"ok", b"yes"), (name, value)], None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/a b"), ("GET", "/\r\n"), ("GET", ""), ("get", "/"), ("HEAD", "/"), ("CONNECT", "/")],
)
def test_bad_request_lines_are_refused(method: str, target: str) -> None:
    with pytest.raises(ValueError, match="method and a target"):
        encode_request(b"h", method, target, (), None)


async def test_refused_request_leaves_the_connection_alone(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool:
        with pytest.raises(ValueError, match="header"):
            await pool.request("GET", "/", [(b"a", b"\n")])
        assert pool.statistics() == PoolStatistics(opened=0, reused=0, idle=0, active=0)


# --- framing ----------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nx-a: 1, 2\r\n"
FRAMINGS = {
    "content-length": (b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello", False),
    "chunked": (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;e=1\r\nllo\r\n0\r\nT: x\r\n\r\n", False),
    "close-delimited": (HEAD + b"\r\nhello", True),
    "HTTP/1.0": (HEAD.replace(b"1.1", b"1.0") + b"\r\nhello", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\nx-a: no\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
        + HEAD
        + b"content-length: 5\r\n\r\nhello",
        False,
    ),
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_answer_may_be_cut_at_every_byte(framing: str, autojump_clock: trio.testing.MockClock) -> None:
    data, eof = FRAMINGS[framing]
    with trio.fail_after(60):
        for cut in range(len(data) + 1):
            connection, theirs = await connection_answering(data[:cut])

            async def rest(theirs: Stapled = theirs, cut: int = cut) -> None:
                await trio.testing.wait_all_tasks_blocked()
                await theirs.send_all(data[cut:])
                if eof:
                    await theirs.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(rest)
                response = await connection.request("GET", "/")
                body = await response.read(LIMIT)

            assert (response.status, response.headers["x-a"], body) == (200, "1, 2", b"hello")
            assert response.complete
            assert connection.closed == eof
            connection.close()


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_byte_by_byte(framing: str, autojump_clock: trio.testing.MockClock) -> None:
    data, eof = FRAMINGS[framing]
    connection, theirs = await connection_answering()

    async def trickle() -> None:
        for byte in data:
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_all(bytes([byte]))
        if eof:
            await theirs.send_eof()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            response = await connection.request("GET", "/")
            chunks = []
            while chunk := await response.receive_chunk():
                chunks.append(chunk)

    assert chunks == [b"h", b"e", b"l", b"l", b"o"]
    assert response.complete
    connection.close()


async def test_body_streams_as_it_arrives(autojump_clock: trio.testing.MockClock) -> None:
    connection, theirs = await connection_answering(CHUNKED)
    response = await connection.request("GET", "/")
    assert repr(response) == "<Response 200, arriving>"

    await theirs.send_all(b"3\r\none\r\n")
    assert await response.receive_chunk() == b"one"
    await theirs.send_all(b"3\r\ntwo\r\n5\r\nthree\r\n")
    assert await response.receive_chunk() == b"twothree"
    assert not response.complete
    await theirs.send_all(b"0\r\n\r\n")
    assert await response.receive_chunk() == b""
    assert await response.receive_chunk() == b""
    assert repr(response) == "<Response 200, complete>"
    assert repr(connection) == "<HttpConnection http://backend.test:8080, idle>"
    connection.close()


async def test_read_returns_what_receive_chunk_has_left(autojump_clock: trio.testing.MockClock) -> None:
    connection, theirs = await connection_answering(CHUNKED + b"3\r\none\r\n")
    response = await connection.request("GET", "/")
    assert await response.receive_chunk() == b"one"
    await theirs.send_all(b"3\r\ntwo\r\n0\r\n\r\n")
    assert await response.read(LIMIT) == b"two"
    connection.close()


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status: int, autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(b"HTTP/1.1 %d X\r\nContent-Length: 999\r\n\r\n" % status)
    response = await connection.request("GET", "/")
    assert response.complete
    assert await response.read(0) == b""
    assert not connection.closed
    connection.close()


# --- reuse ------------------------------------------------------------------------------------------------------------


async def test_connection_is_kept_and_used_again(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(peer_answers, peer, OK)
            assert await fetch(pool) == b"hi"
        assert pool.statistics() == PoolStatistics(opened=1, reused=2, idle=1, active=0)
        assert repr(pool) == "<HttpPool http://backend.test:8080: 0 active, 1 idle, 1 opened, 2 reused>"
    assert repr(pool) == "<HttpPool http://backend.test:8080: closed, 0 active, 0 idle, 1 opened, 2 reused>"
    assert await peer.hung_up()


async def peer_answers(peer: Peer, data: bytes, stream: int = -1) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await peer.answer(data, stream=stream)


async def test_connection_comes_back_when_the_body_is_read_to_its_end(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, CHUNKED + b"2\r\nhi\r\n")
        response = await pool.request("GET", "/")
        assert await response.receive_chunk() == b"hi"
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=0, active=1)
        await peer.streams[0].send_all(b"0\r\n\r\n")
        assert await response.receive_chunk() == b""
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=1, active=0)
        response.close()
        assert pool.statistics().idle == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1\r\n\r\n"),
        OK + b"HTTP/1.1 200 OK\r\n",
        OK + b"garbage",
        OK + OK,
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + OK,
    ],
)
async def test_connection_is_not_kept(answer: bytes, peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, answer)
        assert await fetch(pool) == b"hi"
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=0, active=0)
        assert await peer.hung_up()


async def test_keep_alive_hint_is_honoured_with_a_second_to_spare(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: max=100, timeout=5\r\n\r\n")
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        for pause, opened in [(0, 1), (3.9, 1), (4.1, 2)]:
            await trio.sleep(pause)
            nursery.start_soon(peer_answers, peer, answer)
            assert await fetch(pool) == b"hi"
            assert pool.statistics().opened == opened
        await trio.sleep(5)
        assert pool.prune() == 1
        assert pool.statistics() == PoolStatistics(opened=2, reused=1, idle=0, active=0)


async def test_concurrent_requests_use_connections_of_their_own(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with pool_with(peer, max_idle=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetch, pool)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics() == PoolStatistics(opened=5, reused=0, idle=0, active=5)
            for i in range(5):
                await peer.answer(OK, stream=i)
        assert pool.statistics() == PoolStatistics(opened=5, reused=0, idle=2, active=0)
        assert [await peer.hung_up(i) for i in range(5)].count(True) == 3


async def test_the_latest_idle_connection_is_used_first(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        async with trio.open_nursery() as both:
            both.start_soon(fetch, pool)
            both.start_soon(fetch, pool)
            await trio.testing.wait_all_tasks_blocked()
            await peer.answer(OK, stream=1)
            await trio.testing.wait_all_tasks_blocked()
            await peer.answer(OK, stream=0)
        nursery.start_soon(peer_answers, peer, OK, 0)
        assert await fetch(pool) == b"hi"


async def test_one_exchange_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(CHUNKED)
    await connection.request("GET", "/")
    with pytest.raises(trio.BusyResourceError):
        await connection.request("GET", "/")
    assert not connection.closed
    connection.close()


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nConte", "closed in the middle of its answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed in the middle of its answer"),
    ],
)
async def test_eof_before_the_headers_end(answer: bytes, text: str, autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(answer, eof=True)
    with pytest.raises(ConnectionBroken, match=text) as caught:
        await connection.request("GET", "/")
    assert caught.value.request_sent
    assert connection.closed


@pytest.mark.parametrize(
    "answer", [OK[:-1], CHUNKED + b"5\r\nhe", CHUNKED + b"2\r\nhe\r\n", CHUNKED + b"2\r\nhe\r\n0\r\n"]
)
async def test_eof_in_the_body(answer: bytes, autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(answer, eof=True)
    response = await connection.request("GET", "/")
    with pytest.raises(ConnectionBroken, match="closed in the middle of its answer"):
        await response.read(LIMIT)
    assert connection.closed
    assert not response.complete


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_what_is_not_http(answer: bytes, autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(answer)
    with trio.fail_after(5), pytest.raises(BadResponse):
        await fetch(connection)
    assert connection.closed


async def test_broken_chunk_framing(autojump_clock: trio.testing.MockClock) -> None:
    connection, theirs = await connection_answering(CHUNKED)
    response = await connection.request("GET", "/")
    await theirs.send_all(b"xyz\r\n")
    with pytest.raises(BadResponse, match="not an HTTP response"):
        await response.receive_chunk()
    assert connection.closed


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEADER_BYTES * 2,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEADER_BYTES,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEADER_BYTES + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEADER_BYTES,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * MAX_HEADER_BYTES,
        CHUNKED + b"0\r\nx: " + b"y" * MAX_HEADER_BYTES * 3,
        CHUNKED + b"1;" + b"y" * MAX_HEADER_BYTES * 3,
    ],
    ids=["endless line", "many", "slightly too large", "interim", "trailers", "endless trailer", "chunk extension"],
)
async def test_headers_are_bounded(head: bytes, autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(head)
    with trio.fail_after(5), pytest.raises(BadResponse, match="headers"):
        await fetch(connection)
    assert connection.closed


async def test_large_headers_within_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    head = b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEADER_BYTES - 100) + b"\r\ncontent-length: 0\r\n\r\n"
    connection, _ = await connection_answering(head)
    response = await connection.request("GET", "/")
    assert len(response.headers["x"]) == MAX_HEADER_BYTES - 100
    connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890",
        CHUNKED + b"b\r\n01234567890",
        b"HTTP/1.1 200 OK\r\n\r\n01234567890",
    ],
)
async def test_body_is_bounded(answer: bytes, peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, answer)
        with pytest.raises(BadResponse, match="more than 10 bytes"):
            await fetch(pool, max_bytes=10)
        assert pool.statistics().active == 0


async def test_body_of_exactly_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering(CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n")
    assert await (await connection.request("GET", "/")).read(10) == b"0123456789"
    connection.close()


async def test_early_refusal_is_heard_although_sending_failed(autojump_clock: trio.testing.MockClock) -> None:
    connection, theirs = await connection_answering(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
    theirs.receive_stream.close()
    response = await connection.request("POST", "/", body=b"x")
    assert response.status == 413
    assert connection.closed


# --- cancellation and closing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", CHUNKED, CHUNKED + b"2\r\nhi"])
async def test_cancelling_closes_the_connection(
    answer: bytes, peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, answer)
        with trio.move_on_after(1) as scope:
            await fetch(pool)
        assert scope.cancelled_caught
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=0, active=0)
        assert await peer.hung_up()


async def test_cancelling_receive_chunk_closes_the_connection(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, CHUNKED)
        response = await pool.request("GET", "/")
        with trio.move_on_after(1):
            await response.receive_chunk()
        assert pool.statistics().active == 0
        with pytest.raises(ConnectionBroken, match="closed on our side"):
            await response.receive_chunk()


async def test_unread_response_is_dropped_with_its_connection(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(peer_answers, peer, CHUNKED)
        with await pool.request("GET", "/") as response:
            assert pool.statistics().active == 1
        response.close()
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=0, active=0)
        assert await peer.hung_up()


async def test_closing_the_pool_ends_requests_under_way(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with pool_with(peer) as pool, trio.open_nursery() as nursery:

        async def expect_end() -> None:
            with pytest.raises(ConnectionBroken, match="closed on our side"):
                await pool.request("GET", "/")

        nursery.start_soon(expect_end)
        await trio.testing.wait_all_tasks_blocked()
        pool.close()
        with pytest.raises(ConnectFailed, match="the pool is closed"):
            await pool.request("GET", "/")
        assert pool.statistics().active == 0


async def test_connection_that_opens_after_the_pool_closed_is_closed(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow() -> trio.abc.Stream:
        await trio.sleep(1)
        return await peer.connect()

    pool = HttpPool(ORIGIN, connect=slow)
    async with trio.open_nursery() as nursery:

        async def expect_end() -> None:
            with pytest.raises(ConnectFailed, match="the pool is closed"):
                await pool.request("GET", "/")

        nursery.start_soon(expect_end)
        await trio.sleep(0.5)
        pool.close()
    assert await peer.hung_up()


async def test_closed_connection_sends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    connection, _ = await connection_answering()
    connection.close()
    with pytest.raises(ConnectionBroken, match="closed on our side") as caught:
        await connection.request("GET", "/")
    assert not caught.value.request_sent


@pytest.mark.parametrize("pieces", [(OK,), (CHUNKED, b"2\r\nhi\r\n"), ()])
async def test_a_closed_connection_leaves_nothing_in_cycles(
    pieces: tuple[bytes, ...], autojump_clock: trio.testing.MockClock
) -> None:
    """Whether its response was complete, under way, or not begun."""

    async def use() -> None:
        connection, _ = await connection_answering(*pieces)
        with trio.move_on_after(1):
            await (await connection.request("GET", "/")).receive_chunk()
        connection.close()

    with garbage() as found:
        await use()
    assert found == {}


# --- connecting -------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], Awaitable[trio.abc.Stream]]:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    return connect


async def test_timeout_while_connecting(autojump_clock: trio.testing.MockClock) -> None:
    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()

    async with HttpPool(ORIGIN, connect=never, connect_timeout=5) as pool:
        with pytest.raises(ConnectFailed, match=r"^timed out after 5 s$"):
            await pool.request("GET", "/")
    assert trio.current_time() == pytest.approx(5)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "x"), "connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "name not known"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "name lookup failed"),
        (OSError("odd"), "odd"),
        (trio.BrokenResourceError(), "connection broken"),
    ],
)
async def test_connect_errors_in_words(error: BaseException, text: str) -> None:
    async with HttpPool(ORIGIN, connect=raising(error)) as pool:
        with pytest.raises(ConnectFailed, match=f"^{text}$"):
            await pool.request("GET", "/")


async def test_errors_of_several_addresses_in_words() -> None:
    refused, unreachable = ConnectionRefusedError(111, "x"), OSError(113, "x")
    error = OSError("all attempts failed")
    error.__cause__ = ExceptionGroup("", [refused, refused, unreachable])
    async with HttpPool(ORIGIN, connect=raising(error)) as pool:
        with pytest.raises(ConnectFailed, match=r"^connection refused; no route to host$"):
            await pool.request("GET", "/")
