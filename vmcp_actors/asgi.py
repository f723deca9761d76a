"""The gateway as an ASGI application for `hypercorn -k trio vmcp_actors.asgi:app`.

The environment variable `VMCP_CONFIG` names the configuration file, which is read again when it changes; without it
the demo backends are served. The gateway is opened in the ASGI lifespan, so the server must support that, as hypercorn
does.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from pathlib import Path

from .collecting import collecting
from .config import load_config
from .errors import ConfigError
from .gateway import Gateway, demo_config, open_gateway
from .reloading import ConfigFollower, following
from .server.http import Receive, Scope, Send
from .server.sockets import bound_own_listeners
from .serving import contain_connections

logger = logging.getLogger(__name__)

__all__ = ["GatewayApp", "app"]


class GatewayApp:
    """An ASGI application whose lifespan opens a gateway, and at the end closes it, draining every session."""

    def __init__(self) -> None:
        self._gateway: Gateway | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._gateway is None:
            raise RuntimeError("the gateway is not open: the server did not run the ASGI lifespan")
        else:
            await self._gateway.app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        path = os.environ.get("VMCP_CONFIG")
        try:
            config = load_config(path) if path else demo_config()
        except ConfigError as error:
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        for warning in config.warnings:
            logger.warning(warning)
        async with open_gateway(config) as gateway:
            self._gateway = gateway
            bound_own_listeners(config.server.send_timeout)
            async with collecting(gateway.supervisor.statistics):
                await send({"type": "lifespan.startup.complete"})
                async with following(ConfigFollower(gateway, Path(path))) if path else nullcontext():
                    await receive()  # lifespan.shutdown
                await gateway.drain()
        self._gateway = None
        await send({"type": "lifespan.shutdown.complete"})

    def __repr__(self) -> str:
        return f"<GatewayApp {self._gateway!r}>"


contain_connections()
app = GatewayApp()
