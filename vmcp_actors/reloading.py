"""Keeps a running gateway in step with its configuration file."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .config import Config, load_config
from .errors import ConfigError
from .gateway import Gateway

logger = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between two looks at the file. Looking works where notices of changes do not: mounts, links, containers."""

Stamp = tuple[int, int, int] | None


class ConfigFollower:
    """Reloads the gateway when its file has changed, or when asked to. A file that cannot be used changes nothing.

    Args:
        adjust: what to change in every configuration that is read, as options of the command line do.
    """

    def __init__(self, gateway: Gateway, path: Path, *, adjust: Callable[[Config], Config] = lambda config: config):
        self._gateway = gateway
        self._path = path
        self._adjust = adjust
        self._stamp = _stamp_of(path)
        self._lock = trio.Lock()

    async def watch(self) -> None:
        """Reload whenever the file is another one than before and has stayed so for an interval, until cancelled."""
        while True:
            await trio.sleep(POLL_INTERVAL)
            seen = await trio.to_thread.run_sync(_stamp_of, self._path)
            if seen == self._stamp:
                continue
            while True:  # it may still be being written
                await trio.sleep(POLL_INTERVAL / 2)
                now = await trio.to_thread.run_sync(_stamp_of, self._path)
                if now == seen:
                    break
                seen = now
            await self.reload()

    async def reload(self) -> bool:
        """Read the file and go by it. Returns whether it could be used; if not, the log says why."""
        async with self._lock:
            self._stamp = await trio.to_thread.run_sync(_stamp_of, self._path)
            problems: Sequence[str]
            try:
                config = self._adjust(await trio.to_thread.run_sync(load_config, self._path))
                self._go_by(config)
            except ConfigError as error:
                problems = error.problems
            except Exception as error:  # a bug of ours in reading must not end the sessions there are
                logger.exception("reading %s failed unexpectedly", self._path)
                problems = (repr(error),)
            else:
                return True
        logger.error("%s was not reloaded, the configuration of before goes on:", self._path)
        for problem in problems:
            logger.error("  %s", problem)
        return False

    def _go_by(self, config: Config) -> None:
        for warning in config.warnings:
            logger.warning(warning)
        for part in self._gateway.reload(config):
            logger.warning("%s: what has changed in `%s` needs a restart", self._path, part)
        names = ", ".join(spec.name for spec in config.backends)
        logger.warning("%s was reloaded: %d backends (%s)", self._path, len(config.backends), names)

    def __repr__(self) -> str:
        return f"<ConfigFollower of {self._path}>"


@asynccontextmanager
async def following(follower: ConfigFollower) -> AsyncIterator[None]:
    """Watch the file while the body runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.watch)
        yield
        nursery.cancel_scope.cancel("the gateway ends")


def _stamp_of(path: Path) -> Stamp:
    """What is different when the file is another one; None while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
