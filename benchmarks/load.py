"""Makes load from a process of its own: `python -m benchmarks.load`, JSON lines in and out (see `plan`).

One thread, ready-made requests, and no more reading of responses than it takes to find their end and whether they are
results: what one core can do with that is measured against a server that answers a constant.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from .driver import Connection, Driver, Exchange, draw
from .plan import Call, Clients, End, Listen, Outcome, Send, Start, Step, decode_clients, decode_step
from .proc import cpu_seconds
from .requests import FIRST_ID, STATELESS, Requests, Template


class Session:
    """One client: its session with the server, and its connections."""

    def __init__(self, requests: Requests, connections: int) -> None:
        self.id = ""
        self.stateless = False
        self.connections = [Connection(requests.address) for _ in range(connections)]
        self.stream = Connection(requests.address)

    def close(self) -> None:
        """Close the connections."""
        for connection in (*self.connections, self.stream):
            connection.close()


class Load:
    """Does the steps of a plan.

    Args:
        interrupts: the descriptor that the next step comes from, for calls without end.
    """

    def __init__(self, clients: Clients, interrupts: int | None = None) -> None:
        self._clients = clients
        self._requests = Requests(clients.url)
        self._driver = Driver(interrupts)
        self._sessions = [Session(self._requests, clients.connections) for _ in range(clients.sessions)]
        self._numbers = itertools.count(FIRST_ID)
        self._latencies: list[float] = []
        self._faults: list[str] = []
        self._cpu = 0.0

    def do(self, step: Step) -> Outcome:
        """Do a step, and say what came of it. Raises OSError or `Broken` when a connection breaks."""
        self._latencies, self._faults, self._cpu = [], [], 0.0
        self._driver.resume_interrupts()
        began = time.perf_counter()
        seconds = self._do(step)
        if seconds is None:
            seconds = time.perf_counter() - began
        first = self._faults[0] if self._faults else None
        return Outcome(seconds, self._latencies, self._cpu, len(self._faults), first)

    def _do(self, step: Step) -> float | None:
        match step:
            case Start():
                exchanges = ((session.connections[0], self._start(session)) for session in self._sessions)
                self._driver.run(exchanges, step.at_once)
            case Call():
                return self._call(step)
            case Send():
                for session in self._sessions:
                    for connection, number in zip(session.connections, self._numbers, strict=False):
                        connection.send(self._template(session).numbered(b"%d" % number))
            case Listen():
                for session in self._sessions:
                    session.stream.send(self._requests.listen(session.id))
            case End():
                self._end()
        return None

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _start(self, session: Session) -> Exchange:
        """The handshake; the latency is that until its answer is there."""
        mode = self._clients.mode
        began = time.perf_counter()
        if mode == "auto":
            found = yield self._requests.discover()
            session.stateless = found.status == 200 and STATELESS.encode() in found.body and b'"result":' in found.body
        if mode == "bare" or session.stateless:
            self._latencies.append(time.perf_counter() - began)
            return
        answer = yield self._requests.initialize()
        self._latencies.append(time.perf_counter() - began)
        fault = answer.fault(b"%d" % FIRST_ID)
        if fault is not None:
            self._faults.append(fault)
            return
        session.id = (answer.header(b"mcp-session-id") or b"").decode()
        yield self._requests.initialized(session.id)

    def _end(self) -> None:
        """Calls that have no answer yet lose their connections, then the sessions are deleted over new ones."""
        for session in self._sessions:
            session.close()
        self._driver.run((session.connections[0], self._delete(session)) for session in self._sessions if session.id)
        for session in self._sessions:
            session.close()

    def _delete(self, session: Session) -> Exchange:
        yield self._requests.delete(session.id)
        session.id = ""

    # --- calls --------------------------------------------------------------------------------------------------------

    def _template(self, session: Session) -> Template:
        clients = self._clients
        if session.stateless:
            return self._requests.stateless_call(clients.tool, clients.arguments)
        return self._requests.call(clients.tool, clients.arguments, session.id)

    def _call(self, step: Call) -> float:
        numbers: Iterator[int] = itertools.islice(self._numbers, step.calls)
        if step.calls is None:
            numbers = draw(self._numbers, lambda: self._driver.interrupted)
        exchanges = [
            (connection, self._calls(self._template(session), itertools.islice(numbers, step.each), step.pause))
            for session in self._sessions
            for connection in session.connections
        ]
        used = sum(map(cpu_seconds, step.watch))
        began = time.perf_counter()
        self._driver.run(exchanges, step.at_once)
        seconds = time.perf_counter() - began
        self._cpu = sum(map(cpu_seconds, step.watch)) - used
        return seconds

    def _calls(self, template: Template, numbers: Iterable[int], pause: float) -> Exchange:
        clock: Callable[[], float] = time.perf_counter
        checked = self._clients.mode != "bare"
        latencies, faults = self._latencies, self._faults
        for number in numbers:
            request_id = b"%d" % number
            request = template.numbered(request_id)
            began = clock()
            answer = yield request
            latencies.append(clock() - began)
            fault = answer.fault(request_id if checked else b"")
            if fault is not None:
                faults.append(fault)
            if pause:
                time.sleep(pause)


def raise_limit() -> int:
    """Allow this process, and those that it starts, as many descriptors as it may have; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def lines(descriptor: int) -> Iterator[bytes]:
    """Lines, read byte by byte: what was read ahead could not be waited for with `epoll`."""
    line = b""
    while byte := os.read(descriptor, 1):
        line += byte
        if byte == b"\n":
            yield line
            line = b""
    if line:
        yield line


def main() -> None:
    """Read a plan, and answer each of its steps with a line."""
    raise_limit()
    plan = lines(sys.stdin.fileno())
    load = Load(decode_clients(next(plan)), sys.stdin.fileno())
    for line in plan:
        try:
            outcome = load.do(decode_step(line))
        except Exception as error:
            outcome = Outcome(0.0, [], errors=1, error=f"{type(error).__name__}: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
