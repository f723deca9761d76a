"""The load generator: it finds the end of every kind of response, and counts what is no result."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from benchmarks.load import Load
from benchmarks.plan import Call, Clients, End, Outcome, Start, decode_clients, decode_step
from benchmarks.requests import FIRST_ID, Requests
from benchmarks.responses import Scanner

RESULT = b'{"jsonrpc":"2.0","id":%b,"result":{}}'
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

Answer = Callable[[bytes], bytes]


def as_json(body: bytes, headers: bytes = b"") -> bytes:
    return JSON % (headers, len(body)) + body


def as_events(body: bytes) -> bytes:
    """In two chunks, after a comment in a chunk of its own."""
    data = b"data: " + body + b"\n\n"
    chunks = (b": here\n\n", data[:7], data[7:])
    return EVENTS + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


class Served:
    """A server of one thread for each connection, and what it was asked."""

    def __init__(self, answer: Answer, *, close_each: bool = False) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._close_each = close_each
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
            self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            while data := peer.recv(65536):
                self.requests.append(data)
                peer.sendall(self._respond(data))
                if self._close_each:
                    return

    def _respond(self, data: bytes) -> bytes:
        if data.startswith(b"DELETE") or b"notifications/" in data:
            return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
        request_id = data.partition(b'"id": ')[2][:7]
        if b'"initialize"' in data:
            return as_json(RESULT % request_id, b"Mcp-Session-Id: Secret-1\r\n")
        return self._answer(request_id)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def serving(answer: Answer, *, close_each: bool = False) -> Iterator[Served]:
    server = Served(answer, close_each=close_each)
    try:
        yield server
    finally:
        server.close()


def run(server: Served, calls: int = 6, **clients: object) -> Outcome:
    load = Load(msgspec.convert({"url": server.url, "sessions": 2, **clients}, type=Clients))
    started = load.do(Start())
    assert started.errors == 0, started.error
    assert len(started.latencies) == 2
    outcome = load.do(Call(calls))
    load.do(End())
    return outcome


@pytest.mark.parametrize("frame", [as_json, as_events])
def test_every_call_is_timed_whatever_the_answer_looks_like(frame: Callable[[bytes], bytes]) -> None:
    with serving(lambda request_id: frame(RESULT % request_id)) as server:
        outcome = run(server)

    assert (len(outcome.latencies), outcome.errors) == (6, 0)
    assert 0 < max(outcome.latencies) <= outcome.seconds


def test_calls_are_made_in_the_session_that_was_begun_and_it_is_deleted() -> None:
    with serving(lambda request_id: as_json(RESULT % request_id)) as server:
        run(server)

    calls = [request for request in server.requests if b"tools/call" in request]
    assert all(b"\r\nmcp-session-id: Secret-1\r\n" in request for request in calls)
    assert len({request.partition(b'"id": ')[2][:7] for request in calls}) == 6
    assert sum(request.startswith(b"DELETE") for request in server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda request_id: as_json(b'{"id":%b,"error":{"code":-1}}' % request_id), "error"),
        (lambda request_id: as_json(b'{"id":%b,"result":{"isError":true}}' % request_id), "isError"),
        (lambda _: as_json(RESULT % b"7"), "another request"),
        (lambda _: b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "HTTP 503"),
        (lambda _: as_json(b"[]"), "no result"),
    ],
    ids=["an error", "a tool that failed", "another's answer", "a refusal", "nothing of the kind"],
)
def test_what_is_no_result_counts_as_an_error(answer: Answer, reason: str) -> None:
    with serving(answer) as server:
        outcome = run(server, calls=2)

    assert outcome.errors == 2
    assert reason in (outcome.error or "")


def test_a_server_that_closes_each_connection_is_asked_on_new_ones() -> None:
    with serving(lambda request_id: as_json(RESULT % request_id), close_each=True) as server:
        outcome = run(server)

    assert (len(outcome.latencies), outcome.errors) == (6, 0)


def test_a_client_that_is_refused_the_stateless_revision_falls_back() -> None:
    def answer(request_id: bytes) -> bytes:
        return as_json(RESULT % request_id)

    with serving(answer) as server:
        run(server, mode="auto")

    asked = [name for request in server.requests for name in (b"server/discover", b'"initialize"') if name in request]
    assert asked.count(b"server/discover") == 2
    assert asked.count(b'"initialize"') == 2


def test_turns_are_taken_when_each_connection_may_make_so_many_calls() -> None:
    with serving(lambda request_id: as_json(RESULT % request_id)) as server:
        load = Load(Clients(server.url, sessions=3))
        load.do(Start())
        outcome = load.do(Call(6, each=2, at_once=1))
        load.do(End())

    assert len(outcome.latencies) == 6


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("frame", [as_json, as_events])
def test_a_response_may_come_in_pieces_of_any_size(frame: Callable[[bytes], bytes], size: int) -> None:
    body = RESULT % b"1000000"
    data, scanner = frame(body), Scanner()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]

    answers = [scanner.feed(piece) for piece in pieces]

    assert answers[:-1] == [None] * (len(pieces) - 1)
    assert answers[-1] is not None
    assert answers[-1].fault(b"1000000") is None
    assert body in answers[-1].body


def test_a_response_without_a_length_ends_with_its_connection() -> None:
    scanner = Scanner()

    assert scanner.feed(b"HTTP/1.1 200 OK\r\n\r\npart") is None
    assert (scanner.end() or pytest.fail("not complete")).body == b"part"


def test_the_name_of_a_header_has_no_case_and_its_value_has() -> None:
    answer = Scanner().feed(as_json(b"{}", b"MCP-Session-Id: AbC\r\n"))

    assert answer is not None
    assert answer.header(b"mcp-session-id") == b"AbC"


def test_requests_of_a_kind_are_as_long_whatever_their_id() -> None:
    template = Requests("http://127.0.0.1:1/mcp").call("echo", {}, "s")

    assert len(template.numbered(b"%d" % FIRST_ID)) == len(template.numbered(b"9999999"))


def test_a_plan_is_read_with_its_defaults() -> None:
    assert decode_clients(b'{"url": "http://x/mcp"}') == Clients("http://x/mcp")
    assert decode_step(b'{"step": "call", "calls": 5, "watch": [7]}') == Call(5, watch=[7])
    assert decode_step(b'{"step": "end"}') == End()


@pytest.mark.parametrize("line", [b'{"step": "call"}', b'{"step": "jump"}', b"{}"])
def test_a_step_that_makes_no_sense_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_step(line)


def test_a_client_with_a_typing_error_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="session"):
        decode_clients(b'{"url": "http://x/mcp", "session": 2}')


def test_the_program_answers_each_step_with_a_line() -> None:
    with serving(lambda request_id: as_json(RESULT % request_id)) as server:
        plan = [
            msgspec.json.encode(line) for line in (Clients(server.url), Start(), Call(3), Call(None, pause=0.01), End())
        ]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load"],
            input=b"\n".join(plan),
            capture_output=True,
            check=True,
            timeout=30,
        )

    outcomes = [msgspec.json.decode(line, type=Outcome) for line in done.stdout.splitlines()]
    assert [outcome.errors for outcome in outcomes] == [0, 0, 0, 0]
    assert len(outcomes[1].latencies) == 3
