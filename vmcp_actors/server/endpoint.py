"""The MCP endpoint: one path for clients of the stateful revisions and of the stateless one, told apart by request."""

from __future__ import annotations

from functools import lru_cache

from ..errors import NotAcceptable, UnsupportedProtocolVersion, VmcpError, WrongContentType, WrongMethod
from ..sessions import SessionSupervisor
from ..settings import ServerSettings
from ..wire.messages import Message, decode_message
from ..wire.revisions import ASSUMED_REVISION, STATEFUL_REVISIONS, STATELESS_REVISIONS
from ..wire.stateless import PROTOCOL_VERSION
from .http import Headers, Receive, Scope, Send, read_body, send_error
from .stateful import StatefulEndpoint
from .stateless import StatelessEndpoint

VERSION_HEADER = "mcp-protocol-version"


class Endpoint:
    """Serves the endpoint. One instance for the process; every request is served in its own task."""

    def __init__(self, supervisor: SessionSupervisor, settings: ServerSettings, *, name: str) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._stateful = StatefulEndpoint(supervisor, settings, name=name)
        self._stateless = StatelessEndpoint(supervisor, settings, name=name)

    async def serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Serve one HTTP request. Raises `VmcpError` for a request that is refused, and nothing has been sent then."""
        method = scope["method"]
        if method == "POST":
            await self._post(scope, headers, receive, send)
            return
        version = headers.get(VERSION_HEADER, ASSUMED_REVISION)
        if version in STATELESS_REVISIONS and version in self._supervisor.revisions:
            raise WrongMethod(method, "POST")
        match method:
            case "GET":
                check_accepts(headers, "text/event-stream")
                self._check_stateful(version)
                await self._stateful.get(headers, receive, send)
            case "DELETE":
                self._check_stateful(version)
                await self._stateful.delete(headers, send)
            case _:
                raise WrongMethod(method, "GET, POST, DELETE")

    async def _post(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        check_accepts(headers, "application/json", "text/event-stream")
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise WrongContentType(f"Content-Type must be application/json, not {content_type or 'absent'}")
        settings = self._settings
        body = await read_body(scope, headers, receive, limit=settings.max_body_bytes, seconds=settings.body_timeout)
        message = decode_message(body)
        try:
            if self._is_stateless(headers, message):
                await self._stateless.post(message, scope, headers, receive, send)
                return
            if not (message.is_request and message.method == "initialize"):
                self._check_stateful(headers.get(VERSION_HEADER, ASSUMED_REVISION))
            await self._stateful.post(message, scope, headers, send)
        except VmcpError as error:
            # Refused with the id of the request, so that the client can tell which one it was.
            await send_error(send, error, message.id if message.is_request else None)  # type: ignore[arg-type]

    def _is_stateless(self, headers: Headers, message: Message) -> bool:
        """Whether a message is of a stateless revision, as its envelope says, or its headers (MCP 2026-07-28,
        basic/versioning §Dual-era servers). So are revisions that nobody knows: they are newer.
        """
        meta = message.meta
        if PROTOCOL_VERSION in meta:
            return meta[PROTOCOL_VERSION] not in STATEFUL_REVISIONS
        return headers.get(VERSION_HEADER) in STATELESS_REVISIONS

    def _check_stateful(self, version: str) -> None:
        if version not in STATEFUL_REVISIONS:
            raise UnsupportedProtocolVersion(version, self._supervisor.revisions)


def check_accepts(headers: Headers, *needed: str) -> None:
    """Raises `NotAcceptable` unless the Accept header admits all of these media types."""
    accept = headers.get("accept")
    if accept is not None and not _admits(accept, needed):
        raise NotAcceptable(f"Accept must include {' and '.join(needed)}")


@lru_cache(maxsize=32)
def _admits(accept: str, needed: tuple[str, ...]) -> bool:
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return all(ranges & {wanted, f"{wanted.partition('/')[0]}/*", "*/*"} for wanted in needed)
