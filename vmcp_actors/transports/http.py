"""Streamable HTTP towards a backend of a stateful revision: the SDK's `Dispatcher` over our own HTTP client.

Ours and not the SDK's client, because a gateway needs what that one loses: the HTTP status, the stream on which a
message came, and most of the CPU. MCP 2025-11-25, basic/transports §Streamable HTTP.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import trio
from attrs import frozen
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT

from ..actors import Reply
from ..errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendSessionLost,
    BackendUnauthorized,
    BackendUnavailable,
    Delivered,
    ParseError,
    RequestError,
)
from ..model import BackendSpec, HttpEndpoint, JsonObject, Secret
from ..wire.messages import (
    Message,
    RequestId,
    decode_message,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from .authorized import AuthorizedPool
from .headers import session_headers, with_headers
from .http1 import Response
from .http1_messages import BadResponse, ConnectFailed, ConnectionBroken, HttpError
from .inbound import InboundContext, InboundMessages
from .origin import parse_url
from .pool import HttpPool, PoolStatistics
from .refusals import MAX_ERROR_BYTES, peer_error, read_refusal, says_session_lost
from .streams import AnswerStream, listen

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
FINISH_TIMEOUT = 1.0
ONE_WAY_TIMEOUT = 5.0
MESSAGES_AT_ONCE = 16
"""Messages of a stream that are taken before others have their turn."""
MAX_ANSWERING = 256
"""Requests of a backend that are answered at the same time."""


@asynccontextmanager
async def open_http(spec: BackendSpec) -> AsyncIterator[HttpDispatcher]:
    """Open the transport for a streamable HTTP backend. Nothing is connected until the first request."""
    assert isinstance(spec.endpoint, HttpEndpoint)
    origin, target = parse_url(spec.endpoint.url)
    async with HttpPool(origin, connect_timeout=spec.connect_timeout) as pool:
        authorizer = spec.endpoint.authorizer
        requests = pool if authorizer is None else AuthorizedPool(pool, spec.name, authorizer)
        yield HttpDispatcher(spec, requests, target)


@frozen
class DispatcherStatistics:
    """A snapshot: requests of the backend that are being answered, whether the connection is over, and its pool."""

    answering: int
    over: bool
    pool: PoolStatistics


class HttpDispatcher:
    """One connection to one backend: kept HTTP/1.1 connections for its requests, one stream for what comes unasked.

    A request that is cancelled closes the HTTP connection it was on, and tells the backend (`notifications/cancelled`)
    unless `cancel_on_abandon` is off. Requests of one dispatcher run in parallel, each on a connection of its own.
    """

    relates_notifications = True
    closing_cancels = True

    def __init__(self, spec: BackendSpec, pool: HttpPool | AuthorizedPool, target: str) -> None:
        assert isinstance(spec.endpoint, HttpEndpoint)
        self.backend = spec.name
        self._pool = pool
        self._target = target
        self._configured = spec.endpoint.headers
        self._session: Secret[str] | None = None
        self._headers = session_headers(self._configured, None, None)
        self._next_id = 0
        self._inbound = InboundMessages()
        self._nursery: trio.Nursery | None = None
        self._listening = False
        self._answering = 0
        self._taken = 0
        self._over: Reply[None] = Reply()

    # --- the Dispatcher protocol --------------------------------------------------------------------------------------

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve what the backend sends, until the connection is lost or the task is cancelled.

        Raises:
            BackendSessionLost: the backend answered 404 for our session.
        """
        self._inbound.bind(on_request, on_notify, on_notify_intercept)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self._over.wait_done()
                nursery.cancel_scope.cancel("the connection is over")
        finally:
            self._nursery = None
        self._over.take()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JsonObject:
        """Send a request and wait for its result.

        Cancelling it closes its HTTP connection and, where the protocol allows, tells the backend to stop.

        Raises:
            MCPError: the backend answered with a JSON-RPC error, or `opts["timeout"]` seconds passed.
            BackendError: what happened on the way; `delivered` says whether the backend may have run it.
            RequestError: the parameters cannot be written as JSON; nothing was sent.
        """
        opts = opts or {}
        request_id = opts.get("request_id")
        if request_id is None:
            self._next_id += 1
            request_id = self._next_id
        body = dict(params) if params else {}
        on_progress, timeout = opts.get("on_progress"), opts.get("timeout")
        try:
            if on_progress is None and timeout is None:
                return await self._exchange(request_id, method, body, opts)
            if on_progress is not None:
                body["_meta"] = {**body.get("_meta", {}), "progressToken": request_id}
            with (
                self._inbound.progress(request_id, on_progress),
                trio.move_on_after(math.inf if timeout is None else timeout),
            ):
                return await self._exchange(request_id, method, body, opts)
        except trio.Cancelled:
            self._abandon(request_id, method, opts, "the caller left")
            raise
        self._abandon(request_id, method, opts, "timed out")
        raise MCPError(REQUEST_TIMEOUT, f"{method} had no answer within {opts.get('timeout')} s")

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification. Raises `BackendError` when the backend does not take it."""
        await self._post_one_way(encode_notification(method, dict(params) if params else None), opts)
        if method == "notifications/initialized":
            self._start_listening()

    # --- what a gateway needs besides ---------------------------------------------------------------------------------

    @property
    def backend_session(self) -> Secret[str] | None:
        """The backend's `Mcp-Session-Id`, once it has given one."""
        return self._session

    async def goodbye(self) -> None:
        """DELETE the backend session. Any answer will do: 405 means that the backend does not support it."""
        if self._session is None or self._over.done:
            return
        try:
            response = await self._pool.request("DELETE", self._target, self._headers, None)
            await response.read(MAX_ERROR_BYTES)
        except (HttpError, ValueError) as error:
            logger.debug("backend %s: goodbye failed: %s", self.backend, error)

    def lose(self, error: BackendError) -> None:
        """The connection is over: `run` raises `error`. Synchronous; the first error counts."""
        self._over.set_error(error)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _exchange(self, request_id: RequestId, method: str, params: JsonObject, opts: CallOptions) -> JsonObject:
        response = await self.open("POST", encode_request(request_id, method, params), opts.get("headers"))
        try:
            message = await self._answer(response, request_id, opts)
        except (ConnectionBroken, BadResponse) as error:
            response.close()
            raise BackendLost(self.backend, f"connection lost during {method}: {error}") from error
        except BaseException:
            response.close()
            raise
        self._release(response)
        if isinstance(message.error, dict):
            raise peer_error(message.error)
        result = self._result(message, method, fold=bool(opts.get("folded")))
        if method == "initialize":
            self._adopt(response, result)
        return result

    def _result(self, message: Message, method: str, *, fold: bool) -> JsonObject:
        try:
            result = message.folded_result if fold else message.object_result
        except RequestError as error:
            raise BackendProtocolError(self.backend, str(error), delivered=Delivered.YES) from error
        if result is None:
            raise BackendProtocolError(
                self.backend, f"the result of {method} is not an object", delivered=Delivered.YES
            )
        return result

    async def _answer(self, response: Response, request_id: RequestId, opts: CallOptions) -> Message:
        """The message that answers the request, from whatever kind of response the backend chose."""
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status == 200 and content_type == "text/event-stream":
            on_break: Callable[[], None] | None = opts.get("on_stream_break")  # type: ignore[assignment]
            return await AnswerStream(self, request_id, on_break).answer(response)
        if response.status == 200 and content_type == "application/json":
            message = self._decode(await response.read(MAX_MESSAGE_BYTES))
            theirs = message.id == request_id or (message.id is None and isinstance(message.error, dict))
            if message.is_response and theirs:
                return message
            raise BackendProtocolError(self.backend, "answered a request with something that is no response to it")
        if response.status >= 400:
            return await self._refusal(response)
        raise BackendProtocolError(self.backend, f"answered HTTP {response.status} with {content_type or 'no content'}")

    async def _refusal(self, response: Response) -> Message:
        """An HTTP error: a JSON-RPC error in its body is the answer, else the status is."""
        self.check_status(response.status)
        message = await read_refusal(response)
        if message is not None and isinstance(message.error, dict):
            if self._session is not None and says_session_lost(response.status, message.error):
                self._lose_session()
            return message
        # A server or a proxy that failed (5xx) may have done so after the request was run.
        delivered = Delivered.NO if response.status < 500 else Delivered.UNKNOWN
        raise BackendProtocolError(self.backend, f"answered HTTP {response.status}", delivered=delivered)

    def check_status(self, status: int) -> None:
        """Raise for the statuses that say something about the connection, not about one request."""
        if status == 404 and self._session is not None:
            self._lose_session()
        if status in (401, 403):
            raise BackendUnauthorized(self.backend, f"refused our credentials (HTTP {status})")

    def _lose_session(self) -> NoReturn:
        text = "the backend no longer knows our session"
        self.lose(BackendSessionLost(self.backend, text))
        raise BackendSessionLost(self.backend, text)

    async def _post_one_way(self, body: bytes, opts: CallOptions | None = None) -> None:
        response = await self.open("POST", body, (opts or {}).get("headers"))
        try:
            self.check_status(response.status)
            answer = await response.read(MAX_ERROR_BYTES)
        except (ConnectionBroken, BadResponse) as error:
            raise BackendLost(self.backend, f"connection lost: {error}") from error
        finally:
            response.close()
        if response.status >= 400:
            raise BackendProtocolError(
                self.backend,
                f"refused a notification (HTTP {response.status}): {answer[:200]!r}",
                delivered=Delivered.NO,
            )

    async def open(self, method: str, body: bytes | None, extra: Mapping[str, str] | None = None) -> Response:
        """Send one HTTP request and return its response, headers read. The caller releases the response.

        Raises:
            BackendUnavailable: no connection; not delivered.
            BackendLost: the connection broke before a response; `delivered` as far as is known.
            BackendProtocolError: what came back is not HTTP.
        """
        headers = self._headers
        if extra:
            headers = with_headers(headers, extra)
        try:
            return await self._pool.request(method, self._target, headers, body)
        except (ConnectFailed, ValueError) as error:
            raise BackendUnavailable(self.backend, str(error)) from error
        except ConnectionBroken as error:
            delivered = Delivered.UNKNOWN if error.request_sent else Delivered.NO
            raise BackendLost(self.backend, f"connection lost: {error}", delivered=delivered) from error
        except BadResponse as error:
            raise BackendProtocolError(self.backend, str(error)) from error

    def _release(self, response: Response) -> None:
        """Give the connection back: at once when the body is complete, else when its last bytes have come."""
        if response.complete:
            return
        if self._nursery is None:
            response.close()
        else:
            self._nursery.start_soon(self._finish, response)

    @staticmethod
    async def _finish(response: Response) -> None:
        # A server ends its event stream right after the response; waiting for that must not delay the caller.
        try:
            with trio.move_on_after(FINISH_TIMEOUT):
                while not response.complete and await response.receive_chunk():
                    pass
        except (ConnectionBroken, BadResponse):
            pass
        finally:
            if not response.complete:
                response.close()

    def _abandon(self, request_id: RequestId, method: str, opts: CallOptions, reason: str) -> None:
        if method != "initialize" and opts.get("cancel_on_abandon", True) and self._nursery is not None:
            params = {"requestId": request_id, "reason": reason}
            self._nursery.start_soon(self._notify_quietly, "notifications/cancelled", params)

    async def _notify_quietly(self, method: str, params: JsonObject) -> None:
        with trio.move_on_after(ONE_WAY_TIMEOUT):
            try:
                await self.notify(method, params)
            except BackendError as error:
                logger.debug("backend %s: %s not delivered: %s", self.backend, method, error)

    # --- what comes from the backend ----------------------------------------------------------------------------------

    def _decode(self, data: bytes | str) -> Message:
        try:
            return decode_message(data)
        except (ParseError, RequestError) as error:
            raise BackendProtocolError(self.backend, str(error)) from error

    async def incoming(self, data: str, related: RequestId | None) -> Message | None:
        """Take one message from an event stream: returns it if it is a response, else it is dealt with here.

        Notifications are handed on in the order of arrival; requests are answered by tasks of their own, so that a
        ping is answered at once whatever else is going on. What is not JSON-RPC is skipped, with a warning. Sometimes a
        checkpoint: one read may bring thousands of messages, and other sessions must not wait for all of them.
        """
        self._taken += 1
        if self._taken % MESSAGES_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        try:
            message = decode_message(data)
        except RequestError as error:
            logger.warning("backend %s sent something that is not a message: %s", self.backend, error)
            return None
        if message.is_response:
            return message
        if message.is_notification:
            await self._inbound.notification(message, self, related)
        elif self._answering >= MAX_ANSWERING:
            logger.warning("backend %s asks too much at once; %s is not answered", self.backend, message.method)
        elif self._nursery is not None:
            self._answering += 1
            self._nursery.start_soon(self._serve_request, message, related)
        return None

    async def _serve_request(self, message: Message, related: RequestId | None) -> None:
        request_id: Any = message.id
        try:
            result = await self._inbound.request(message, InboundContext(self, request_id, related))
            if result is not None:
                await self._respond(encode_result(request_id, result))
        except MCPError as error:
            await self._respond(encode_error(request_id, error.error.model_dump(exclude_none=True)))
        finally:
            self._answering -= 1

    async def _respond(self, body: bytes) -> None:
        with trio.move_on_after(ONE_WAY_TIMEOUT):
            try:
                await self._post_one_way(body)
            except BackendError as error:
                logger.warning("backend %s: could not answer its request: %s", self.backend, error)

    def _start_listening(self) -> None:
        if not self._listening and self._nursery is not None:
            self._listening = True
            self._nursery.start_soon(listen, self)

    def _adopt(self, response: Response, result: JsonObject) -> None:
        """What `initialize` has agreed on goes with every request from now on."""
        session, version = response.headers.get("mcp-session-id"), result.get("protocolVersion")
        self._session = Secret(session) if session else None
        self._headers = session_headers(self._configured, self._session, version if isinstance(version, str) else None)

    def statistics(self) -> DispatcherStatistics:
        """A snapshot."""
        return DispatcherStatistics(self._answering, self._over.done, self._pool.statistics())

    def __repr__(self) -> str:
        state = "over" if self._over.done else "open"
        return f"<HttpDispatcher {self.backend}: {state}, {self._pool!r}>"


__all__ = ["HttpDispatcher", "ProgressFnT", "open_http"]
