"""An MCP backend over streamable HTTP (2025-11-25) that counts what it is asked, and misbehaves on demand.

Written on sockets, not on the SDK: what it sends is what its code says, odd fields and faults included. In a test:

    async with open_counting_backend(answer="sse") as backend:
        ...  # backend.url
        backend.forget_sessions()
        assert backend.counts["initialize"] == 2

As a process, `python -m tests.e2e.backends.counting --port N [--behaviour JSON]` prints `ready URL` and serves until
SIGTERM; `GET /counts` and `GET /sessions` tell there what the attributes tell in a test.
"""

import argparse
import base64
import binascii
import dataclasses
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio

from tests.e2e.backends import _catalogue as catalogue
from tests.e2e.backends._catalogue import error_result, text_result
from tests.e2e.backends._http import EVENT_STREAM, CloseConnection, Exchange, serve_connection
from tests.e2e.backends._session import BackendSession

VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25")
Params = dict[str, Any]


class RpcError(Exception):
    """Becomes a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


@dataclasses.dataclass(kw_only=True, eq=False)
class CountingBackend:
    """The backend. Its behaviour is in its attributes: change them at any time, they act from the next request on.

    Requests that no client should send (an initialize without params, say) are not answered nicely: they raise here.
    """

    answer: Literal["json", "sse"] = "json"
    """How requests are answered. `progress` and `ask` answer by SSE in any case."""
    init_delay: float = 0
    list_delay: float = 0
    silent: bool = False
    """Take requests, count them, and never answer."""
    get_405: bool = False
    page_size: int | None = None
    retry: int | None = None
    """The milliseconds that GET streams name as the time to reconnect after."""
    require_headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Requests without these headers and values get 401."""
    status_for: dict[str, int] = dataclasses.field(default_factory=dict)
    """Statuses to refuse methods with, of JSON-RPC or of HTTP: `{"tools/call": 503, "DELETE": 405}`."""
    crash_mid_call: str | bool = False
    """Close the connection in the middle of a call, of the tool so named or of any; the call counts as made."""

    url: str = ""
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    sessions: dict[str, BackendSession] = dataclasses.field(default_factory=dict)
    history: list[tuple[str | None, str, Any]] = dataclasses.field(default_factory=list)
    """(session id, method, params) of each message, in order of arrival."""
    _connections: set[trio.CancelScope] = dataclasses.field(default_factory=set)
    _streams: set[trio.CancelScope] = dataclasses.field(default_factory=set)

    # What a test may do to it.

    def forget_sessions(self) -> None:
        """Answer 404 in all sessions there are now. Connections and streams stay; calls in flight go on."""
        self.sessions.clear()

    def drop_get_streams(self) -> None:
        """End all GET streams in good order."""
        for scope in self._streams:
            scope.cancel()

    def close_connections(self) -> None:
        """Close all connections in the middle of whatever they do; calls in flight are gone."""
        for scope in self._connections:
            scope.cancel()

    def notify(self, method: str, params: Params | None = None) -> None:
        """Send a notification to every session."""
        for session in self.sessions.values():
            session.notify(method, params)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def open_streams(self) -> int:
        """How many GET streams are open."""
        return len(self._streams)

    # HTTP.

    async def connection(self, stream: trio.SocketStream) -> None:
        self.counts["connections"] += 1
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                await serve_connection(stream, self._handle)
            finally:
                self._connections.discard(scope)

    async def _handle(self, exchange: Exchange) -> None:
        if exchange.path == "/counts":
            return await exchange.reply(200, self.counts)
        if exchange.path == "/sessions":
            return await exchange.reply(200, {s.id: {"counter": s.counter} for s in self.sessions.values()})
        if exchange.path != "/mcp":
            return await exchange.reply(404)
        if exchange.method == "POST":
            return await self._post(exchange)
        self.counts[exchange.method] += 1
        if not await self._admitted(exchange, exchange.method, None):
            return None
        if exchange.method not in ("GET", "DELETE") or (exchange.method == "GET" and self.get_405):
            return await exchange.reply(405, headers={"allow": "GET, POST, DELETE"})
        session = await self._session(exchange, None)
        if session is None:
            return None
        self.history.append((session.id, exchange.method, None))
        if exchange.method == "GET":
            return await self._get(exchange, session)
        del self.sessions[session.id]
        for scope in session.streams:
            scope.cancel()
        return await exchange.reply(200)

    async def _get(self, exchange: Exchange, session: BackendSession) -> None:
        last_event_id = exchange.headers.get("last-event-id")
        if last_event_id is not None:
            self.counts["resume"] += 1
        async with trio.open_nursery() as nursery:
            self._streams.add(nursery.cancel_scope)
            try:

                async def watch() -> None:
                    await exchange.wait_gone()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                await session.serve_stream(exchange, last_event_id, self.retry)
                nursery.cancel_scope.cancel()
            finally:
                self._streams.discard(nursery.cancel_scope)
        await exchange.end()

    async def _post(self, exchange: Exchange) -> None:
        self.counts["post"] += 1
        try:
            message = json.loads(exchange.body)
        except ValueError:
            return await exchange.reply(400, _error(None, -32700, "Parse error"))
        if not isinstance(message, dict):
            return await exchange.reply(400, _error(None, -32600, "Not one message"))
        method, request_id = message.get("method", "response"), message.get("id")
        self.counts[method] += 1
        self.history.append((exchange.headers.get("mcp-session-id"), method, message.get("params")))
        if not await self._admitted(exchange, method, request_id):
            return None
        headers = {}
        if method == "initialize":
            await trio.sleep(self.init_delay)
            version = message["params"]["protocolVersion"]
            session = BackendSession(version if version in VERSIONS else VERSIONS[-1], message["params"])
            self.sessions[session.id] = session
            headers["mcp-session-id"] = session.id
        elif (found := await self._session(exchange, request_id)) is None:
            return None
        else:
            session = found
        if "method" not in message or request_id is None:
            self._take(session, message)
            return await exchange.reply(202)
        return await self._answer(exchange, session, message, headers)

    async def _admitted(self, exchange: Exchange, method: str, request_id: Any) -> bool:
        """Whether to go on with a request; if not, it has been answered."""
        if self.silent:
            await trio.sleep_forever()
        status = self.status_for.get(method)
        if any(exchange.headers.get(name.lower()) != value for name, value in self.require_headers.items()):
            status = 401
        accept = exchange.headers.get("accept", "")
        if exchange.method == "POST" and not ("application/json" in accept and EVENT_STREAM in accept):
            status = status or 406
        if exchange.method == "POST" and not exchange.headers.get("content-type", "").startswith("application/json"):
            status = status or 415
        if status is not None:
            more = {"www-authenticate": 'Bearer error="invalid_token"'} if status == 401 else None
            await exchange.reply(status, _error(request_id, -32000, f"refused with {status}"), more)
        return status is None

    async def _session(self, exchange: Exchange, request_id: Any) -> BackendSession | None:
        """The session of a request; None if there is none or its version is wrong, and then it has been answered."""
        name = exchange.headers.get("mcp-session-id")
        session = self.sessions.get(name or "")
        if name is None:
            await exchange.reply(400, _error(request_id, -32600, "Missing session id"))
        elif session is None:
            await exchange.reply(404, _error(request_id, -32001, "Session not found"))
        elif exchange.headers.get("mcp-protocol-version", session.protocol_version) != session.protocol_version:
            await exchange.reply(400, _error(request_id, -32600, "Wrong protocol version"))
        else:
            return session
        return None

    # JSON-RPC.

    def _take(self, session: BackendSession, message: Params) -> None:
        """A notification or a response."""
        if "method" not in message:
            self.counts["response taken"] += session.answered(message)
        elif message["method"] == "notifications/cancelled":
            call = session.calls.get(message["params"]["requestId"])
            if call is not None:
                self.counts["cancelled"] += 1
                call.cancel()

    async def _answer(self, exchange: Exchange, session: BackendSession, message: Params, headers: Params) -> None:
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        if self.answer == "sse":
            await exchange.start_events(headers)
        with trio.CancelScope() as scope:
            session.calls[message["id"]] = scope
            try:
                reply["result"] = await self._result(exchange, session, message["method"], message.get("params") or {})
            except RpcError as error:
                reply["error"] = error.error
            except (KeyError, TypeError) as error:
                reply["error"] = {"code": -32602, "message": f"Missing or wrong: {error}"}
            finally:
                session.calls.pop(message["id"], None)
        if scope.cancelled_caught:  # a cancelled request has no response: the stream ends without one
            await exchange.start_events(headers)
        elif exchange.streaming:
            await exchange.event(reply)
        else:
            return await exchange.reply(200, reply, headers)
        return await exchange.end()

    async def _result(self, exchange: Exchange, session: BackendSession, method: str, params: Params) -> Params:
        if method.endswith("/list"):
            await trio.sleep(self.list_delay)
        match method:
            case "initialize":
                return {
                    "protocolVersion": session.protocol_version,
                    "capabilities": catalogue.CAPABILITIES,
                    "serverInfo": catalogue.SERVER_INFO,
                    "instructions": catalogue.INSTRUCTIONS,
                }
            case "tools/list":
                return self._page([*catalogue.TOOLS, *session.grown], params.get("cursor"))
            case "resources/list":
                return {"resources": catalogue.RESOURCES}
            case "resources/templates/list":
                return {"resourceTemplates": catalogue.TEMPLATES}
            case "prompts/list":
                return {"prompts": catalogue.PROMPTS}
            case "tools/call":
                return await self._call(exchange, session, params)
            case "resources/read":
                uri = params["uri"]
                if uri != "counting://one" and not uri.startswith("counting://item/"):
                    raise RpcError(-32002, "Resource not found", {"uri": uri})
                return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": f"text of {uri}", "x-unknown": 1}]}
            case "prompts/get" if params["name"] == "greet":
                text = f"Hello {params.get('arguments', {}).get('who')}"
                return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}], "x-unknown": 1}
            case "prompts/get":
                raise RpcError(-32602, "Unknown prompt")
            case "completion/complete":
                return {"completion": {"values": [params["argument"]["value"] + "!"], "hasMore": False}}
            case "logging/setLevel":
                session.log_level = params["level"]
            case "resources/subscribe":
                session.subscriptions.add(params["uri"])
            case "resources/unsubscribe":
                session.subscriptions.discard(params["uri"])
            case "ping":
                pass
            case _:
                raise RpcError(-32601, f"Method not found: {method}")
        return {}

    def _page(self, tools: list[Params], cursor: str | None) -> Params:
        try:
            start = 0 if cursor is None else int(base64.b64decode(cursor, validate=True))
        except (ValueError, binascii.Error):
            raise RpcError(-32602, "Invalid cursor") from None
        if self.page_size is None or start + self.page_size >= len(tools):
            return {"tools": tools[start:]}
        end = start + self.page_size
        return {"tools": tools[start:end], "nextCursor": base64.b64encode(str(end).encode()).decode()}

    async def _call(self, exchange: Exchange, session: BackendSession, params: Params) -> Params:
        name, arguments = params["name"], params.get("arguments") or {}
        if self.crash_mid_call in (True, name):
            raise CloseConnection
        match name:
            case "echo":
                seen = {"text": arguments["text"], "meta": params.get("_meta")}
                return text_result(arguments["text"], structuredContent=seen, **catalogue.ODD)
            case "counter":
                session.counter += 1
                return text_result(str(session.counter))
            case "sleep":
                await trio.sleep(arguments["seconds"])
                return text_result("slept")
            case "progress":
                return await self._progress(exchange, params.get("_meta", {}).get("progressToken"), arguments["steps"])
            case "fail":
                return error_result("failed as asked")
            case "error":
                raise RpcError(-32050, "error as asked", {"reason": ["as", "asked"]})
            case "grow":
                session.grown.append(catalogue.tool(f"grown_{len(session.grown) + 1}", "Was not there before."))
                session.notify("notifications/tools/list_changed")
                return text_result(session.grown[-1]["name"])
            case "big":
                return text_result("x" * arguments["bytes"])
            case "ping_me":
                with trio.move_on_after(2):
                    await session.ask("ping", {})
                    return text_result("pong")
                return error_result("no pong")
            case "ask":
                if "elicitation" not in session.client["capabilities"]:
                    return error_result("the client has no elicitation")
                answer = await session.ask("elicitation/create", catalogue.QUESTION, exchange)
                return text_result(json.dumps(answer.get("result", answer.get("error"))), isError="error" in answer)
            case _ if name in [tool["name"] for tool in session.grown]:
                return text_result(name)
            case _:
                raise RpcError(-32602, f"Unknown tool: {name}")

    async def _progress(self, exchange: Exchange, token: Any, steps: int) -> Params:
        await exchange.start_events()
        for step in range(1, steps + 1 if token is not None else 0):
            params = {"progressToken": token, "progress": step, "total": steps, "message": f"step {step}"}
            await exchange.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        log = {"level": "info", "logger": "counting", "data": {"steps": steps}}
        await exchange.event({"jsonrpc": "2.0", "method": "notifications/message", "params": log})
        return text_result(f"{steps} steps")


def _error(request_id: Any, code: int, message: str) -> Params:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


@asynccontextmanager
async def open_counting_backend(port: int = 0, **behaviour: Any) -> AsyncIterator[CountingBackend]:
    """A backend that listens on 127.0.0.1 inside the block; leaving it closes every connection at once."""
    backend = CountingBackend(**behaviour)
    [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
    backend.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, backend.connection, [listener])
        try:
            yield backend
        finally:
            nursery.cancel_scope.cancel()


async def _main(port: int, behaviour: Params) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_counting_backend(port, **behaviour) as backend:
            print(f"ready {backend.url}", flush=True)  # noqa: T201
            await anext(signals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", type=json.loads, default={}, help='a JSON object such as {"answer": "sse"}')
    chosen = parser.parse_args()
    trio.run(_main, chosen.port, chosen.behaviour)
