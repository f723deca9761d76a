"""Accepts connections for an ASGI application, and ends them in order."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import trio

from ..transports.tcp import TcpStream
from .http1 import Connection, Limits

logger = logging.getLogger(__name__)


async def serve_http1(
    app: Any,
    listeners: list[trio.SocketListener],
    *,
    limits: Limits,
    stop: trio.Event,
    grace: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 until `stop`. Then idle connections end, and the others get `grace` seconds for what they do.

    Closes the listeners. Started when it accepts connections. What goes wrong in a connection ends this one only.
    """
    connections: set[Connection] = set()

    async def handle(stream: trio.SocketStream) -> None:
        try:
            client, server = stream.socket.getpeername(), stream.socket.getsockname()
        except OSError:
            return await trio.aclose_forcefully(stream)  # it is gone already
        connection = Connection(TcpStream.of(stream), app, limits, client=client[:2], server=server[:2])
        connections.add(connection)
        try:
            await connection.serve()
        except Exception:
            logger.exception("a connection failed")
        finally:
            connections.discard(connection)

    async with trio.open_nursery() as serving:
        async with trio.open_nursery() as accepting:
            accept = partial(trio.serve_listeners, handle, listeners, handler_nursery=serving)
            await accepting.start(accept)
            task_status.started()
            await stop.wait()
            accepting.cancel_scope.cancel("the server ends")
        for listener in listeners:
            await listener.aclose()
        for connection in connections:
            connection.finish()
        serving.cancel_scope.deadline = trio.current_time() + grace
