"""Makes load from another process, and waits for what comes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from .plan import Call, Clients, End, Listen, Outcome, Send, Start, Step
from .processes import Running

STEP_WITHIN = 300.0


class LoadFailed(Exception):
    """A request was not answered with its result. Figures of such a run would mean nothing."""


class Generator:
    """A load generator that has been started."""

    def __init__(self, process: trio.Process, clients: Clients) -> None:
        self._process = process
        self._clients = clients
        self._received = b""

    async def start(self, *, at_once: int = 0) -> Outcome:
        """Begin the sessions; the latencies are those of their handshakes."""
        return await self._do(Start(at_once))

    async def call(
        self, calls: int, *, watch: Running | None = None, each: int | None = None, at_once: int = 0
    ) -> Outcome:
        """Call the tool so often in all. The processor time is that of the one who is watched."""
        return await self._do(Call(calls, each, at_once, watch=[] if watch is None else [watch.pid]))

    async def begin_calling(self, *, pause: float = 0.0) -> None:
        """Call the tool until `stop_calling`."""
        await self._tell(Call(None, pause=pause))

    async def stop_calling(self) -> Outcome:
        """What came of the calls since `begin_calling`."""
        await self._tell(Call(0))  # whatever the next step is, it ends the one before
        outcome = await self._outcome()
        await self._outcome()
        return outcome

    async def send(self) -> None:
        """Call the tool once on every connection, without waiting for answers."""
        await self._do(Send())

    async def listen(self) -> None:
        """Open the stream of every session for what comes unasked, and never read it."""
        await self._do(Listen())

    async def end(self) -> Outcome:
        """End the sessions."""
        return await self._do(End())

    async def _do(self, step: Step) -> Outcome:
        await self._tell(step)
        return await self._outcome()

    async def _tell(self, step: Step | Clients) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(msgspec.json.encode(step) + b"\n")

    async def _outcome(self) -> Outcome:
        assert self._process.stdout is not None
        with trio.fail_after(STEP_WITHIN):
            while b"\n" not in self._received:
                data = await self._process.stdout.receive_some(1 << 20)
                if not data:
                    raise LoadFailed(f"the load generator for {self._clients.url} ended")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        outcome = msgspec.json.decode(line, type=Outcome)
        if outcome.errors:
            raise LoadFailed(f"{outcome.errors} errors from {self._clients.url}, the first: {outcome.error}")
        return outcome


@asynccontextmanager
async def load(running: Running, **clients: object) -> AsyncIterator[Generator]:
    """A load generator for a server, for the body; `clients` are fields of `Clients`."""
    plan = msgspec.convert({"url": running.url, **clients}, type=Clients)
    command = [sys.executable, "-m", "benchmarks.load"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        generator = Generator(process, plan)
        await generator._tell(plan)
        yield generator
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


@asynccontextmanager
async def started(running: Running, **clients: object) -> AsyncIterator[Generator]:
    """A load generator whose sessions have begun, and end with the body unless it raises."""
    async with load(running, **clients) as generator:
        await generator.start()
        yield generator
        await generator.end()
