"""What both ways to run under hypercorn need: that no connection can end the server.

hypercorn 0.18 runs all connections in one nursery, and lets exceptions of one out into it: a client that half-closes
its connection while an early refusal is written (two tasks then use the stream: `trio.BusyResourceError`) ends the
process for everybody. pgjones/hypercorn #203 is of the same kind.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import hypercorn.trio.run
import trio
from hypercorn.events import Closed, Event, Updated
from hypercorn.trio.tcp_server import TCPServer

logger = logging.getLogger(__name__)


class ContainedServer(TCPServer):
    """hypercorn's handler of one connection; what goes wrong in it ends this connection only."""

    _client_gone = False

    async def protocol_send(self, event: Event) -> None:
        """Write something. While another task of the connection closes it, there is nobody to write to.

        The timer for connections that are kept alive is not started for a client that is gone.
        """
        if self._client_gone and isinstance(event, Updated):
            return
        try:
            await super().protocol_send(event)
        except trio.BusyResourceError:
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        """Read until the client is gone; then nobody is idle any more.

        The timer for connections that are kept alive would hold this one, its descriptor and its task, until it fires.
        """
        await super()._read_data()
        self._client_gone = True
        await self.idle_task.stop()

    async def run(self) -> None:
        """Serve the connection until it ends. Raises nothing but cancellation."""
        try:
            await super().run()
        except* Exception as errors:
            logger.info("a connection was given up: %s", _summary(errors))
        finally:
            with trio.move_on_after(1.0, shield=True), suppress(Exception):
                await trio.aclose_forcefully(self.stream)


def contain_connections() -> None:
    """Have hypercorn serve with `ContainedServer`, in this process. Before it starts to serve; idempotent.

    It has no setting for this, so the name that its worker uses is replaced.
    """
    vars(hypercorn.trio.run)["TCPServer"] = ContainedServer


def _summary(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
