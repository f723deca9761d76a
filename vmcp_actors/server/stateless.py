"""The stateless revision at the endpoint: everything that a request needs is in it (mission P2).

MCP 2026-07-28, basic/transports §Streamable HTTP.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import trio
from attrs import define, frozen
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    validate_mcp_param_headers,
)

from .. import __version__
from ..actors import Reply
from ..errors import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    RESOURCE_NOT_FOUND,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    MissingClientCapability,
    Relayed,
    RequestError,
    SessionClosed,
    UnsupportedProtocolVersion,
    VmcpError,
)
from ..model import ANONYMOUS, ClientProfile, Era, Freshness, JsonObject, Notice, RequestContext
from ..sessions import LOG_LEVELS, NOT_RELAYED, InteractiveCall, Session, SessionSupervisor
from ..settings import ServerSettings
from ..wire.folding import unfolded
from ..wire.messages import Message, RequestId, encode_error, encode_result
from ..wire.revisions import STATELESS_REVISIONS
from ..wire.stateless import CACHEABLE, PROTOCOL_VERSION, Envelope, for_stateless, needs_input, opened
from .http import ClientGone, Headers, Receive, Scope, Send, client_address, send_error, send_response, until_disconnect
from .listens import Listens
from .streams import EventWriter, StreamLog

logger = logging.getLogger(__name__)

VERSION_HEADER: Final = "mcp-protocol-version"
METHODS: Final = frozenset(
    {
        "server/discover",
        "subscriptions/listen",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
    }
)
URL_ELICITATION_REQUIRED: Final = -32042
_ONLY_STATEFUL: Final = frozenset({"notifications/elicitation/complete"})


@frozen
class _Request:
    """One request: the message, its params without their envelope, the envelope, and where it came from."""

    message: Message
    params: JsonObject
    envelope: Envelope
    client: ClientProfile
    headers: Headers
    receive: Receive
    send: Send

    @property
    def id(self) -> RequestId:
        """The client's id for it."""
        return self.message.id  # type: ignore[return-value]  # it is a request

    @property
    def method(self) -> str:
        """What is asked."""
        return str(self.message.method)


@define
class _Outcome:
    """What a request came to: the message that ends it, and the HTTP status if that is still to be said."""

    status: int = 200
    body: bytes | None = None


