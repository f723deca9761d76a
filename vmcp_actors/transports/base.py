"""What the package needs of a transport: the SDK's `Dispatcher`, and a little that a gateway needs besides."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Protocol

import trio
from mcp.shared.dispatcher import CallOptions, Dispatcher
from mcp.shared.transport_context import TransportContext

from ..errors import BackendError, BackendLost, BackendUnavailable, Delivered
from ..model import BackendSpec, Secret

__all__ = ["OpenTransport", "RequestOptions", "Transport", "single_cause", "transport_errors"]


class Transport(Dispatcher[TransportContext], Protocol):
    """A dispatcher that leads to one backend, for one connection.

    `send_raw_request` raises `MCPError` for a JSON-RPC error of the backend, and `BackendError` for everything that
    went wrong on the way. `run` returns, or raises `BackendError`, when the connection is over.
    """

    relates_notifications: bool
    """Whether the context of a notification says which request it belongs to (`message_metadata`)."""
    closing_cancels: bool
    """Whether in the stateless revision a request is cancelled by closing its stream, instead of by a notification."""

    @property
    def backend_session(self) -> Secret[str] | None:
        """The backend's own session id, once it has given one."""
        ...

    async def goodbye(self) -> None:
        """Tell the backend that we leave. Best effort: raises nothing, and the caller bounds its time."""
        ...


logger = logging.getLogger(__name__)


class RequestOptions(CallOptions, total=False):
    """The SDK's options of a request, and two more. Dispatchers ignore what they do not know."""

    folded: bool
    """The result may come folded (`wire.folding`)."""

    on_stream_break: Callable[[], None]
    """Called when the backend closes the stream of the request before its answer, to have it resumed later."""


class OpenTransport(Protocol):
    """Opens a transport: the seam at which tests and `vmcp_actors.testing` put a backend in memory."""

    def __call__(self, spec: BackendSpec) -> AbstractAsyncContextManager[Transport]:
        """Open it in the calling task, which must close it. Raises `BackendError`."""
        ...


def single_cause(error: BaseException) -> BaseException:
    """The one exception inside nested groups, or the group itself when there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextmanager
def transport_errors(backend: str, doing: str, *, delivered: Delivered = Delivered.NO) -> Iterator[None]:
    """Translate what a foreign transport raises, once, at its boundary.

    `BackendError` passes. OSError and every other exception, also inside exception groups, becomes `BackendUnavailable`
    (nothing was delivered) or `BackendLost`.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        cause = single_cause(error)
        try:
            if isinstance(cause, BackendError):
                raise cause
            text = f"{doing}: {describe(cause)}"
            if delivered is Delivered.NO:
                raise BackendUnavailable(backend, text) from error
            raise BackendLost(backend, text, delivered=delivered) from error
        finally:
            # No cycles: the group that it was in is not its context, and this frame, in its traceback, forgets it.
            if isinstance(cause, BackendError):
                cause.__context__ = None
            del cause
    except BaseExceptionGroup as group:
        # Something failed while it was being cancelled. The cancellation goes on; the failure is no news any more.
        cancelled, rest = group.split(trio.Cancelled)
        try:
            if cancelled is None or rest is None or not isinstance(rest, ExceptionGroup):
                raise
            logger.info("backend %s: %s, while ending: %s", backend, doing, describe(single_cause(rest)))
            raise cancelled from None
        finally:
            del cancelled, rest  # its traceback has this frame in it


def describe(error: BaseException) -> str:
    """A short text for an exception that people will read; no traceback, never empty."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


TransportIterator = AsyncIterator[Transport]
