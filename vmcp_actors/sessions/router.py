"""The innermost handler of a session: takes a request to the backend that it is for, by the session's routing table."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, reduce
from typing import Any, ClassVar, Final, Protocol

import trio

from ..errors import (
    BackendProtocolError,
    InvalidParams,
    MethodNotFound,
    NoBackends,
    RoutingError,
    UnknownTool,
    VmcpError,
)
from ..model import (
    AskClient,
    CatalogKind,
    Era,
    Freshness,
    JsonObject,
    McpRequest,
    NoticeSink,
    RequestContext,
    discard_notice,
)
from ..routing import RoutingTable
from ..wire.folding import is_object
from ..wire.stateless import for_stateful, needs_input
from .backchannel import MAX_EXTENSION
from .backend import BackendConnection, BackendRequest
from .request_state import StateSeal
from .rounds import InputRounds

logger = logging.getLogger(__name__)

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class Routes(Protocol):
    """What the router reads of its session."""

    @property
    def table(self) -> RoutingTable:
        """The table as of now; it is replaced as a whole, never changed."""
        ...

    @property
    def connections(self) -> Mapping[str, BackendConnection]:
        """The session's connections by backend name."""
        ...

    log_level: str | None
    ask_client: AskClient
    client_capabilities: JsonObject
    principal: str | None
    seal: StateSeal


