"""What both ways to run under hypercorn need: no connection can end the server, none outlives its client for long.

hypercorn 0.18 runs all connections in one nursery, and lets exceptions of one out into it: a client that half-closes
its connection while an early refusal is written (two tasks then use the stream: `trio.BusyResourceError`) ends the
process for everybody. pgjones/hypercorn #203 is of the same kind. And it has waits that nothing ends when the client
leaves: for the end of a response before a pipelined request is read, for data to send over HTTP/2.
"""

from __future__ import annotations

import logging
import select
import socket
from contextlib import suppress

import hypercorn.trio.run
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper

logger = logging.getLogger(__name__)

LEAVING_GRACE = 5.0
"""Seconds that the tasks of a connection have to notice that it is over, before they are cancelled."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a client that is not being read from."""

_HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class _ClientLeft(Exception):
    """The client has closed its side while we were not reading from it."""


class _PauseOfReading(EventWrapper):
    """hypercorn's event for "read again", whose waiter also learns that the client has left."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__()
        self._poll = select.poll()
        self._poll.register(client.fileno(), _HANG_UP)

    async def wait(self) -> None:
        """Wait until reading may go on. Raises `_ClientLeft` soon after the client has, unread data or not."""
        while not self.is_set():
            with trio.move_on_after(LOOK_INTERVAL):
                await super().wait()
            if not self.is_set() and self._poll.poll(0):
                raise _ClientLeft


class ContainedServer(TCPServer):
    """hypercorn's handler of one connection; what goes wrong in it ends this connection only, and it does end."""

    _client_gone = False

    async def protocol_send(self, event: Event) -> None:
        """Write something. While another task of the connection closes it, there is nobody to write to.

        The timer for connections that are kept alive is not started for a client that is gone.
        """
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._end_soon()
            await super().protocol_send(event)
        elif not (self._client_gone and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        try:
            async with self.send_lock:
                with trio.CancelScope(shield=True):  # half a write would corrupt the connection
                    await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._end_soon()
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        """Read until the client is gone; then nobody is idle any more.

        The timer for connections that are kept alive would hold this one, its descriptor and its task, until it fires.
        """
        protocol = self.protocol.protocol
        if isinstance(protocol, H11Protocol):
            raw = getattr(self.stream, "transport_stream", self.stream)
            vars(protocol)["can_read"] = _PauseOfReading(raw.socket)
        try:
            await super()._read_data()
        except _ClientLeft:
            await self.protocol.handle(Closed())
        self._client_gone = True
        self._end_soon()
        await self.idle_task.stop()

    def _end_soon(self) -> None:
        """The connection is over: what its tasks still wait for will not come."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + LEAVING_GRACE)

    async def run(self) -> None:
        """Serve the connection until it ends. Raises nothing but cancellation."""
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await super().run()
        except* Exception as errors:
            logger.info("a connection was given up: %s", _summary(errors))
        finally:
            with trio.move_on_after(1.0, shield=True), suppress(Exception):
                await trio.aclose_forcefully(self.stream)
            vars(self).pop("protocol", None)  # ends the cycle that it is in


def contain_connections() -> None:
    """Have hypercorn serve with `ContainedServer`, in this process. Before it starts to serve; idempotent.

    It has no setting for this, so the name that its worker uses is replaced.
    """
    vars(hypercorn.trio.run)["TCPServer"] = ContainedServer


def _summary(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
