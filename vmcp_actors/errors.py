"""The one tree of errors.

Every class says four things about itself, so that no caller has to guess:

* `http_status`: the status with which the HTTP edge answers it when it is raised before a response has started;
* `jsonrpc_code`: the code of the JSON-RPC error that a client sees;
* `retry_after`: seconds after which trying again makes sense, where the HTTP edge can say so;
* `delivered`: whether the work it was raised for reached the one who was to do it. Only `Delivered.NO` may be
  retried (mission S10): a tool call must never run twice because of us.

Foreign exceptions (trio, ssl, httptools, the MCP SDK, cattrs) are translated into these at one place per boundary.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
SESSION_NOT_FOUND = -32001
RESOURCE_NOT_FOUND = -32002
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_PROTOCOL_VERSION = -32022


class Delivered(enum.Enum):
    """Whether a piece of work reached the one who was to do it."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class VmcpError(Exception):
    """Base of every error that this package raises on purpose."""

    http_status: ClassVar[int] = 500
    jsonrpc_code: ClassVar[int] = INTERNAL_ERROR
    retry_after: ClassVar[int | None] = None
    default_delivered: ClassVar[Delivered] = Delivered.NO

    def __init__(self, message: str, *, delivered: Delivered | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.delivered = delivered or self.default_delivered

    @property
    def code(self) -> int:
        """The JSON-RPC code of this error."""
        return self.jsonrpc_code

    @property
    def data(self) -> Any:
        """The `data` member of the JSON-RPC error, or None."""
        return None

    def to_jsonrpc(self) -> dict[str, Any]:
        """The JSON-RPC error object: code, message and, where there is any, data."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


class Relayed(VmcpError):
    """Somebody else's JSON-RPC error on its way to whom it is for: code, message and data stay theirs (mission A3)."""

    default_delivered = Delivered.YES

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        VmcpError.__init__(self, message)  # not super(): a backend's errors take its name first
        self._code = code
        self._data = data

    @property
    def code(self) -> int:
        """Their own code."""
        return self._code

    @property
    def data(self) -> Any:
        """Their own data."""
        return self._data


# --- actors -----------------------------------------------------------------------------------------------------------


class ActorError(VmcpError):
    """Something about an actor, not about the work it was asked to do."""


class Busy(ActorError):
    """Too much work is queued or running; nothing was enqueued."""

    http_status = 503
    jsonrpc_code = SERVER_ERROR
    retry_after = 1


class ActorStopped(ActorError):
    """The actor ended, or refuses new work because it is ending."""

    http_status = 503
    jsonrpc_code = SERVER_ERROR


class CallCancelled(ActorError):
    """The call was cancelled by its caller before it had a result."""

    http_status = 500
    jsonrpc_code = SERVER_ERROR
    default_delivered = Delivered.UNKNOWN


class DeadlineExceeded(ActorError):
    """The call had no result by its deadline."""

    http_status = 504
    jsonrpc_code = SERVER_ERROR
    default_delivered = Delivered.UNKNOWN


class CallingSelf(ActorError):
    """A call would come back to an actor that is already handling it, and wait for itself for ever."""


class RestartsExhausted(ActorError):
    """A supervised child crashed more often than its restart intensity allows."""


# --- sessions ---------------------------------------------------------------------------------------------------------


class SessionError(VmcpError):
    """Something about a client's session."""


class SessionNotFound(SessionError):
    """No such session for this principal: unknown, ended, or somebody else's (indistinguishable on purpose)."""

    http_status = 404
    jsonrpc_code = SESSION_NOT_FOUND

    def __init__(self) -> None:
        super().__init__("Session not found")


class SessionClosed(SessionError):
    """The session is ending and takes no new calls."""

    http_status = 404
    jsonrpc_code = SESSION_NOT_FOUND

    def __init__(self) -> None:
        super().__init__("session closed")


class SessionLimitReached(SessionError):
    """Admission of a new session was refused. The text discloses no numbers (mission S13)."""

    http_status = 503
    jsonrpc_code = SERVER_ERROR
    retry_after = 30

    def __init__(self) -> None:
        super().__init__("Maximum concurrent sessions exceeded. Please try again later or contact administrator.")


class Draining(SessionError):
    """The gateway is shutting down and starts no new sessions."""

    http_status = 503
    jsonrpc_code = SERVER_ERROR
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("The gateway is shutting down")


class SessionExists(SessionError):
    """A store already holds metadata under this session id."""


# --- routing ----------------------------------------------------------------------------------------------------------


class RoutingError(VmcpError):
    """A request names something that no backend of this session has."""

    jsonrpc_code = INVALID_PARAMS
    http_status = 200


class UnknownTool(RoutingError):
    """No backend of this session has a tool of this name."""


class UnknownPrompt(RoutingError):
    """No backend of this session has a prompt of this name."""


class UnknownResource(RoutingError):
    """No backend of this session has this resource or a template that fits it."""

    jsonrpc_code = RESOURCE_NOT_FOUND


class UnresolvedConflicts(RoutingError):
    """Strategy `manual`: names clash and no override settles them."""

    jsonrpc_code = INTERNAL_ERROR
    http_status = 500

    def __init__(self, conflicts: Mapping[str, Sequence[str]]) -> None:
        lines = [f"{name} ({', '.join(backends)})" for name, backends in sorted(conflicts.items())]
        super().__init__(
            "conflictResolution is manual and these names are offered by several backends without an override: "
            + "; ".join(lines)
        )
        self.conflicts = {name: tuple(backends) for name, backends in conflicts.items()}


# --- backends ---------------------------------------------------------------------------------------------------------


class BackendError(VmcpError):
    """Something about a backend; always names it."""

    http_status = 502
    jsonrpc_code = SERVER_ERROR

    def __init__(self, backend: str, message: str, *, delivered: Delivered | None = None) -> None:
        super().__init__(f"backend {backend}: {message}", delivered=delivered)
        self.backend = backend
        self.reason = message


class BackendUnavailable(BackendError):
    """The backend cannot be reached now; the request was not sent."""


class BackendRevisionRefused(BackendUnavailable):
    """The backend is there, and speaks none of the revisions that were asked for."""


class BackendLost(BackendError):
    """The connection ended while a request was under way: the backend may or may not have run it."""

    default_delivered = Delivered.UNKNOWN


class BackendSessionLost(BackendError):
    """The backend no longer knows our session (HTTP 404): it provably did not run the request."""


class BackendRevisionChanged(BackendError):
    """The backend no longer speaks the revision that was agreed: it provably did not run the request."""


class BackendUnauthorized(BackendError):
    """The backend refused our credentials (HTTP 401 or 403)."""


class CredentialsUnavailable(VmcpError):
    """A credential towards a backend cannot be had now; nothing was sent."""

    http_status = 502
    jsonrpc_code = SERVER_ERROR


class BackendTimeout(BackendError):
    """The backend did not answer in time; it has been told to cancel."""

    http_status = 504
    default_delivered = Delivered.UNKNOWN


class BackendProtocolError(BackendError):
    """The backend sent something that is not MCP, or more than we accept."""

    default_delivered = Delivered.UNKNOWN


class NoBackends(BackendError):
    """No backend of the session came up, so nothing can be routed (mission S6)."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        text = (
            "No tools available: all backends failed to initialize during session setup. "
            "Check backend health and retry."
        )
        if reasons:
            text += " (" + "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items())) + ")"
        VmcpError.__init__(self, text)
        self.backend = ""
        self.reason = text
        self.reasons = dict(reasons)


class BackendReplied(Relayed, BackendError):
    """The backend answered with a JSON-RPC error."""

    http_status = 200

    def __init__(self, backend: str, code: int, message: str, data: Any = None) -> None:
        Relayed.__init__(self, code, message, data)
        self.backend = backend
        self.reason = message


# --- the client, asked by a backend -----------------------------------------------------------------------------------


class ClientError(VmcpError):
    """Something about the client of a session, on behalf of a backend that asked it something."""

    jsonrpc_code = INTERNAL_ERROR


class ClientUnreachable(ClientError):
    """The client cannot be asked, or nobody waits for its answer any more."""


class MissingClientCapability(ClientError):
    """A backend needs something of the client that it has not declared; `required` as in a client's capabilities."""

    http_status = 400
    jsonrpc_code = MISSING_CLIENT_CAPABILITY

    def __init__(self, message: str, required: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.required = dict(required)

    @property
    def data(self) -> Any:
        """`{requiredCapabilities}` as MCP 2026-07-28 asks."""
        return {"requiredCapabilities": self.required}


class ClientReplied(Relayed, ClientError):
    """The client answered with a JSON-RPC error."""


# --- the HTTP edge ----------------------------------------------------------------------------------------------------


class RequestError(VmcpError):
    """A request that the server refuses before any session sees it."""

    http_status = 400
    jsonrpc_code = INVALID_REQUEST


class ParseError(RequestError):
    """The body is not JSON."""

    jsonrpc_code = PARSE_ERROR


class InvalidParams(RequestError):
    """The parameters of a request have the wrong shape, or name something that is not there."""

    http_status = 200
    jsonrpc_code = INVALID_PARAMS

    def __init__(self, message: str, *, data: Any = None) -> None:
        super().__init__(message)
        self._data = data

    @property
    def data(self) -> Any:
        """What else there is to say."""
        return self._data


class MethodNotFound(RequestError):
    """A JSON-RPC method that is not served."""

    http_status = 200
    jsonrpc_code = METHOD_NOT_FOUND


class BadOrigin(RequestError):
    """The Origin header names a site that may not talk to this server (DNS rebinding, MCP transports §Security)."""

    http_status = 403


class BadHost(RequestError):
    """The Host header names a host that this server is not (RFC 9110 §7.4)."""

    http_status = 421


class WrongMethod(RequestError):
    """An HTTP method that the endpoint does not serve; `allowed` is for the Allow header (RFC 9110 §15.5.6)."""

    http_status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"Method {method} is not allowed, only {allowed}")
        self.allowed = allowed


class NotAcceptable(RequestError):
    """The Accept header does not admit both JSON and an event stream (MCP transports §Sending Messages)."""

    http_status = 406


class RequestTimeout(RequestError):
    """The request body did not arrive in time (RFC 9110 §15.5.9)."""

    http_status = 408


class BodyTooLarge(RequestError):
    """The request body exceeds `server.maxBodyBytes`."""

    http_status = 413


class HeaderMismatch(RequestError):
    """The headers of a request say something else than its body (MCP 2026-07-28, transports §Standard Headers)."""

    jsonrpc_code = HEADER_MISMATCH


class WrongContentType(RequestError):
    """The request body is not `application/json`."""

    http_status = 415


class UnsupportedProtocolVersion(RequestError):
    """The client asked for a protocol revision that is not served here."""

    jsonrpc_code = UNSUPPORTED_PROTOCOL_VERSION

    def __init__(self, requested: str, supported: Sequence[str]) -> None:
        super().__init__(f"Unsupported protocol version: {requested} (supported: {', '.join(supported)})")
        self._data = {"requested": requested, "supported": list(supported)}

    @property
    def data(self) -> Any:
        """`{requested, supported}` as MCP 2026-07-28 asks."""
        return self._data


# --- configuration ----------------------------------------------------------------------------------------------------


class ConfigError(VmcpError):
    """The configuration is unusable; `problems` has one line for each thing to mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
