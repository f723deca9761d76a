"""`vmcp-actors serve`: a server around a gateway, ours or hypercorn, and an orderly end."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets
from hypercorn.trio import serve as hypercorn_serve
from rich.console import Console

from ..collecting import collecting
from ..config import Config
from ..gateway import Gateway, open_gateway
from ..reloading import ConfigFollower, following
from ..server.http1 import Limits
from ..server.listening import serve_http1
from ..server.sockets import bound_unacknowledged, hang_up
from ..serving import contain_connections
from ..settings import ServerSettings

logger = logging.getLogger(__name__)

ENDS = (signal.SIGINT, signal.SIGTERM)
STREAM_GRACE = 2.0
"""Seconds that responses get to be written after every session has ended."""


class BoundedConfig(HypercornConfig):
    """hypercorn's configuration, with sockets that give up on a client that no longer reads."""

    send_timeout: float = 20.0

    def create_sockets(self) -> Sockets:
        """hypercorn's sockets, bounded. Raises OSError that names the address when it cannot be used."""
        try:
            sockets = super().create_sockets()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"cannot listen on {', '.join(self.bind)}: {reason}") from error
        for listener in (*sockets.secure_sockets, *sockets.insecure_sockets):
            bound_unacknowledged(listener, self.send_timeout)
        return sockets


def hypercorn_config(settings: ServerSettings) -> HypercornConfig:
    """How hypercorn is run by `serve`."""
    config = BoundedConfig()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config.bind = [f"{host}:{settings.port}"]
    config.send_timeout = settings.send_timeout
    config.graceful_timeout = STREAM_GRACE
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = sys.maxsize
    config.include_server_header = False
    config.loglevel = "WARNING"
    config.accesslog = None
    config.h11_max_incomplete_size = 64 * 1024
    return config


async def serve_gateway(
    config: Config,
    console: Console,
    *,
    path: Path | None = None,
    adjust: Callable[[Config], Config] = lambda config: config,
) -> None:
    """Serve until a signal, and follow the configuration file. Raises OSError when the address cannot be used.

    Args:
        path: where the configuration is from; None for the demo.
        adjust: what options change in the configuration, and in each that is read later.
    """
    for warning in config.warnings:
        logger.warning(warning)
    async with open_gateway(config) as gateway, AsyncExitStack() as stack:
        follower = ConfigFollower(gateway, path, adjust=adjust) if path is not None else None
        if follower is not None:
            await stack.enter_async_context(following(follower))
        await stack.enter_async_context(collecting(gateway.supervisor.statistics))
        await serve_until_signalled(
            gateway,
            on_ready=lambda binds: _announce(console, config, binds, demo=path is None),
            on_hangup=follower.reload if follower is not None else None,
        )
    console.print("ended", highlight=False)


async def serve_until_signalled(
    gateway: Gateway,
    *,
    on_ready: Callable[[list[str]], None],
    on_hangup: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve the gateway until SIGINT or SIGTERM, then end it in order. `on_hangup` is what SIGHUP does.

    First sessions are drained while the server still serves, so that running calls are answered and event streams end;
    then the server stops. A second signal cuts the draining short.
    """
    stop = trio.Event()
    terminal = sys.stderr.isatty()
    with trio.open_signal_receiver(*ENDS, *([signal.SIGHUP] if on_hangup else ())) as signals:
        async with trio.open_nursery() as nursery:
            config = hypercorn_config(gateway.config.server)
            binds: list[str] = await nursery.start(_serve, gateway, config, stop, nursery.cancel_scope)
            on_ready(binds)
            number = await anext(signals)
            while number not in ENDS and on_hangup is not None:
                if terminal and not sys.stderr.isatty():
                    break  # the terminal was closed: that is told by SIGHUP, too
                await on_hangup()
                number = await anext(signals)
            logger.info("%s: draining", signal.Signals(number).name)
            async with trio.open_nursery() as draining:
                draining.start_soon(_cut_short_on_signal, signals, gateway)
                await gateway.drain()
                draining.cancel_scope.cancel("drained")
            stop.set()
            nursery.start_soon(_hang_up_on_the_stuck, binds)


async def _hang_up_on_the_stuck(binds: list[str]) -> None:
    """hypercorn's writes are shielded: a client that does not read is disconnected from below."""
    await trio.sleep(STREAM_GRACE)
    while True:
        for bind in binds:
            hang_up(int(bind.rpartition(":")[2]))
        await trio.sleep(0.1)


async def _serve(
    gateway: Gateway,
    config: HypercornConfig,
    stop: trio.Event,
    whole: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    app: Any = gateway.app
    if gateway.config.server.http == "hypercorn":
        contain_connections()
        await hypercorn_serve(app, config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")
    else:
        await _serve_fast(app, config, gateway.config.server, stop, task_status)
    whole.cancel("the server has ended")


async def _serve_fast(
    app: Any,
    config: HypercornConfig,
    settings: ServerSettings,
    stop: trio.Event,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    listeners = []
    for sock in config.create_sockets().insecure_sockets:
        sock.listen(config.backlog)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    limits = Limits(idle_timeout=config.keep_alive_timeout, send_timeout=settings.send_timeout)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_http1, app, listeners, limits=limits, stop=stop, grace=STREAM_GRACE)
        await nursery.start(serve)
        task_status.started([_bind(listener) for listener in listeners])


def _bind(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _cut_short_on_signal(signals: AsyncIterator[int], gateway: Gateway) -> None:
    async for number in signals:
        if number in ENDS:
            logger.warning("%s again: cancelling what still runs", signal.Signals(number).name)
            await gateway.drain(drain=0.0)


def _announce(console: Console, config: Config, binds: list[str], *, demo: bool) -> None:
    """Say where it is and what to paste into a client."""
    url = f"{binds[0]}{config.server.path}"
    names = ", ".join(spec.name for spec in config.backends)
    lines = [
        f"{config.name} serves {len(config.backends)} backends ({names}) at {url}",
        "For Claude Code:   claude mcp add --transport http vmcp " + url,
        "For Cursor, VS Code and others (mcp.json):",
        f'  {{"mcpServers": {{"vmcp": {{"type": "http", "url": "{url}"}}}}}}',
        "For the Inspector: npx @modelcontextprotocol/inspector --cli " + url + " --transport http --method tools/list",
    ]
    if demo:
        lines.insert(1, "No --config was given: these are the demo backends.")
    lines.append("Ctrl-C ends it, and every session with it.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
