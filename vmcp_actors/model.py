"""The words of the domain, as immutable values. No protocol machinery, no I/O.

MCP objects (tools, resources, results) stay the dicts that the backends sent: unknown fields must pass through
untouched (mission A3), so nothing here re-models them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from attrs import evolve, field, frozen

T = TypeVar("T")

JsonObject = dict[str, Any]


class Secret(Generic[T]):
    """A value that `repr`, `str`, logs and errors cannot show. `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value itself: call it only where it goes onto the wire or into a store."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)


def short_hash(session_id: str) -> str:
    """Eight hex digits that stand for a session id wherever people read (mission X4)."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:8]


@frozen
class Identity:
    """Who a client is: issuer and subject, or anonymous (both empty). Sessions are bound to it (mission X2)."""

    issuer: str = ""
    subject: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether nobody has proven anything."""
        return not self.issuer and not self.subject

    @property
    def binding(self) -> str:
        """The string that a session is bound to. The length keeps (`a`, `bc`) and (`ab`, `c`) apart."""
        return f"{len(self.issuer)}:{self.issuer}:{self.subject}"


ANONYMOUS = Identity()


@frozen
class ClientProfile:
    """What a client said of itself in `initialize`, and where it came from."""

    protocol_version: str = "2025-11-25"
    capabilities: JsonObject = field(factory=dict)
    info: JsonObject = field(factory=dict)
    address: str = ""


# --- backends ---------------------------------------------------------------------------------------------------------


@frozen
class HttpEndpoint:
    """A backend reached over HTTP. Header values may be credentials, so they are secrets; a query is not shown."""

    url: str = field(repr=lambda url: repr(url.partition("?")[0]))
    kind: Literal["streamable-http", "sse"] = "streamable-http"
    headers: Mapping[str, Secret[str]] = field(factory=dict)


@frozen
class StdioCommand:
    """A backend that is a child process. `env` is added to a small safe part of our own environment.

    Arguments often hold tokens, so `repr` only counts them.
    """

    command: str
    args: tuple[str, ...] = field(default=(), repr=lambda args: f"<{len(args)} arguments>")
    env: Mapping[str, Secret[str]] = field(factory=dict)
    cwd: str | None = None


@frozen
class BackendSpec:
    """A backend as configured: its name, how to reach it, its times in seconds.

    `session_loss` says what becomes of a call that finds that the backend forgot our session (mission S8): it is
    repeated in a new one, or, for backends where running on empty state does harm, it fails.
    """

    name: str
    endpoint: HttpEndpoint | StdioCommand
    call_timeout: float = 60.0
    connect_timeout: float = 5.0
    session_loss: Literal["retry", "error"] = "retry"


@frozen
class Catalog:
    """All that one backend offers, in the order and the shape in which it listed it."""

    tools: tuple[JsonObject, ...] = ()
    resources: tuple[JsonObject, ...] = ()
    resource_templates: tuple[JsonObject, ...] = ()
    prompts: tuple[JsonObject, ...] = ()

    def with_kind(self, kind: CatalogKind, items: tuple[JsonObject, ...]) -> Catalog:
        """A copy in which one kind of entry is replaced."""
        return evolve(self, **{kind: items})


CatalogKind = Literal["tools", "resources", "resource_templates", "prompts"]

EMPTY_CATALOG = Catalog()


# --- requests on their way through a session --------------------------------------------------------------------------


@frozen
class Notice:
    """A notification on its way to the client: method and params as they will be sent."""

    method: str
    params: JsonObject | None = None

    @property
    def droppable(self) -> bool:
        """Whether a slow reader may lose it: progress and log messages go first."""
        return self.method in ("notifications/progress", "notifications/message")


NoticeSink = Callable[[Notice], None]
"""Takes a notice without waiting. Called from the session's tasks, so it must neither block nor raise."""


def discard_notice(_: Notice) -> None:
    """The sink of callers that are not interested."""


class PendingAnswer(Protocol):
    """A request of a backend that the client has been asked."""

    async def wait(self) -> JsonObject:
        """The client's result. Raises `ClientReplied` for its error, `ClientUnreachable` when there will be none."""
        ...

    def give_up(self, reason: str) -> None:
        """Nobody needs the answer any more: the client is told, and `wait` raises. Synchronous, idempotent."""
        ...


AskClient = Callable[[str, JsonObject], PendingAnswer]
"""Asks the client something: method and params. Synchronous; the answer is waited for. Raises `ClientUnreachable`."""


@frozen
class RequestContext:
    """What goes with a request besides its parameters; nothing travels implicitly between actors.

    Attributes:
        on_notice: takes the notifications that belong to the request.
        ask: asks the client on behalf of the request; None when it cannot be asked that way.
        on_break: told when the backend closes the stream of the request, to have it resumed later; so may we.
        trace: W3C trace context.
    """

    on_notice: NoticeSink = discard_notice
    ask: AskClient | None = None
    on_break: Callable[[], None] | None = None
    trace: Mapping[str, str] = field(factory=dict)


@frozen
class McpRequest:
    """A request in MCP's own terms."""

    method: str
    params: JsonObject
    context: RequestContext = RequestContext()


class Handler(Protocol):
    """One async method that answers a request: the session's router, and every decorator around it (mission O3)."""

    async def handle(self, request: McpRequest) -> JsonObject:
        """The result, raw. Raises `VmcpError`."""
        ...


Decorator = Callable[[Handler], Handler]


# --- session metadata (the serializable layer, mission S14) -----------------------------------------------------------


@frozen
class SessionRecord:
    """What a store keeps of a session, enough for any worker to rebuild it. Times are Unix seconds."""

    session_id: Secret[str]
    identity_binding: str
    client: ClientProfile
    backends: tuple[str, ...]
    created_at: float
    last_used_at: float
    backend_sessions: Mapping[str, Secret[str]] = field(factory=dict)