class StatelessEndpoint:
    """Serves clients that have no session: the principal's leased one does the work."""

    def __init__(self, supervisor: SessionSupervisor, settings: ServerSettings, *, name: str) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._server_info: JsonObject = {"name": name, "version": __version__}
        self._listens: dict[Session, Listens] = {}

    async def post(self, message: Message, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Serve one message. Raises `VmcpError` for one that is refused, and nothing has been sent then."""
        if not message.is_request:
            await self._one_way(message, headers, send)
            return
        request_id: Any = message.id
        try:
            params, envelope = self._checked(message, headers)
            client = ClientProfile(
                protocol_version=envelope.protocol_version,
                capabilities=_relayed(envelope.capabilities),
                info=envelope.info,
                address=client_address(scope),
            )
            await self._serve(_Request(message, params, envelope, client, headers, receive, send))
        except VmcpError as error:
            await send_error(send, _translated(error), request_id, status=_status(error))

    async def _one_way(self, message: Message, headers: Headers, send: Send) -> None:
        """Clients have nothing to notify of in this revision, and are asked nothing; a notification does no harm."""
        if message.is_response:
            raise RequestError("Clients of this revision are asked nothing, so there is nothing to respond to")
        version = headers.get(VERSION_HEADER, "")
        if version not in self._supervisor.revisions:
            raise UnsupportedProtocolVersion(version, self._supervisor.revisions)
        await send_response(send, 202, headers=())

    def _checked(self, message: Message, headers: Headers) -> tuple[JsonObject, Envelope]:
        """The params without their envelope, and the envelope. Raises `VmcpError` for what must not be served."""
        revisions = self._supervisor.revisions
        served = [revision for revision in STATELESS_REVISIONS if revision in revisions]
        if not served:
            in_body = message.meta.get(PROTOCOL_VERSION)
            raise UnsupportedProtocolVersion(str(in_body or headers.get(VERSION_HEADER)), revisions)
        arguments = message.folded_arguments
        body: JsonObject = {"method": message.method, "params": arguments}
        verdict = classify_inbound_request(body, headers=headers, supported_modern_versions=served)
        if isinstance(verdict, InboundLadderRejection):
            raise self._rejection(verdict)
        params, envelope = opened(arguments)
        if not isinstance(verdict.client_capabilities, dict):
            raise InvalidParams("clientCapabilities in params._meta must be an object")
        if envelope.log_level is not None and envelope.log_level not in LOG_LEVELS:
            raise InvalidParams(f"logLevel in params._meta must be one of {', '.join(LOG_LEVELS)}")
        if message.method not in METHODS:
            raise MethodNotFound(f"Method not found: {message.method}")
        return params, envelope

    def _rejection(self, verdict: InboundLadderRejection) -> VmcpError:
        if verdict.code == HEADER_MISMATCH:
            return HeaderMismatch(verdict.message)
        if verdict.code == INVALID_PARAMS:
            return InvalidParams(verdict.message)
        requested = verdict.data.get("requested") if isinstance(verdict.data, dict) else None
        return UnsupportedProtocolVersion(str(requested), STATELESS_REVISIONS)

    async def _serve(self, request: _Request) -> None:
        session = await self._lease(request)
        session.touch()
        if request.method == "server/discover":
            await self._discover(session, request)
        elif request.method == "subscriptions/listen":
            await self._listen(session, request)
        else:
            _check_mirrored_arguments(session, request)
            log = StreamLog("answer", capacity=self._settings.stream_capacity)
            await self._answer(await self._begin(session, request, log), request, log)

    async def _lease(self, request: _Request) -> Session:
        """The principal's session. Raises `VmcpError`, and `ClientGone` if the client does not wait for it."""
        session = self._supervisor.find_leased(ANONYMOUS, request.client)
        if session is not None:
            return session
        leased: Reply[Session] = Reply()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_disconnect, request.receive, nursery.cancel_scope)
            try:
                leased.set_value(await self._supervisor.lease(ANONYMOUS, request.client))
            except VmcpError as error:
                leased.set_error(error)
            nursery.cancel_scope.cancel("the lease is there")
        leased.set_error(ClientGone())  # only if nothing else was set
        return leased.result()

    async def _begin(self, session: Session, request: _Request, log: StreamLog) -> InteractiveCall:
        context = _context(log, request)
        try:
            return session.interact(request.method, request.params, context)
        except SessionClosed:
            # It ended between two requests; the principal gets another.
            session = await self._lease(request)
            return session.interact(request.method, request.params, context)

    async def _discover(self, session: Session, request: _Request) -> None:
        result: JsonObject = {
            "supportedVersions": list(STATELESS_REVISIONS),
            "capabilities": session.capabilities,
            **session.freshness.fields,
        }
        if session.instructions is not None:
            result["instructions"] = session.instructions
        await send_response(request.send, 200, encode_result(request.id, self._dressed(request.method, result)))

    # --- the answer ---------------------------------------------------------------------------------------------------

    async def _answer(self, call: InteractiveCall, request: _Request, log: StreamLog) -> None:
        """Answer as plain JSON; as an event stream if something comes before the result, or it takes long.

        A client that closes the stream cancels its request, down to the backend.
        """
        outcome = _Outcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_disconnect, request.receive, nursery.cancel_scope)
            nursery.start_soon(self._work, call, request, outcome, log)
            with trio.move_on_after(self._settings.keepalive_interval):
                await log.wait()
            if outcome.body is not None and log.statistics().kept == 1:
                await send_response(request.send, outcome.status, outcome.body)
            else:
                await self._writer(request).write(log)
            nursery.cancel_scope.cancel("the request is answered")

    async def _work(self, call: InteractiveCall, request: _Request, outcome: _Outcome, log: StreamLog) -> None:
        """Have the call's result encoded and put on the stream, whatever becomes of it. Raises nothing."""
        try:
            outcome.body = encode_result(request.id, self._dressed(request.method, await _result(call, request)))
        except VmcpError as error:
            outcome.status = _status(error)
            outcome.body = encode_error(request.id, _translated(error).to_jsonrpc())
        except Exception:
            logger.exception("a request failed unexpectedly")
            outcome.body = encode_error(request.id, {"code": INTERNAL_ERROR, "message": "Internal error"})
        log.put(outcome.body)
        log.finish()

    def _dressed(self, method: str, result: JsonObject) -> JsonObject:
        """A result with all that this revision requires."""
        if method in CACHEABLE and not needs_input(result):
            result = {**Freshness().fields, **result}
        return for_stateless(result, self._server_info)

    def _writer(self, request: _Request) -> EventWriter:
        return EventWriter(request.send, keepalive=self._settings.keepalive_interval, numbered=False)

    # --- what is listened for -----------------------------------------------------------------------------------------

    async def _listen(self, session: Session, request: _Request) -> None:
        """Hold the stream open, until the client or the session goes."""
        listens = self._listens.get(session)
        if listens is None:
            listens = self._listens[session] = Listens(
                session, capacity=self._settings.stream_capacity, server_info=self._server_info
            )
            session.listen(listens.notify, on_closing=partial(self._closing, session))
        listen = await listens.open(request.id, request.params)
        try:
            with session.stream_open():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_disconnect, request.receive, nursery.cancel_scope)
                    await self._writer(request).write(listen.log)
                    nursery.cancel_scope.cancel("the stream has ended")
        finally:
            listens.closed(listen)

    def _closing(self, session: Session) -> None:
        listens = self._listens.pop(session, None)
        if listens is not None:
            listens.close()


