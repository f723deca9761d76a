"""A TCP connection as a trio stream with few steps, for both edges: what can be done at once is done at once.

`trio.SocketStream` asks the scheduler after every system call, and tries to read before it waits. On the path of every
tool call that is four passes through the scheduler, and two failed reads.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

RECEIVE_SIZE: Final = 64 * 1024
LARGE_RECEIVE_SIZE: Final = 128 * 1024
"""How much is read at once while a peer sends faster than it is read."""


class TcpStream(trio.abc.HalfCloseableStream):
    """Sending is a checkpoint only if it has to wait; receiving always is one. Both raise as `trio.SocketStream`.

    At most one task sends, and one receives, at a time.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._size = RECEIVE_SIZE

    @classmethod
    def of(cls, stream: trio.SocketStream) -> TcpStream:
        """Take over the connection of a stream, with its options. The stream must not be used any more."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send as much as is accepted now. Returns the number of bytes, which may be 0."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. If cancelled, nobody knows how much was sent."""
        with memoryview(data) as rest:
            sent = self.send_nowait(rest)
            while sent < len(rest):
                await self.wait_send_all_might_not_block()
                sent += self.send_nowait(rest[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something would be accepted."""
        await self._wait(trio.lowlevel.wait_writable)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, b"" at the end; usually nothing has yet, so it waits before it reads."""
        size = max_bytes or self._size
        while True:
            await self._wait(trio.lowlevel.wait_readable)
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._translated(error) from error
            self._size = LARGE_RECEIVE_SIZE if len(data) == size else RECEIVE_SIZE
            return data

    def is_readable(self) -> bool:
        """Whether something has come that nobody has read, or the end."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def send_eof(self) -> None:
        """Send the end; receiving goes on. Not a checkpoint."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Close at once. A task that waits is told with `ClosedResourceError`. Idempotent."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def _wait(self, until: object) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed")
        await until(self._socket)  # type: ignore[operator]

    def _translated(self, error: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this connection was closed")
        return trio.BrokenResourceError(f"connection broken: {error}")

    def __repr__(self) -> str:
        return f"<TcpStream {'closed' if self._socket.fileno() < 0 else self._socket.fileno()}>"