class Router:
    """Answers lists from the table, and sends everything else to a backend under the backend's own names."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    async def handle(self, request: McpRequest) -> JsonObject:
        """Answer one request. Raises `VmcpError`."""
        method = self._METHODS.get(request.method)
        if method is None:
            raise MethodNotFound(f"Method not found: {request.method}")
        return await method(self, request)

    # --- lists: complete, so there is no cursor that a client could have from us --------------------------------------

    async def _list_tools(self, request: McpRequest) -> JsonObject:
        return await self._whole_list(request, "tools", "tools", lambda table: table.tool_definitions)

    async def _list_resources(self, request: McpRequest) -> JsonObject:
        return await self._whole_list(request, "resources", "resources", lambda table: table.resource_definitions)

    async def _list_templates(self, request: McpRequest) -> JsonObject:
        return await self._whole_list(
            request, "resource_templates", "resourceTemplates", lambda table: table.resource_template_definitions
        )

    async def _list_prompts(self, request: McpRequest) -> JsonObject:
        return await self._whole_list(request, "prompts", "prompts", lambda table: table.prompt_definitions)

    async def _whole_list(
        self,
        request: McpRequest,
        kind: CatalogKind,
        member: str,
        definitions: Callable[[RoutingTable], tuple[JsonObject, ...]],
    ) -> JsonObject:
        if request.params.get("cursor") is not None:
            raise InvalidParams(f"{request.method}: unknown cursor; the list has one page")
        async with trio.open_nursery() as nursery:
            for connection in self._routes.connections.values():
                if connection.era is Era.STATELESS:
                    nursery.start_soon(connection.refresh, kind)
        result: JsonObject = {member: definitions(self._routes.table)}
        return result if request.context.era is Era.STATEFUL else {**result, **self._freshness(kind).fields}

    def _freshness(self, kind: CatalogKind) -> Freshness:
        """That of all backends' lists together; nothing can be said while one is missing."""
        connections = self._routes.connections.values()
        lists = [connection.freshness(kind) for connection in connections]
        given = [freshness for freshness in lists if freshness is not None]
        if not given or any(not connection.ever_ready for connection in connections):
            return Freshness()
        return reduce(Freshness.__and__, given)

    # --- requests for one backend -------------------------------------------------------------------------------------

    async def _call_tool(self, request: McpRequest) -> JsonObject:
        name = _string(request.params, "name")
        arguments = request.params.get("arguments")
        if arguments is not None and not is_object(arguments):
            raise InvalidParams("tools/call: arguments must be an object")
        route = self._route(lambda table: table.tool(name))
        return await self._send(route.backend, request, {**request.params, "name": route.original})

    async def _get_prompt(self, request: McpRequest) -> JsonObject:
        name = _string(request.params, "name")
        route = self._route(lambda table: table.prompt(name))
        return await self._send(route.backend, request, {**request.params, "name": route.original})

    async def _on_resource(self, request: McpRequest) -> JsonObject:
        uri = _string(request.params, "uri")
        route = self._route(lambda table: table.resource(uri))
        watched = self._routes.connections[route.backend].watched
        result = await self._send(route.backend, request, {**request.params, "uri": route.original})
        if request.method == "resources/subscribe":
            watched[route.original] = None
        elif request.method == "resources/unsubscribe":
            watched.pop(route.original, None)
        return result

    async def _complete(self, request: McpRequest) -> JsonObject:
        reference = request.params.get("ref")
        if not isinstance(reference, dict):
            raise InvalidParams("completion/complete: ref must be an object")
        route, own_reference = self._route(lambda table: table.completion(reference))
        return await self._send(route.backend, request, {**request.params, "ref": own_reference})

    async def _send(self, backend: str, request: McpRequest, params: JsonObject) -> JsonObject:
        """Send a request to a backend, across whatever lies between the revisions of the two.

        A stateless client hears that input is needed; a stateful one is asked for it.
        """
        connection = self._routes.connections[backend]
        context = request.context
        send = partial(self._send_once, connection, request.method, context)
        if context.era is Era.STATELESS:
            await self._raise_log_level(context.log_level)
            return await self._send_for_stateless(connection, send, params)
        result = await send(params)
        if connection.era is Era.STATEFUL:
            return result
        if needs_input(result):
            rounds = InputRounds(
                backend,
                send=send,
                ask=context.ask or self._routes.ask_client,
                capabilities=self._routes.client_capabilities,
                patience=MAX_EXTENSION * connection.spec.call_timeout,
            )
            result = await rounds.run(params, result)
        if result.get("resultType", "complete") != "complete":
            raise BackendProtocolError(backend, f"sent a result of unknown kind {result['resultType']!r}")
        return for_stateful(result)

    async def _send_for_stateless(
        self, connection: BackendConnection, send: Callable[[JsonObject], Awaitable[JsonObject]], params: JsonObject
    ) -> JsonObject:
        """What needs input is the client's to fulfil. A state goes back to the backend and the principal it is from.

        It passes exactly as it is where there is only one principal: anybody.
        """
        principal, seal, backend = self._routes.principal, self._routes.seal, connection.spec.name
        state = params.get("requestState")
        if connection.era is Era.STATEFUL:
            if state is not None:
                raise InvalidParams("requestState is unknown or expired")
            return await send({key: value for key, value in params.items() if key != "inputResponses"})
        if principal is None:
            return await send(params)
        if isinstance(state, str):
            params = {**params, "requestState": seal.open(principal, backend, state)}
        result = await send(params)
        given = result.get("requestState")
        return {**result, "requestState": seal.seal(principal, backend, given)} if isinstance(given, str) else result

    async def _send_once(
        self, connection: BackendConnection, method: str, context: RequestContext, params: JsonObject
    ) -> JsonObject:
        log_level = context.log_level if context.era is Era.STATELESS else self._routes.log_level
        return await connection.request(
            BackendRequest(
                method,
                params,
                context.on_notice,
                context.ask,
                context.on_break,
                capabilities=context.capabilities,
                log_level=log_level,
            )
        )

    def _route(self, find: Callable[[RoutingTable], Any]) -> Any:
        """Look something up; when it is not there, say which backends are missing that may have had it."""
        connections = self._routes.connections
        try:
            return find(self._routes.table)
        except RoutingError as error:
            missing = {
                name: connection.unavailable_text()
                for name, connection in connections.items()
                if not connection.ever_ready
            }
            if connections and len(missing) == len(connections) and isinstance(error, UnknownTool):
                raise NoBackends(missing) from error
            if missing:
                waiting = "; ".join(f"backend {name}: {text}" for name, text in sorted(missing.items()))
                raise type(error)(f"{error.message} (not connected yet: {waiting})") from error
            raise

    # --- requests for all backends ------------------------------------------------------------------------------------

    async def _set_level(self, request: McpRequest) -> JsonObject:
        level = request.params.get("level")
        if level not in LOG_LEVELS:
            raise InvalidParams(f"logging/setLevel: level must be one of {', '.join(LOG_LEVELS)}")
        await self._set_levels(level, request.context.on_notice)
        return {}

    async def _set_levels(self, level: str, on_notice: NoticeSink) -> None:
        self._routes.log_level = level
        async with trio.open_nursery() as nursery:
            for connection in self._routes.connections.values():
                if connection.ready:
                    nursery.start_soon(set_level, connection, level, on_notice)

    async def _raise_log_level(self, level: str | None) -> None:
        """Have the backends of stateful revisions send what a stateless client wants to hear with this request.

        They know one level for the session, so it is the most talkative one that was ever wanted.
        """
        known = self._routes.log_level
        if level is not None and (known is None or LOG_LEVELS.index(level) < LOG_LEVELS.index(known)):
            await self._set_levels(level, discard_notice)

    async def _ping(self, _: McpRequest) -> JsonObject:
        await trio.lowlevel.checkpoint()
        return {}

    _METHODS: ClassVar[Mapping[str, Callable[[Router, McpRequest], Awaitable[JsonObject]]]] = {
        "tools/list": _list_tools,
        "resources/list": _list_resources,
        "resources/templates/list": _list_templates,
        "prompts/list": _list_prompts,
        "tools/call": _call_tool,
        "resources/read": _on_resource,
        "resources/subscribe": _on_resource,
        "resources/unsubscribe": _on_resource,
        "prompts/get": _get_prompt,
        "completion/complete": _complete,
        "logging/setLevel": _set_level,
        "ping": _ping,
    }


async def subscribe_again(connection: BackendConnection) -> None:
    """Tell a backend that has a new session, or revision, which resources the client watches. Raises nothing."""
    for uri in list(connection.watched):
        try:
            await connection.request(BackendRequest("resources/subscribe", {"uri": uri}))
        except VmcpError as error:
            logger.info("not subscribed again: %s", error)


async def set_level(connection: BackendConnection, level: str, on_notice: NoticeSink) -> None:
    """Tell one backend the client's log level. Raises nothing: one that refuses, or is busy, keeps its own.

    One of the stateless revision is told with each request.
    """
    if connection.era is Era.STATELESS or "logging" not in connection.capabilities:
        return
    try:
        await connection.request(BackendRequest("logging/setLevel", {"level": level}, on_notice))
    except VmcpError as error:
        logger.info("log level not set: %s", error)


def _string(params: JsonObject, key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise InvalidParams(f"{key} must be a string")
    return value
