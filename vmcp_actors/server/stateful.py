"""The MCP endpoint for the stateful revisions: POST, GET and DELETE with `Mcp-Session-Id` (mission P1).

MCP 2025-11-25, basic/transports §Streamable HTTP.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import trio

from .. import __version__
from ..actors import Call, OnCallerExit
from ..errors import (
    INTERNAL_ERROR,
    InvalidParams,
    NotAcceptable,
    RequestError,
    UnsupportedProtocolVersion,
    VmcpError,
    WrongContentType,
    WrongMethod,
)
from ..model import ANONYMOUS, ClientProfile, JsonObject, McpRequest
from ..sessions import Session, SessionSupervisor
from ..settings import ServerSettings
from ..wire.messages import Message, RequestId, decode_message, encode_error, encode_result
from ..wire.revisions import ASSUMED_REVISION, STATEFUL_REVISIONS, negotiate
from ..wire.stateless import PROTOCOL_VERSION
from .front import Front
from .http import JSON_TYPE, Headers, Receive, Scope, Send, read_body, send_error, send_response
from .streams import EventWriter

logger = logging.getLogger(__name__)

ALLOWED_METHODS = "GET, POST, DELETE"
SESSION_HEADER = b"mcp-session-id"
FIRST_WITH_PRIMING = "2025-11-25"


class StatefulEndpoint:
    """Serves the endpoint. One instance for the process; every request is served in its own task."""

    def __init__(self, supervisor: SessionSupervisor, settings: ServerSettings, *, name: str) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._name = name
        self._fronts: WeakKeyDictionary[Session, Front] = WeakKeyDictionary()

    async def serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Serve one HTTP request. Raises `VmcpError` for a request that is refused, and nothing has been sent then."""
        match scope["method"]:
            case "POST":
                await self._post(scope, headers, receive, send)
            case "GET":
                await self._get(headers, receive, send)
            case "DELETE":
                await self._delete(headers, send)
            case method:
                raise WrongMethod(method, ALLOWED_METHODS)

    # --- POST ---------------------------------------------------------------------------------------------------------

    async def _post(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        _check_accepts(headers, "application/json", "text/event-stream")
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise WrongContentType(f"Content-Type must be application/json, not {content_type or 'absent'}")
        settings = self._settings
        body = await read_body(headers, receive, limit=settings.max_body_bytes, seconds=settings.body_timeout)
        message = decode_message(body)
        try:
            await self._dispatch(message, scope, headers, send)
        except VmcpError as error:
            # Refused with the id of the request, so that the client can tell which one it was.
            await send_error(send, error, message.id if message.is_request else None)  # type: ignore[arg-type]

    async def _dispatch(self, message: Message, scope: Scope, headers: Headers, send: Send) -> None:
        if message.is_request and message.method == "initialize":
            await self._initialize(message, scope, send)
            return
        _check_revision(headers, message)
        session = self._session(headers)
        session.touch()
        if message.is_request:
            await self._answer(session, message, headers, send)
            return
        if message.is_notification:
            self._notification(session, message)
        else:
            self._front(session).answered(message)
        await send_response(send, 202, headers=())

    async def _initialize(self, message: Message, scope: Scope, send: Send) -> None:
        """Start a session: every `initialize` makes a new one (mission S1)."""
        params = message.arguments
        requested = params.get("protocolVersion")
        if not isinstance(requested, str) or not isinstance(params.get("capabilities", {}), dict):
            raise InvalidParams("initialize: protocolVersion must be a string and capabilities an object")
        info = params.get("clientInfo")
        version = negotiate(requested)
        peer = scope.get("client")
        client = ClientProfile(
            protocol_version=version,
            capabilities=params.get("capabilities", {}),
            info=info if isinstance(info, dict) else {},
            address=str(peer[0]) if peer else "",
        )
        session = await self._supervisor.start_session(ANONYMOUS, client)
        front = self._front(session)
        session.listen(front.notify, ask=front.ask, on_closing=front.close)
        result: JsonObject = {
            "protocolVersion": version,
            "capabilities": session.capabilities,
            "serverInfo": {"name": self._name, "version": __version__},
        }
        if session.instructions is not None:
            result["instructions"] = session.instructions
        body = encode_result(message.id, result)  # type: ignore[arg-type]  # a request has an id
        await send_response(send, 200, body, [JSON_TYPE, (SESSION_HEADER, session.id.reveal().encode())])

    def _notification(self, session: Session, message: Message) -> None:
        if message.method == "notifications/cancelled":
            request_id = message.arguments.get("requestId")
            call = self._front(session).calls.get(request_id) if isinstance(request_id, int | str) else None
            if call is not None:
                call.cancel(str(message.arguments.get("reason", "the client cancelled it"))[:200])
        elif message.method == "notifications/roots/list_changed":
            session.tell_backends(str(message.method), message.arguments)

    async def _answer(self, session: Session, message: Message, headers: Headers, send: Send) -> None:
        """Answer a request as plain JSON; as an event stream if something comes before its result, or it takes long.

        Once it is a stream it can be resumed, and the result waits for a client that was disconnected.
        """
        request_id: Any = message.id
        front = self._front(session)
        if request_id in front.calls:
            raise RequestError(f"A request with id {request_id!r} is already under way")
        log = front.answer_stream()
        call = session.submit(
            str(message.method),
            message.arguments,
            on_notice=log.notify,
            ask=partial(front.ask_on, log.put),
            on_break=log.break_off,
            on_caller_exit=OnCallerExit.DETACH,
        )
        front.calls[request_id] = call
        streaming = False

        def answered() -> None:
            # Before the answer is on its way: the client may use the id again as soon as it has it.
            del front.calls[request_id]
            if streaming:
                log.put(_outcome(call, request_id))
                log.finish()
            log.wake()

        call.reply.on_done(answered)
        prefers_stream = _prefers_stream(headers)
        if not prefers_stream:
            with trio.move_on_after(self._settings.keepalive_interval):
                await log.wait()
        if call.reply.done and log.empty and not prefers_stream:
            await send_response(send, 200, _outcome(call, request_id))
            return
        streaming = True
        front.keep(log)
        if call.reply.done:
            log.put(_outcome(call, request_id))
            log.finish()
        await self._writer(session, send).write(log)

    # --- GET and DELETE -----------------------------------------------------------------------------------------------

    async def _get(self, headers: Headers, receive: Receive, send: Send) -> None:
        """Hold a stream open for what the session sends unasked, until the client or the session goes.

        With `Last-Event-ID` that stream goes on where it broke off, also if it was the answer to a request.
        """
        _check_accepts(headers, "text/event-stream")
        _check_revision(headers, None)
        session = self._session(headers)
        front = self._front(session)
        last_event_id = headers.get("last-event-id")
        log, cursor = front.resume_stream(last_event_id) if last_event_id else (front.open_stream(), 0)
        try:
            with session.stream_open():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_until_disconnect, receive, nursery.cancel_scope)
                    await self._writer(session, send).write(log, cursor)
                    nursery.cancel_scope.cancel("the stream has ended")
        finally:
            front.closed_stream(log)

    def _writer(self, session: Session, send: Send) -> EventWriter:
        priming = session.client.protocol_version >= FIRST_WITH_PRIMING
        return EventWriter(send, keepalive=self._settings.keepalive_interval, priming=priming)

    async def _delete(self, headers: Headers, send: Send) -> None:
        """End the session. Answered when all of it has ended, so that the client can rely on it."""
        _check_revision(headers, None)
        session = self._session(headers)
        await session.close("deleted by the client", drain=self._supervisor.settings.drain_timeout)
        await send_response(send, 204, headers=())

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _session(self, headers: Headers) -> Session:
        session_id = headers.get("mcp-session-id")
        if not session_id:
            raise RequestError("The Mcp-Session-Id header is required; begin with an initialize request")
        return self._supervisor.lookup(session_id, ANONYMOUS)

    def _front(self, session: Session) -> Front:
        front = self._fronts.get(session)
        if front is None:
            front = self._fronts[session] = Front(self._settings.stream_capacity)
        return front


