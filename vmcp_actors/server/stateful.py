"""The stateful revisions at the endpoint: POST, GET and DELETE with `Mcp-Session-Id` (mission P1).

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
from ..errors import INTERNAL_ERROR, InvalidParams, RequestError, VmcpError
from ..model import ANONYMOUS, ClientProfile, JsonObject, McpRequest, RequestContext
from ..sessions import Session, SessionSupervisor
from ..settings import ServerSettings
from ..wire.messages import Message, RequestId, encode_error, encode_result
from ..wire.revisions import negotiate
from .front import Front
from .http import JSON_TYPE, Headers, Receive, Scope, Send, client_address, send_response, until_disconnect
from .streams import EventWriter

logger = logging.getLogger(__name__)

SESSION_HEADER = b"mcp-session-id"
FIRST_WITH_PRIMING = "2025-11-25"


class StatefulEndpoint:
    """Serves clients that have a session of their own."""

    def __init__(self, supervisor: SessionSupervisor, settings: ServerSettings, *, name: str) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._name = name
        self._fronts: WeakKeyDictionary[Session, Front] = WeakKeyDictionary()

    # --- POST ---------------------------------------------------------------------------------------------------------

    async def post(self, message: Message, scope: Scope, headers: Headers, send: Send) -> None:
        """Serve one message. Raises `VmcpError` for one that is refused, and nothing has been sent then."""
        if message.is_request and message.method == "initialize":
            await self._initialize(message, scope, send)
            return
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
        client = ClientProfile(
            protocol_version=version,
            capabilities=params.get("capabilities", {}),
            info=info if isinstance(info, dict) else {},
            address=client_address(scope),
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
            usable = isinstance(request_id, int | str) and not isinstance(request_id, bool)
            call = self._front(session).calls.get(request_id) if usable else None  # type: ignore[arg-type]
            if call is not None:
                call.cancel(str(message.arguments.get("reason", "the client cancelled it"))[:200])
        elif message.method == "notifications/progress":
            self._front(session).progressed(message.arguments)
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
            message.folded_arguments,
            RequestContext(log.notify, partial(front.ask_on, log.put), log.break_off),
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

    async def get(self, headers: Headers, receive: Receive, send: Send) -> None:
        """Hold a stream open for what the session sends unasked, until the client or the session goes.

        With `Last-Event-ID` that stream goes on where it broke off, also if it was the answer to a request.
        """
        session = self._session(headers)
        front = self._front(session)
        last_event_id = headers.get("last-event-id")
        log, cursor = front.resume_stream(last_event_id) if last_event_id else (front.open_stream(), 0)
        try:
            with session.stream_open():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_disconnect, receive, nursery.cancel_scope)
                    await self._writer(session, send).write(log, cursor)
                    nursery.cancel_scope.cancel("the stream has ended")
        finally:
            front.closed_stream(log)

    def _writer(self, session: Session, send: Send) -> EventWriter:
        priming = session.client.protocol_version >= FIRST_WITH_PRIMING
        return EventWriter(send, keepalive=self._settings.keepalive_interval, priming=priming)

    async def delete(self, headers: Headers, send: Send) -> None:
        """End the session. Answered when all of it has ended, so that the client can rely on it."""
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
        return encode_result(request_id, call.reply.take())
    except VmcpError as error:
        return encode_error(request_id, error.to_jsonrpc())
    except Exception:
        logger.exception("a request failed unexpectedly")
        return encode_error(request_id, {"code": INTERNAL_ERROR, "message": "Internal error"})


def _prefers_stream(headers: Headers) -> bool:
    """Whether the client names the event stream before JSON: clients must take both, and most name JSON first."""
    accept = headers.get("accept", "")
    return -1 < accept.find("text/event-stream") < accept.find("application/json")
