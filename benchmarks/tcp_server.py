"""A small HTTP/1.1 server for backends that must cost little: one thread, epoll, no chunked requests."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import frozen

CHUNK: Final = 1 << 16
TURN: Final = 16
"""Pieces that one connection may send before others have their turn."""


@frozen
class Request:
    """One request. `head` is in lower case, from the first header on."""

    method: bytes
    path: bytes
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes:
        """The value of a header, or nothing."""
        start = self.head.find(b"\r\n" + name + b":")
        return self.head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b""


class Connection:
    """One connection of a client. `send` never blocks; what does not fit waits for its turn."""

    def __init__(self, peer: socket.socket, poll: select.epoll) -> None:
        self.closed = False
        self._socket = peer
        self._poll = poll
        self._waiting = False
        self._unread = b""
        self._unsent: deque[memoryview] = deque()
        self._source: Callable[[], bytes | None] | None = None

    def send(self, data: bytes) -> None:
        """Send something after all that was sent before."""
        if not self.closed:
            self._unsent.append(memoryview(data))
            if not self._waiting:
                self.flush()

    def stream(self, source: Callable[[], bytes | None]) -> None:
        """Send what the source gives, as fast as the client takes it, until it gives None."""
        self._source = source
        self.flush()

    def flush(self) -> None:
        """Send what can be sent now."""
        for _ in range(TURN):
            if not self._unsent and self._source is not None:
                data = self._source()
                if data is None:
                    self._source = None
                else:
                    self._unsent.append(memoryview(data))
            if not self._unsent or not self._push():
                break
        waiting = bool(self._unsent) or self._source is not None
        if waiting != self._waiting and not self.closed:
            self._waiting = waiting
            self._poll.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if waiting else 0))

    def _push(self) -> bool:
        try:
            sent = self._socket.send(self._unsent[0])
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        rest = self._unsent.popleft()[sent:]
        if rest:
            self._unsent.appendleft(rest)
        return True

    def receive(self) -> list[Request]:
        """The requests that are complete. Closes the connection when the client has."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        self._unread += data
        requests = []
        while (request := self._take()) is not None:
            requests.append(request)
        return requests

    def _take(self) -> Request | None:
        end = self._unread.find(b"\r\n\r\n")
        if end < 0:
            return None
        line, _, rest = self._unread[:end].partition(b"\r\n")
        head = b"\r\n" + rest.lower()
        position = head.find(b"\r\ncontent-length:")
        length = int(head[position + 17 :].partition(b"\r\n")[0]) if position >= 0 else 0
        complete = end + 4 + length
        if len(self._unread) < complete:
            return None
        method, path, _ = line.split(b" ", 2)
        body = self._unread[end + 4 : complete]
        self._unread = self._unread[complete:]
        return Request(method, path, head, body)

    def close(self) -> None:
        """Close it. Idempotent."""
        if not self.closed:
            self.closed = True
            self._source = None
            self._unsent.clear()
            self._socket.close()


class Server:
    """Listens on loopback.

    Args:
        handle: is given each request, and answers it whenever it likes.
    """

    def __init__(self, handle: Callable[[Connection, Request], None], port: int = 0) -> None:
        self.accepted = 0
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def url(self) -> str:
        """Where the MCP endpoint is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after some time."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for descriptor, event in self._poll.poll(timeout):
                connection = self._connections.get(descriptor)
                if connection is None:
                    self._accept()
                    continue
                if event & select.EPOLLOUT:
                    connection.flush()
                if event & ~select.EPOLLOUT and not connection.closed:
                    for request in connection.receive():
                        self._handle(connection, request)
                if connection.closed:
                    del self._connections[descriptor]
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # it has left again, or there are too many of them
            return
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        self._connections[peer.fileno()] = Connection(peer, self._poll)
        self._poll.register(peer, select.EPOLLIN)
