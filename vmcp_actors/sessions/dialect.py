"""How requests are put on one connection: plain in the stateful revisions, enveloped in the stateless one."""

from __future__ import annotations

from collections.abc import Mapping

from mcp.shared.exceptions import MCPError

from ..errors import BackendLost, BackendReplied
from ..model import BackendSpec, Era, HttpEndpoint, JsonObject
from ..transports import Transport
from ..transports.base import RequestOptions
from ..wire.revisions import LATEST_STATELESS
from ..wire.stateless import Envelope, mirrored_headers, stamped
from .backchannel import BackendRequest
from .handshake import OWN_INFO, is_closed


class Dialect:
    """Sends requests over a transport, each under an id that this connection has not used before.

    `era` is set by whoever shook hands; until then requests go as they are.
    """

    def __init__(self, spec: BackendSpec, transport: Transport, capabilities: JsonObject) -> None:
        self.era = Era.STATEFUL
        self._spec = spec
        self._transport = transport
        self._capabilities = capabilities
        self._next_id = 0

    def new_id(self) -> int:
        """An id for a request, whatever kind (MCP 2025-11-25, basic §Requests)."""
        self._next_id += 1
        return self._next_id

    @property
    def tells_cancellation(self) -> bool:
        """Whether the backend is told of a cancelled request; HTTP in the stateless revision says it by closing."""
        return self.era is Era.STATEFUL or not self._transport.closing_cancels

    @property
    def mirrors(self) -> bool:
        """Whether requests carry headers, so that tools with unusable `x-mcp-header` must not be called."""
        return self.era is Era.STATELESS and isinstance(self._spec.endpoint, HttpEndpoint)

    async def ask(self, method: str, params: JsonObject | None, headers: Mapping[str, str] | None = None) -> JsonObject:
        """A request of our own: the handshake and the lists. Raises `MCPError` or `BackendError`."""
        options: RequestOptions = {"request_id": self.new_id(), "cancel_on_abandon": False}
        if self.era is Era.STATELESS:
            params, options["headers"] = self._enveloped(method, params or {}, self._capabilities, None, None)
        elif headers is not None:
            options["headers"] = dict(headers)
        return await self._transport.send_raw_request(method, params, options)

    async def listen(self, method: str, params: JsonObject, request_id: int) -> JsonObject:
        """A request that lasts; the backend is told when it is cancelled. Raises `MCPError` or `BackendError`."""
        params, headers = self._enveloped(method, params, self._capabilities, None, None)
        options: RequestOptions = {
            "request_id": request_id,
            "headers": headers,
            "cancel_on_abandon": self.tells_cancellation,
        }
        return await self._transport.send_raw_request(method, params, options)

    async def send(
        self, request: BackendRequest, params: JsonObject, request_id: int, tool: JsonObject | None
    ) -> JsonObject:
        """A request of the client.

        Args:
            params: those of the request, with what the connection has replaced in them.
            tool: the definition of the tool that is called.

        Raises `BackendReplied` for the backend's own error, or another `BackendError`.
        """
        options: RequestOptions = {"request_id": request_id, "cancel_on_abandon": False, "folded": True}
        if request.on_break is not None:
            options["on_stream_break"] = request.on_break
        if self.era is Era.STATELESS:
            capabilities = self._capabilities if request.capabilities is None else request.capabilities
            params, options["headers"] = self._enveloped(
                request.method, params, capabilities, request.log_level, tool if self.mirrors else None
            )
        try:
            return await self._transport.send_raw_request(request.method, params, options)
        except MCPError as error:
            if is_closed(error):
                raise BackendLost(self._spec.name, f"connection lost during {request.method}") from error
            raise BackendReplied(self._spec.name, error.code, error.message, error.data) from error

    @staticmethod
    def _enveloped(
        method: str, params: JsonObject, capabilities: JsonObject, log_level: str | None, tool: JsonObject | None
    ) -> tuple[JsonObject, dict[str, str]]:
        envelope = Envelope(LATEST_STATELESS, capabilities, OWN_INFO, log_level)
        return stamped(params, envelope), mirrored_headers(method, params, tool)

    def __repr__(self) -> str:
        return f"<Dialect of {self._spec.name}: {self.era.value}, {self._next_id} requests>"
