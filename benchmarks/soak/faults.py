"""What happens to backends in the real world: they are killed, restarted, frozen, taken out of the configuration."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import trio

from ..proc import children_of
from ..processes import URL

PAUSE = 4.0
"""Seconds between two faults."""


class BackendProcess:
    """A backend that comes back at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Run it; returns when it listens."""
        command = [sys.executable, "-m", "benchmarks.soak.backend", "--port", str(self.port)]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        seen = b""
        while (match := URL.search(seen)) is None or b"\n" not in seen:
            chunk = await self._process.stdout.receive_some()
            if not chunk:
                raise RuntimeError("the backend ended before it was ready")
            seen += chunk
        self.port = int(match[0].rpartition(b":")[2].partition(b"/")[0])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    def freeze(self, *, frozen: bool) -> None:
        """Have it do nothing, or go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)


class Faults:
    """Does harm to one thing at a time, round by round in another order, which the seed decides."""

    def __init__(self, gateway: int, config: Path, a: BackendProcess, b: BackendProcess, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._gateway = gateway
        self._config = config
        self._a = a
        self._b = b
        self._random = random.Random(seed)

    async def run(self) -> None:
        """Do harm until cancelled; then all is well again."""
        kinds = (self._restart, self._freeze, self._kill_child, self._reload)
        try:
            while True:
                for harm in self._random.sample(kinds, len(kinds)):
                    await trio.sleep(PAUSE)
                    await harm()
                    self.counts[harm.__name__.strip("_")] += 1
        finally:
            self._b.freeze(frozen=False)

    async def _restart(self) -> None:
        with trio.CancelScope(shield=True):
            await self._a.kill()
            await trio.sleep(self._random.uniform(0.0, 2.0))
            await self._a.start()

    async def _freeze(self) -> None:
        self._b.freeze(frozen=True)
        await trio.sleep(self._random.uniform(0.5, 3.0))
        self._b.freeze(frozen=False)

    async def _kill_child(self) -> None:
        children = await trio.to_thread.run_sync(children_of, self._gateway)
        if children:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(children), signal.SIGKILL)

    async def _reload(self) -> None:
        """The child's backend goes, and comes back."""
        text = self._config.read_text()
        self._config.write_text("\n".join(line for line in text.splitlines() if "name: n," not in line) + "\n")
        os.kill(self._gateway, signal.SIGHUP)
        await trio.sleep(1.0)
        with trio.CancelScope(shield=True):
            self._config.write_text(text)
            os.kill(self._gateway, signal.SIGHUP)
            await trio.sleep(0.5)