def _outcome(call: Call[McpRequest, JsonObject], request_id: RequestId) -> bytes:
    """The message that ends a request. Errors from here on are answers: HTTP 200 with a JSON-RPC error."""
    try:
        return encode_result(request_id, call.reply.result())
    except VmcpError as error:
        return encode_error(request_id, error.to_jsonrpc())
    except Exception:
        logger.exception("a request failed unexpectedly")
        return encode_error(request_id, {"code": INTERNAL_ERROR, "message": "Internal error"})


def _check_accepts(headers: Headers, *needed: str) -> None:
    accept = headers.get("accept")
    if accept is None:
        return
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    for media_type in needed:
        if not ranges & {media_type, f"{media_type.partition('/')[0]}/*", "*/*"}:
            raise NotAcceptable(f"Accept must include {' and '.join(needed)}")


def _prefers_stream(headers: Headers) -> bool:
    """Whether the client names the event stream before JSON: clients must take both, and most name JSON first."""
    accept = headers.get("accept", "")
    return -1 < accept.find("text/event-stream") < accept.find("application/json")


def _check_revision(headers: Headers, message: Message | None) -> None:
    """Refuse what is not one of the stateful revisions, naming them, so that dual-era clients fall back at once."""
    version = headers.get("mcp-protocol-version", ASSUMED_REVISION)
    if version not in STATEFUL_REVISIONS:
        raise UnsupportedProtocolVersion(version, STATEFUL_REVISIONS)
    meta = message.arguments.get("_meta") if message is not None else None
    in_body = meta.get(PROTOCOL_VERSION) if isinstance(meta, dict) else None
    if in_body is not None and in_body not in STATEFUL_REVISIONS:
        raise UnsupportedProtocolVersion(str(in_body), STATEFUL_REVISIONS)


async def _until_disconnect(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel("the client disconnected")
