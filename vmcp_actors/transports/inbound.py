"""What a backend sends of its own accord, handed to the callbacks of the SDK's `Dispatcher` protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import trio
from mcp.shared.dispatcher import (
    CallOptions,
    OnNotify,
    OnNotifyIntercept,
    OnRequest,
    Outbound,
    ProgressFnT,
    run_notify_intercept,
)
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import METHOD_NOT_FOUND

from ..errors import RequestError
from ..model import JsonObject
from ..wire.messages import Message, RequestId

logger = logging.getLogger(__name__)

_CONTEXT = TransportContext(kind="streamable-http", can_send_request=False)


class InboundContext:
    """The SDK's `DispatchContext` for one message; `message_metadata` names the request of ours that it belongs to."""

    transport = _CONTEXT
    can_send_request = False

    def __init__(self, outbound: Outbound, request_id: RequestId | None, related: RequestId | None) -> None:
        self._outbound = outbound
        self.request_id = request_id
        self.message_metadata = ServerMessageMetadata(related_request_id=related, can_send_request=False)
        self.cancel_requested = anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JsonObject:
        """A client answers a server's request; it does not ask back on it."""
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification to the backend."""
        await self._outbound.notify(method, params, opts)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """No token was given, so there is nothing to report to."""


class InboundMessages:
    """The callbacks of one running dispatcher, and the progress callbacks of its requests."""

    def __init__(self) -> None:
        self._on_request: OnRequest | None = None
        self._on_notify: OnNotify | None = None
        self._intercept: OnNotifyIntercept | None = None
        self._progress: dict[RequestId, ProgressFnT] = {}
        self._serving: dict[RequestId, trio.CancelScope] = {}

    def bind(self, on_request: OnRequest, on_notify: OnNotify, intercept: OnNotifyIntercept | None) -> None:
        """Use these callbacks from now on."""
        self._on_request, self._on_notify, self._intercept = on_request, on_notify, intercept

    @contextmanager
    def progress(self, request_id: RequestId, callback: ProgressFnT | None) -> Iterator[None]:
        """Hand progress under this token to the callback while the body runs."""
        if callback is None:
            yield
            return
        self._progress[request_id] = callback
        try:
            yield
        finally:
            del self._progress[request_id]

    async def notification(self, message: Message, outbound: Outbound, related: RequestId | None) -> None:
        """Hand on one notification; returns when its callback has, which may answer over `outbound`.

        A callback that raises loses only this one.
        """
        method = str(message.method)
        try:
            params = message.arguments
        except RequestError as error:
            logger.warning("a notification is not handed on: %s", error)
            return
        if method == "notifications/cancelled" and isinstance(params.get("requestId"), int | str):
            scope = self._serving.get(params["requestId"])
            if scope is not None:
                scope.cancel("the backend cancelled its request")
        token = params.get("progressToken") if method == "notifications/progress" else None
        callback = self._progress.get(token) if isinstance(token, int | str) else None
        try:
            if callback is not None:
                await callback(params.get("progress", 0.0), params.get("total"), params.get("message"))
            if run_notify_intercept(self._intercept, method, params) or self._on_notify is None:
                return
            await self._on_notify(InboundContext(outbound, None, related), method, params)
        except Exception:
            logger.exception("a handler of %s failed", method)

    async def request(self, message: Message, context: InboundContext) -> JsonObject | None:
        """Answer one request of the backend; None when the backend has cancelled it. Raises only `MCPError`."""
        method = str(message.method)
        if self._on_request is None or context.request_id is None:
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method}")
        with trio.CancelScope() as scope:
            self._serving[context.request_id] = scope
            try:
                return await self._on_request(context, method, message.arguments)
            except MCPError:
                raise
            except Exception as error:
                logger.exception("the handler of the backend's request %s failed", method)
                raise MCPError(-32603, "Internal error") from error
            finally:
                if self._serving.get(context.request_id) is scope:  # a backend may have used its id twice
                    del self._serving[context.request_id]
        return None
