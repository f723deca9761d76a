"""The words of the domain, as immutable values. No protocol machinery, no I/O.

MCP objects (tools, resources, results) stay the dicts that the backends sent: unknown fields must pass through
untouched (mission A3), so nothing here re-models them.
"""

from __future__ import annotations

import enum
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


class Era(enum.Enum):
    """The two kinds of revisions of MCP: with `initialize` and sessions, or with all that is needed in each request."""

    STATEFUL = "stateful"
    STATELESS = "stateless"


@frozen
class ClientProfile:
    """What a client said of itself in `initialize`, and where it came from."""

    protocol_version: str = "2025-11-25"
    capabilities: JsonObject = field(factory=dict)
    info: JsonObject = field(factory=dict)
    address: str = ""


# --- backends ---------------------------------------------------------------------------------------------------------


@frozen
class Credential:
    """Headers that say who we are, and until when they are good, on trio's clock; None if that is not known."""

    headers: Mapping[str, Secret[str]]
    expires_at: float | None = None


class Authorizer(Protocol):
    """Gives the requests to a backend their credentials; one for all sessions."""

    async def authorize(self) -> Credential:
        """The credential for a request now. Raises `CredentialsUnavailable`."""
        ...

    async def renew(self, rejected: Credential) -> bool:
        """A backend has rejected this one. Returns whether there is another now. Raises `CredentialsUnavailable`."""
        ...


@frozen
class HttpEndpoint:
    """A backend reached over HTTP. Header values may be credentials, so they are secrets; a query is not shown.

    `authorizer` gives further headers, which may change while the gateway runs.
    """

    url: str = field(repr=lambda url: repr(url.partition("?")[0]))
    kind: Literal["streamable-http", "sse"] = "streamable-http"
    headers: Mapping[str, Secret[str]] = field(factory=dict)
    authorizer: Authorizer | None = None


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
    repeated in a new one, or, for backends where running on empty state does harm, it fails. `eras` are the kinds of
    revisions that may be spoken with it. `keepalive` is after how long without use a connection to it is pinged; None
    for never (mission S15).
    """

    name: str
    endpoint: HttpEndpoint | StdioCommand
    call_timeout: float = 60.0
    connect_timeout: float = 5.0
    session_loss: Literal["retry", "error"] = "retry"
    eras: tuple[Era, ...] = tuple(Era)
    keepalive: float | None = None


CatalogKind = Literal["tools", "resources", "resource_templates", "prompts"]


@frozen
class Freshness:
    """How long something may be kept, in milliseconds, and whether by everybody (MCP 2026-07-28, caching).

    The default is what can be said of backends of the stateful revisions: nothing.
    """

    ttl_ms: int = 0
    public: bool = False

    @classmethod
    def of(cls, result: JsonObject) -> Freshness:
        """What a result says of itself."""
        ttl = result.get("ttlMs")
        return cls(ttl if isinstance(ttl, int) and ttl > 0 else 0, result.get("cacheScope") == "public")

    def __and__(self, other: Freshness) -> Freshness:
        """Of two things together: the smaller time; private if any is."""
        return Freshness(min(self.ttl_ms, other.ttl_ms), self.public and other.public)

    @property
    def fields(self) -> JsonObject:
        """As members of a result."""
        return {"ttlMs": self.ttl_ms, "cacheScope": "public" if self.public else "private"}


@frozen
class Catalog:
    """All that one backend offers, in the order and the shape in which it listed it, and how fresh each list was."""

    tools: tuple[JsonObject, ...] = ()
    resources: tuple[JsonObject, ...] = ()
    resource_templates: tuple[JsonObject, ...] = ()
    prompts: tuple[JsonObject, ...] = ()
    freshness: Mapping[CatalogKind, Freshness] = field(factory=dict)

    def with_kind(
        self, kind: CatalogKind, items: tuple[JsonObject, ...], freshness: Freshness = Freshness()
    ) -> Catalog:
        """A copy in which one kind of entry is replaced."""
        return evolve(self, **{kind: items}, freshness={**self.freshness, kind: freshness})


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

    @property
    def is_change(self) -> bool:
        """Whether it only says that something changed, so that twice says no more than once."""
        return self.method.endswith("/list_changed") or self.method == "notifications/resources/updated"


NoticeSink = Callable[[Notice], None]
"""Takes a notice without waiting. Called from the session's tasks, so it must neither block nor raise."""


def discard_notice(_: Notice) -> None:
    """The sink of callers that are not interested."""


class PendingAnswer(Protocol):
    """A request of a backend that the client has been asked."""

    on_progress: Callable[[JsonObject], None]
    """Hears of the progress that the client reports on it: the params, under whatever token. Synchronous."""

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
        era: which kind of revision the caller speaks; only in the stateless one a result may be `input_required`.
        capabilities: what the client declared in this very request; None for what its session declared.
        log_level: from which level on the caller wants log messages of this request; None leaves it to the session.
        progress_token: the one in the request, as far as the caller wants progress.
        trace: W3C trace context.
    """

    on_notice: NoticeSink = discard_notice
    ask: AskClient | None = None
    on_break: Callable[[], None] | None = None
    era: Era = Era.STATEFUL
    capabilities: JsonObject | None = None
    log_level: str | None = None
    progress_token: str | int | None = None
    trace: Mapping[str, str] = field(factory=dict)

    def with_client(self, *, on_notice: NoticeSink, ask: AskClient | None) -> RequestContext:
        """A copy with another way to the client."""
        return evolve(self, on_notice=on_notice, ask=ask)


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
