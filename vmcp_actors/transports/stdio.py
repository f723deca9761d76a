"""A backend that is a child process: the SDK's `JSONRPCDispatcher` over pipes and a process group of our own.

The SDK's `stdio_client` is not used, for two reasons (docs/explain/decisions.md): when the child ends by itself at the
end of its input, grandchildren (what `npx` started, a browser) are left running; and it hides how the child ended.
MCP 2025-11-25, basic/transports §stdio and basic/lifecycle §Shutdown.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE
from typing import Any

import anyio
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.dispatcher import CallOptions
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext

from ..actors import open_service_nursery
from ..errors import BackendUnavailable, RequestError
from ..model import BackendSpec, Secret, StdioCommand
from ..wire.folding import unfolded
from ..wire.messages import decode_message
from .base import describe
from .sdk import from_sdk, to_sdk

logger = logging.getLogger(__name__)
stderr_logger = logging.getLogger("vmcp_actors.backend.stderr")

CHUNK = 64 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_STDERR_LINE = 4096
END_OF_INPUT_GRACE = 2.0
TERMINATE_GRACE = 2.0


class StreamDispatcher(JSONRPCDispatcher[TransportContext]):
    """The SDK's dispatcher as a `Transport`: no HTTP session, no goodbye, notifications without their request."""

    relates_notifications = False
    closing_cancels = False

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: int | str | None = None,
    ) -> dict[str, Any]:
        """As the SDK's; the result comes folded if `opts` allow it."""
        result = await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)
        return result if opts is not None and opts.get("folded") else unfolded(result)

    @property
    def backend_session(self) -> Secret[str] | None:
        """A pipe is its own session."""
        return None

    async def goodbye(self) -> None:
        """Closing the stream is the goodbye."""
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_stdio(spec: BackendSpec) -> AsyncIterator[StreamDispatcher]:
    """Start the child process and speak JSON-RPC with it, one message a line.

    At the end, also when cancelled: its input is closed; after 2 s its process group gets SIGTERM, after 2 more
    SIGKILL; and whatever is left of the group is killed. So nothing outlives this, at the latest after 4 s.

    Raises:
        BackendUnavailable: the command cannot be started.
    """
    process = await _start(spec)
    to_us, from_child = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_child, from_us = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with open_service_nursery() as services:
            services.start_soon(_read_messages, spec.name, process, to_us)
            services.start_soon(_write_messages, process, from_us)
            services.start_soon(_read_stderr, spec.name, process)
            yield StreamDispatcher(from_child, to_child)
    finally:
        for stream in (to_us, from_child, to_child, from_us):
            stream.close()
        with trio.CancelScope(shield=True):
            await _end(spec.name, process)


async def _start(spec: BackendSpec) -> trio.Process:
    command = spec.endpoint
    assert isinstance(command, StdioCommand)
    environment = get_default_environment() | {name: value.reveal() for name, value in command.env.items()}
    try:
        return await trio.lowlevel.open_process(
            [command.command, *command.args],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            cwd=command.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        where = f" in {command.cwd}" if command.cwd else ""
        raise BackendUnavailable(spec.name, f"cannot start {command.command!r}{where}: {describe(error)}") from error


async def _read_messages(
    backend: str, process: trio.Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    """The child's output, a message a line, until it ends. Lines that are no message are skipped, with a warning."""
    assert process.stdout is not None
    async with to_us:
        buffer = bytearray()
        try:
            while chunk := await process.stdout.receive_some(CHUNK):
                buffer += chunk
                if b"\n" not in chunk:
                    if len(buffer) > MAX_LINE_BYTES:
                        logger.error("backend %s sent a line of over %d bytes", backend, MAX_LINE_BYTES)
                        return
                    continue
                *lines, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                for line in lines:
                    if line.strip():
                        await _hand_on(backend, line, to_us)
        except (trio.BrokenResourceError, trio.ClosedResourceError, anyio.BrokenResourceError):
            logger.debug("backend %s: reading its output ended", backend)


async def _hand_on(backend: str, line: bytes, to_us: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    try:
        message = to_sdk(decode_message(line))
    except RequestError:
        logger.warning("backend %s wrote something to its output that is not a message: %.120r", backend, line)
    else:
        await to_us.send(SessionMessage(message))


async def _write_messages(process: trio.Process, from_us: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    async with from_us:
        try:
            async for item in from_us:
                await process.stdin.send_all(from_sdk(item.message) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the child closed its input; closing our end makes senders fail instead of hang


async def _read_stderr(backend: str, process: trio.Process) -> None:
    """Drain the child's errors into our log, so that a full pipe never stops it."""
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.receive_some(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            stderr_logger.info("[%s] %s", backend, line[:MAX_STDERR_LINE].decode(errors="replace"))
        rest = rest[:MAX_STDERR_LINE]


async def _end(backend: str, process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdin.aclose()
    try:
        async with trio.open_nursery() as nursery:
            # A child that is stuck writing cannot see the end of its input.
            nursery.start_soon(_discard, process.stdout)
            nursery.start_soon(_discard, process.stderr)
            await _wait_or_kill(backend, process)
            nursery.cancel_scope.cancel("the process has ended")
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        await process.stdout.aclose()
        await process.stderr.aclose()


async def _wait_or_kill(backend: str, process: trio.Process) -> None:
    for grace, then in ((END_OF_INPUT_GRACE, signal.SIGTERM), (TERMINATE_GRACE, signal.SIGKILL)):
        with trio.move_on_after(grace):
            await process.wait()
            break
        logger.debug("backend %s did not end in %g s, sending %s", backend, grace, then.name)
        _signal_group(process.pid, then)
    await process.wait()
    logger.debug("backend %s ended with %s", backend, process.returncode)


async def _discard(stream: trio.abc.ReceiveStream) -> None:
    try:
        while await stream.receive_some(CHUNK):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


def _signal_group(group: int, signal_number: signal.Signals) -> None:
    """Signal every process of the group that the child started in; none left is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal_number)
