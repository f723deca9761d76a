"""HTTP/1.1 on a stream: what comes is read as it should be or refused, what goes out cannot be misread."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from tests.garbage import garbage
from vmcp_actors.server.http1 import LINGER, Connection, Limits
from vmcp_actors.server.http1_request import MAX_AHEAD, MAX_HEAD, BadRequest, RequestParser
from vmcp_actors.server.http1_response import PIECE

LIMITS = Limits(head_timeout=5.0, idle_timeout=60.0, send_timeout=4.0)
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BOTH = (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n")
GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Notes what it is asked, and answers with what it was given."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.disconnected = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await getattr(self, scope["path"].strip("/") or "echo", self.echo)(receive, send)

    async def body(self, receive: Any) -> bytes:
        body, more = b"", True
        while more:
            event = await receive()
            assert event["type"] == "http.request", event
            body, more = body + event["body"], event["more_body"]
        self.bodies.append(body)
        return body

    async def echo(self, receive: Any, send: Any) -> None:
        await respond(send, await self.body(receive))

    async def refuse(self, _: Any, send: Any) -> None:
        await respond(send, b"no", 413)

    async def stream(self, receive: Any, send: Any) -> None:
        """Pieces without an announced length, until the client is gone."""
        await self.body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                assert (await receive())["type"] == "http.disconnect"
                self.disconnected.set()
                nursery.cancel_scope.cancel()

            for number in range(1000):
                await send({"type": "http.response.body", "body": b"%d;" % number, "more_body": True})
                await trio.sleep(1)

    async def wait(self, receive: Any, _: Any) -> None:
        """Nothing is written that could fail."""
        await self.body(receive)
        assert (await receive())["type"] == "http.disconnect"
        self.disconnected.set()

    async def pieces(self, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def crash(self, _: Any, send: Any) -> None:
        raise LookupError("a bug")

    async def crash_later(self, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("a bug")

    async def split(self, _: Any, send: Any) -> None:
        headers = [(b"x", b"y\r\nset-cookie: stolen")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def longer(self, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"more than two"})

    async def nothing(self, _: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def empty(self, _: Any, send: Any) -> None:
        await respond(send, b"", 204)

    async def large(self, _: Any, send: Any) -> None:
        await respond(send, b"x" * (3 * PIECE + 5))


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"b")]})
    await send({"type": "http.response.body", "body": body})


class Client:
    """The other end."""

    def __init__(self, stream: Any, app: App, connection: Connection, ended: trio.Event) -> None:
        self.stream = stream
        self.app = app
        self.connection = connection
        self.ended = ended
        self.read = b""

    async def send(self, *data: bytes) -> None:
        for piece in data:
            await self.stream.send_all(piece)
            await wait_all_tasks_blocked()

    async def all(self) -> bytes:
        """Everything until the server closes."""
        while data := await self.stream.receive_some():
            self.read += data
        return self.read

    async def some(self) -> bytes:
        """What there is now."""
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.001):
            while data := await self.stream.receive_some():
                self.read += data
        read, self.read = self.read, b""
        return read


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    ours, theirs = memory_stream_pair()
    app, ended = App(), trio.Event()
    connection = Connection(theirs, app, LIMITS, client=("10.0.0.1", 9), server=("10.0.0.2", 80))

    async def serve() -> None:
        await connection.serve()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield Client(ours, app, connection, ended)
        await ours.aclose()
        with trio.fail_after(10):
            await ended.wait()


def body_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


def statuses(responses: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", responses)]


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_request_as_the_application_sees_it(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(b"POST /a%20b?c=%20 HTTP/1.1\r\nHost: x\r\nX-Y:  z \r\nContent-Length: 3\r\n\r\nabc")
        response = await client.some()
    (scope,) = client.app.scopes
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["http_version"]) == (b"c=%20", "1.1")
    assert scope["headers"] == [(b"host", b"x"), (b"x-y", b"z"), (b"content-length", b"3")]
    assert (scope["client"], scope["server"]) == (("10.0.0.1", 9), ("10.0.0.2", 80))
    assert response.startswith(b"HTTP/1.1 200 OK\r\nx-a: b\r\ndate: ")
    assert b"\r\ncontent-length: 3\r\n\r\nabc" in response


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n", b"abcde"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", b"abcde"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"GET http://y/z?a HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    ],
)  # fmt: skip
async def test_bodies_arrive_in_any_pieces(autojump_clock: MockClock, request_: bytes, body: bytes) -> None:
    async with connected() as client:
        await client.send(request_)
        await client.send(*(request_[n : n + 1] for n in range(len(request_))))
        assert statuses(await client.some()) == [200, 200]
    assert client.app.bodies == [body, body]


async def test_requests_that_come_together_are_answered_in_order(autojump_clock: MockClock) -> None:
    posts = b"".join(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%02d" % n for n in range(30))
    async with connected() as client:
        await client.send(posts + GET)
        responses = await client.some()
    assert statuses(responses) == [200] * 31
    assert [part[-2:] for part in responses.split(b"HTTP/1.1")[1:-1]] == [b"%02d" % n for n in range(30)]


BAD = {
    "not http": (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", 501),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http/0.9": (b"GET /\r\n\r\n", 505),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "both lengths": (b"POST / HTTP/1.1\r\nHost: x\r\n%b%b\r\n0\r\n\r\n" % BOTH, 400),
    "both lengths, the other way": (b"POST / HTTP/1.1\r\nHost: x\r\n%b%b\r\n0\r\n\r\n" % BOTH[::-1], 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400),
    "huge length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "unknown coding": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "coding after chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "null in header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "unknown expectation": (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417),
    "connect": (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "long header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * MAX_HEAD + b"\r\n\r\n", 431),
    "long path": (b"GET /" + b"b" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
    "bad chunk": (CHUNKED + b"-3\r\nabc\r\n", 400),
    "chunk too long": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "tiny chunks": (CHUNKED + b"1\r\na\r\n" * 20_000, 400),
    "endless extension": (CHUNKED + b"3;" + b"e" * MAX_HEAD, 400),
    "endless trailers": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 20_000, 400),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
async def test_what_is_no_request_is_refused_and_ends_the_connection(
    autojump_clock: MockClock, data: bytes, status: int, before: bytes
) -> None:
    """What came before it is answered; nothing that comes behind it is."""
    async with connected() as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await client.stream.send_all(before + data + GET)

        responses = await client.all()
    assert statuses(responses) == [200] * bool(before) + [status]
    assert b"connection: close\r\n" in responses


async def test_a_client_is_told_to_go_on_when_somebody_wants_the_body(autojump_clock: MockClock) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with connected() as client:
        await client.send(head)
        assert await client.some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert body_of(await client.some()) == b"abc"
        await client.send(head.replace(b"/ ", b"/refuse "))
        assert statuses(await client.all()) == [413]


async def test_a_refused_body_does_not_keep_the_client_from_reading_why(autojump_clock: MockClock) -> None:
    """The connection closes, but not while the client is still sending."""
    async with connected() as client, trio.open_nursery() as nursery:
        start = trio.current_time()

        @nursery.start_soon
        async def send() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await client.stream.send_all(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
                while True:
                    await client.stream.send_all(b"x" * 10_000)
                    await trio.sleep(0.1)

        response = await client.all()
        assert statuses(response) == [413]
        assert b"connection: close" in response
        await client.ended.wait()
        assert trio.current_time() - start == pytest.approx(LINGER, abs=0.2)


async def test_an_upgrade_is_ignored_and_the_connection_ends(autojump_clock: MockClock) -> None:
    for protocol in (b"h2c", b"websocket"):
        async with connected() as client:
            await client.send(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\nwhatever"
            )
            response = await client.all()
        assert statuses(response) == [200]
        assert b"connection: close" in response


# --- responses --------------------------------------------------------------------------------------------------------


async def test_pieces_are_chunked_and_the_connection_is_kept(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"/a", b"/pieces"), GET)
        responses = await client.some()
    assert b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200" in responses


@pytest.mark.parametrize(("connection", "kept"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
async def test_http_1_0(autojump_clock: MockClock, connection: bytes, kept: bool) -> None:
    """No chunks; what has no length ends with the connection."""
    request = b"GET /x HTTP/1.0\r\n" + connection + b"\r\n"
    async with connected() as client:
        await client.send(request)
        response = await client.some()
        assert (b"connection: keep-alive" in response) == kept
        if kept:
            await client.send(request.replace(b"/x", b"/pieces"))
            response = await client.all()
            assert response.endswith(b"connection: close\r\n\r\nonetwo")
            assert b"chunked" not in response


@pytest.mark.parametrize("path", [b"/a", b"/pieces", b"/empty", b"/large"])
async def test_what_has_no_body_has_none(autojump_clock: MockClock, path: bytes) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"GET /a", b"HEAD " + path), GET)
        responses = await client.some()
        assert statuses(responses) == [204 if path == b"/empty" else 200, 200]
        assert responses.count(b"\r\n\r\nHTTP/1.1 ") == 1
        await client.send(GET.replace(b"/a", b"/empty"))
        assert (await client.some()).endswith(b"\r\n\r\n")


async def test_a_large_body_arrives_whole(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"/a", b"/large"))
        assert len(body_of(await client.some())) == 3 * PIECE + 5


@pytest.mark.parametrize("path", [b"/crash", b"/split", b"/nothing", b"/longer"])
async def test_an_application_that_fails_is_an_answer_of_500(
    autojump_clock: MockClock, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"/a", path))
        response = await client.all()
    assert statuses(response) == [500]
    assert b"stolen" not in response
    assert ("the application failed" in caplog.text) == (path != b"/nothing")


async def test_an_application_that_fails_later_leaves_the_response_incomplete(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"/a", b"/crash_later"))
        response = await client.all()
    assert body_of(response) == b"half"
    assert b"content-length: 10" in response


# --- clients that leave, or are slow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [b"", b"G", GET * 3, b"\0\0"])
async def test_a_client_that_leaves_is_noticed_whatever_else_it_has_sent(
    autojump_clock: MockClock, more: bytes
) -> None:
    async with connected() as client:
        await client.send(GET.replace(b"/a", b"/stream") + more)
        assert b"0;" in await client.some()
        await client.stream.aclose()
        with trio.fail_after(3):
            await client.app.disconnected.wait()
            await client.ended.wait()
    assert len(client.app.scopes) == 1


async def test_a_large_body_does_not_hide_that_its_client_has_left(autojump_clock: MockClock) -> None:
    """What belongs to the request under way is not counted as ahead of the next one."""
    body = b"x" * (MAX_AHEAD + 100_000)
    async with connected() as client:
        await client.send(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        await client.stream.aclose()
        with trio.fail_after(3):
            await client.app.disconnected.wait()


async def test_a_head_that_began_too_early_has_no_more_time_than_others(autojump_clock: MockClock) -> None:
    """It came while the request before was served."""
    async with connected() as client:
        await client.send(GET + b"GET /b HTTP/1.1\r\nHo")
        start = trio.current_time()
        assert statuses(await client.all()) == [200, 408]
        assert trio.current_time() - start == pytest.approx(LIMITS.head_timeout, abs=0.1)


async def test_a_head_that_does_not_come_is_given_up(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(GET, b"GET / HTTP/1.1\r\nHost:")
        start = trio.current_time()
        assert statuses(await client.all()) == [200, 408]
        assert trio.current_time() - start == pytest.approx(LIMITS.head_timeout, abs=0.1)


async def test_an_idle_connection_ends_without_a_word(autojump_clock: MockClock) -> None:
    async with connected() as client:
        await client.send(GET)
        await client.some()
        start = trio.current_time()
        assert await client.all() == b""
        assert trio.current_time() - start == pytest.approx(LIMITS.idle_timeout, abs=0.1)


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(theirs, App(), LIMITS).serve)
        await ours.send_all(GET.replace(b"/a", b"/large"))
        start = trio.current_time()
        while nursery.child_tasks:
            await trio.sleep(0.5)
        assert trio.current_time() - start == pytest.approx(LIMITS.send_timeout, abs=1.0)


@pytest.mark.parametrize("request_", [GET, GET[:-2], b"GET / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n"])
async def test_a_connection_that_has_ended_leaves_nothing_in_cycles(request_: bytes, autojump_clock: MockClock) -> None:
    async def use() -> None:
        async with connected() as client:
            await client.send(request_)
            await client.some()
            client.app.scopes.clear()

    with garbage() as found:
        await use()
    assert found == {}


# --- the end of the server --------------------------------------------------------------------------------------------


async def test_at_the_end_idle_connections_end_and_requests_are_served(autojump_clock: MockClock) -> None:
    async with connected() as client:
        client.connection.finish()
        assert await client.all() == b""
    async with connected() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab")
        client.connection.finish()
        await client.send(b"c" + GET)
        response = await client.all()
        assert statuses(response) == [200]
        assert b"abc" in response
    async with connected() as client:
        await client.send(b"GET /a HTTP/1.1\r\nHo")
        client.connection.finish()
        await client.send(b"st: x\r\n\r\n")
        response = await client.all()
        assert (statuses(response), b"connection: close" in response) == ([200], True)


# --- the parser -------------------------------------------------------------------------------------------------------

REQUESTS = [GET, b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            CHUNKED.replace(b"/ ", b"/y ") + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]  # fmt: skip


def parsed(pieces: list[bytes]) -> list[tuple[str, bytes, bytes]]:
    parser, found = RequestParser(), []

    def take() -> None:
        while (request := parser.next_request()) is not None and request.complete:
            found.append((request.method, request.target, b"".join(request.body)))
            parser.forget_request()

    for piece in pieces:
        parser.feed(piece)
        take()
    return found


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_it_does_not_matter_how_the_bytes_arrive(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places) if start < end]
    assert parsed(pieces) == parsed([data])
    assert len(parsed(pieces)) == len(requests)


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n"]))
def test_whatever_comes_is_a_request_or_refused_or_waited_for(data: bytes, start: bytes) -> None:
    parser = RequestParser()
    parser.feed(start + data)
    try:
        request = parser.next_request()
    except BadRequest as error:
        status = error.status.value
    else:
        status = 200
        assert request is None or request.target
    assert status in (200, 400, 417, 431, 501, 505)
    assert repr(parser).startswith("<RequestParser")