def _context(log: StreamLog, request: _Request) -> RequestContext:
    log_level = request.envelope.log_level

    def on_notice(notice: Notice) -> None:
        if notice.method not in _ONLY_STATEFUL and _loud_enough(notice, log_level):
            log.notify(notice)

    meta = request.params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return RequestContext(
        on_notice,
        era=Era.STATELESS,
        capabilities=request.client.capabilities,
        log_level=log_level,
        progress_token=token if isinstance(token, str | int) else None,
    )


def _loud_enough(notice: Notice, log_level: str | None) -> bool:
    """Log messages are sent to those only who asked for them, from the level on that they asked for."""
    if notice.method != "notifications/message":
        return True
    level = (notice.params or {}).get("level")
    if log_level is None:
        return False
    return level not in LOG_LEVELS or LOG_LEVELS.index(level) >= LOG_LEVELS.index(log_level)


def _relayed(capabilities: JsonObject) -> JsonObject:
    """What backends are told of the client's capabilities: without those that could not be used through us."""
    kept = {name: value for name, value in capabilities.items() if name not in NOT_RELAYED}
    extensions = kept.get("extensions")
    if isinstance(extensions, dict):
        kept["extensions"] = {name: value for name, value in extensions.items() if name not in NOT_RELAYED}
    return kept


def _check_mirrored_arguments(session: Session, request: _Request) -> None:
    """Raises `HeaderMismatch` if an argument that the tool has repeated in a header is not the same there."""
    if request.method != "tools/call":
        return
    name = request.params.get("name")
    tool = session.find_tool(name) if isinstance(name, str) else None
    arguments = unfolded(request.params).get("arguments") or {}
    if tool is None or not isinstance(arguments, dict):
        return
    verdict = validate_mcp_param_headers(tool.get("inputSchema"), arguments, request.headers)
    if verdict is not None:
        raise HeaderMismatch(verdict.message)


def _status(error: VmcpError) -> int:
    """The HTTP status: the one that the revision assigns to the code, else 200 for answers of those behind us."""
    if isinstance(error, Relayed) or error.http_status not in (429, 503):
        return ERROR_CODE_HTTP_STATUS.get(_translated(error).code, 200)
    return error.http_status


def _translated(error: VmcpError) -> VmcpError:
    """An error in this revision's codes."""
    if error.code == RESOURCE_NOT_FOUND:
        return InvalidParams(error.message, data=error.data)
    return error


async def _result(call: InteractiveCall, request: _Request) -> JsonObject:
    """The result of a call. Cancelling it cancels the call. Raises `VmcpError`.

    A backend of a stateful revision may say by an error that the client is to visit some URLs first; a stateless client
    is told so by a result, visits them, and sends its request again.
    """
    try:
        return await call.result()
    except VmcpError as error:
        elicitations = error.data.get("elicitations") if isinstance(error.data, dict) else None
        if error.code != URL_ELICITATION_REQUIRED or not isinstance(elicitations, list):
            raise
        mode = request.client.capabilities.get("elicitation")
        if not isinstance(mode, dict) or "url" not in mode:
            raise MissingClientCapability(error.message, {"elicitation": {"url": {}}}) from error
    visits = [
        {"mode": "url", **{key: value for key, value in params.items() if key != "elicitationId"}}
        for params in elicitations
        if isinstance(params, dict)
    ]
    requests = {
        f"visit-{number}": {"method": "elicitation/create", "params": params} for number, params in enumerate(visits)
    }
    return {"resultType": "input_required", "inputRequests": requests}
