"""Drives many HTTP connections from one thread: for each a generator of requests, which is sent the answers."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Generator, Iterable
from typing import Final

from .responses import Answer, Scanner

Exchange = Generator[bytes, Answer, None]

CHUNK: Final = 1 << 16
LARGE_CHUNK: Final = 1 << 20
"""Read at a time when a large response is under way; a buffer of that size costs too much for small ones."""


class Broken(Exception):
    """The server closed a connection, and owed an answer."""


class Connection:
    """One connection, opened when it is needed. Requests are small, so they fit into the socket's buffer at once."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._scanner = Scanner()
        self._request = b""
        self._repeated = False

    @property
    def descriptor(self) -> int:
        """The socket's, while it is open."""
        assert self._socket is not None
        return self._socket.fileno()

    def send(self, request: bytes) -> bool:
        """Send a request. Returns whether a new socket had to be opened for it."""
        self._request, self._repeated = request, False
        if self._socket is not None:
            try:
                self._socket.sendall(request)
            except OSError:
                self.close()
            else:
                return False
        self._open()
        return True

    def _open(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._socket.sendall(self._request)

    def receive(self) -> Answer | None:
        """Read what is there. Returns the answer when it is complete. Raises `Broken`, or BlockingIOError."""
        assert self._socket is not None
        try:
            data = self._socket.recv(LARGE_CHUNK if self._scanner.wanted > CHUNK else CHUNK)
        except ConnectionResetError:  # as of a kept connection that was closed before the request had reached it
            return self._ended(None)
        if data:
            answer = self._scanner.feed(data)
            if answer is not None and answer.closes:
                self.close()
            return answer
        return self._ended(self._scanner.end())

    def _ended(self, answer: Answer | None) -> Answer | None:
        if answer is None and (self._scanner.begun or self._repeated):
            raise Broken("the server closed the connection before its answer was complete")
        self.close()
        return answer

    def repeat(self) -> None:
        """Send the request again: the kept connection was closed before the request had reached it."""
        self._repeated = True
        self._open()

    def close(self) -> None:
        """Close it. The next request opens another. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._scanner = Scanner()

    @property
    def closed(self) -> bool:
        """Whether there is no socket."""
        return self._socket is None


class Driver:
    """Runs exchanges.

    Args:
        interrupts: a descriptor; `interrupted` becomes true when it can be read.
    """

    def __init__(self, interrupts: int | None = None) -> None:
        self.interrupted = False
        self._interrupts = interrupts
        self._at: dict[int, tuple[Connection, Exchange]] = {}
        self._poll = select.epoll()
        if interrupts is not None:
            try:
                self._poll.register(interrupts, select.EPOLLIN)
            except PermissionError:  # a file, which can always be read
                self._interrupts, self.interrupted = None, True

    def run(self, exchanges: Iterable[tuple[Connection, Exchange]], at_once: int = 0) -> None:
        """Run the exchanges to their end, so many at the same time; all at once when it is 0."""
        waiting = iter(exchanges)
        active = self._fill(waiting, at_once or -1)
        while active:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._interrupts:
                    self.interrupted = True
                    self._poll.unregister(descriptor)
                    continue
                # What was closed in this turn may still be reported.
                if descriptor in self._at and not self._advance(descriptor):
                    active += self._fill(waiting, 1) - 1

    def resume_interrupts(self) -> None:
        """What interrupted has been read."""
        if self._interrupts is not None and self.interrupted:
            self.interrupted = False
            self._poll.register(self._interrupts, select.EPOLLIN)

    def _fill(self, waiting: Iterable[tuple[Connection, Exchange]], count: int) -> int:
        """Begin so many more exchanges, as far as there are any; how many were begun."""
        begun = 0
        for connection, exchange in waiting:
            try:
                request = next(exchange)
            except StopIteration:
                continue
            self._send(connection, exchange, request)
            begun += 1
            if begun == count:
                break
        return begun

    def _advance(self, descriptor: int) -> bool:
        """Read what came, and go on. Returns whether the exchange goes on."""
        connection, exchange = self._at[descriptor]
        try:
            answer = connection.receive()
        except BlockingIOError:
            return True
        if connection.closed:
            del self._at[descriptor]
            if answer is None:
                connection.repeat()
                self._register(connection, exchange)
                return True
        if answer is None:
            return True
        try:
            request = exchange.send(answer)
        except StopIteration:
            self._forget(descriptor)
            return False
        self._send(connection, exchange, request)
        return True

    def _send(self, connection: Connection, exchange: Exchange, request: bytes) -> None:
        before = None if connection.closed else connection.descriptor
        if connection.send(request):
            if before is not None:
                self._at.pop(before, None)
            self._register(connection, exchange)
        elif self._at.get(connection.descriptor, (None, None))[1] is not exchange:
            self._register(connection, exchange)

    def _register(self, connection: Connection, exchange: Exchange) -> None:
        self._poll.register(connection.descriptor, select.EPOLLIN)
        self._at[connection.descriptor] = (connection, exchange)

    def _forget(self, descriptor: int) -> None:
        if self._at.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)


def draw(numbers: Iterable[int], until: Callable[[], bool]) -> Generator[int]:
    """Numbers, until there is a reason to stop."""
    for number in numbers:
        if until():
            return
        yield number
