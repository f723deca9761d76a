"""The ASGI application: checks who is asking, then the MCP endpoint or the pages for operators."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..errors import VmcpError
from ..sessions import SessionSupervisor
from ..settings import ServerSettings
from .admin import admin_app
from .endpoint import Endpoint
from .guard import Guard
from .http import ClientGone, Receive, Scope, Send, headers_of, send_error

logger = logging.getLogger(__name__)

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class InternalError(VmcpError):
    """A bug of ours, as far as a client may know of it."""


def create_app(supervisor: SessionSupervisor, settings: ServerSettings, *, name: str) -> Asgi:
    """The application for a running supervisor. It owns nothing: sessions live in the supervisor's nursery.

    Implements the ASGI lifespan as a formality; whoever runs the server opens the supervisor around it.
    """
    endpoint = Endpoint(supervisor, settings, name=name)
    admin = admin_app(supervisor, name=name)
    guard = Guard(settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # the server makes HTTP 403 of it
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"ASGI scope {scope['type']}")
        headers = headers_of(scope)
        started = False

        async def send_once(event: dict[str, object]) -> None:
            nonlocal started
            started = started or event["type"] == "http.response.start"
            await send(event)

        try:
            guard.check(scope, headers)
            if scope["path"] == settings.path:
                await endpoint.serve(scope, headers, receive, send_once)  # type: ignore[arg-type]
            else:
                await admin(scope, receive, send_once)  # type: ignore[arg-type]
        except VmcpError as error:
            await send_error(send, error)
        except ClientGone:
            logger.debug("a client left before its request was complete")
        except Exception:
            logger.exception("a request failed unexpectedly")
            if not started:
                await send_error(send, InternalError("Internal error"))

    return app


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
