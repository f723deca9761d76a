"""What a backend sends of its own accord: related to the requests under way, and handed upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import trio
from attrs import frozen
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import METHOD_NOT_FOUND

from ..actors import Call
from ..errors import BackendTimeout, ClientError, ClientUnreachable
from ..model import AskClient, BackendSpec, Catalog, JsonObject, Notice, NoticeSink, PendingAnswer, discard_notice
from ..wire.stateless import subscription_of, untagged
from .discovery import CHANGED

MAX_EXTENSION: Final = 10
"""Progress and questions extend a call's time, up to this many times the configured one."""

CLIENT_CAPABILITY: Final[Mapping[str, str]] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""What a client must have declared to be asked for a method."""


@frozen
class BackendRequest:
    """A request in the backend's own terms, and where what belongs to it goes.

    `capabilities` and `log_level` are for backends that are told them with each request.
    """

    method: str
    params: JsonObject
    on_notice: NoticeSink = discard_notice
    ask: AskClient | None = None
    on_break: Callable[[], None] | None = None
    capabilities: JsonObject | None = None
    log_level: str | None = None


class LinkEvents(Protocol):
    """What a link tells upwards. Synchronous: called between two awaits of the link."""

    def catalog_changed(self, catalog: Catalog, announced: str | None = None) -> None:
        """The backend offers this from now on; `announced` is the list of which it has said that it changed."""
        ...

    def notice(self, notice: Notice) -> None:
        """The backend sent a notification that belongs to no request."""
        ...

    def ask(self, method: str, params: JsonObject) -> PendingAnswer:
        """The backend asks the client something that belongs to no request. Raises `ClientUnreachable`."""
        ...


class UnderWay:
    """A request under way, as a context: while the body runs, what belongs to the request finds its way.

    Its progress token is replaced by its id, which is unique among all clients. Its time is the call's. Questions that
    are still with the client at the end are given up.

    Attributes:
        params: what to send.
        latest: progress and questions do not extend the time beyond this.
    """

    def __init__(
        self,
        under_way: dict[str | int, UnderWay],
        backend: str,
        request_id: int,
        request: BackendRequest,
        call: Call[BackendRequest, JsonObject],
        *,
        timeout: float,
    ) -> None:
        self.on_notice = request.on_notice
        self.ask = request.ask
        self.params, self.client_token = _with_own_progress_token(request.params, request_id)
        self.asked: list[PendingAnswer] = []
        self._under_way = under_way
        self._backend = backend
        self._timeout = timeout
        self._id = request_id
        self._method = request.method
        self._call = call
        self._deadline = call.deadline
        now = trio.current_time()
        self.latest = now + MAX_EXTENSION * timeout
        self.extend(now + timeout)

    def extend(self, deadline: float) -> None:
        """The request has until then, within its bound and that of its caller."""
        self._call.deadline = min(deadline, self.latest, self._deadline)

    def restart_clock(self) -> None:
        """There was progress. A question that is with the client has its own time."""
        if not self.asked:
            self.extend(trio.current_time() + self._timeout)

    def _timed_out(self) -> BackendTimeout:
        return BackendTimeout(self._backend, f"no answer to {self._method} within {self._timeout:g} s")

    def __enter__(self) -> UnderWay:
        self._call.timeout_error = self._timed_out
        self._under_way[self._id] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        del self._under_way[self._id]
        if kind is None or issubclass(kind, Exception):  # otherwise it was cancelled, perhaps by this deadline
            self._call.timeout_error = None
            self._call.deadline = self._deadline
        for answer in self.asked:
            answer.give_up("the request that it was for has ended")


class Backchannel:
    """The backend's way to talk to us and to the client, over one connection.

    It knows the requests under way by their ids, because what a backend sends often belongs to one of them. A pipe
    does not say to which; but a single one under way must be it.

    Attributes:
        may_ask: the backend may send requests; in the stateless revision it must not.
    """

    def __init__(
        self,
        spec: BackendSpec,
        *,
        client_capabilities: JsonObject,
        events: LinkEvents,
        on_changed: Callable[[Iterable[str]], None],
        on_acknowledged: Callable[[object, JsonObject], None],
        tell: Callable[[str, JsonObject], None],
    ) -> None:
        self._spec = spec
        self._client_capabilities = client_capabilities
        self._events = events
        self._on_changed = on_changed
        self._on_acknowledged = on_acknowledged
        self._tell = tell
        self._under_way: dict[str | int, UnderWay] = {}
        self.may_ask = True

    def request(
        self, request_id: int, request: BackendRequest, call: Call[BackendRequest, JsonObject], *, timeout: float
    ) -> UnderWay:
        """The context in which a request is sent; from now on it has `timeout` seconds, more if there is progress."""
        return UnderWay(self._under_way, self._spec.name, request_id, request, call, timeout=timeout)

    # --- notifications ------------------------------------------------------------------------------------------------

    async def on_notify(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> None:
        """Take a notification of a transport that says to which request it belongs."""
        self.notification(method, dict(params or {}), _related_id(context))

    def notification(self, method: str, params: JsonObject, related: str | int | None) -> None:
        """Take a notification. Synchronous, so that they keep the order in which they came."""
        if method in CHANGED:
            self._on_changed(CHANGED[method])
        elif method == "notifications/progress":
            self._progress(params)
        elif method == "notifications/subscriptions/acknowledged":
            self._on_acknowledged(subscription_of(params), params)
        elif method == "notifications/resources/updated":
            # Never a request's own, even where it came on the stream of one: its URI is the session's to translate.
            self._events.notice(Notice(method, untagged(params) or None))
        elif method != "notifications/cancelled":
            under_way = self._related(related, guess=method == "notifications/message")
            sink = under_way.on_notice if under_way is not None else self._events.notice
            sink(Notice(method, untagged(params) or None))

    def _progress(self, params: JsonObject) -> None:
        token = params.get("progressToken")
        under_way = self._under_way.get(token) if isinstance(token, int | str) else None
        if under_way is None:
            return
        under_way.restart_clock()
        if under_way.client_token is not None:
            under_way.on_notice(Notice("notifications/progress", {**params, "progressToken": under_way.client_token}))

    def _related(self, request_id: str | int | None, *, guess: bool) -> UnderWay | None:
        if request_id is not None:
            return self._under_way.get(request_id)
        if guess and len(self._under_way) == 1:
            return next(iter(self._under_way.values()))
        return None

    # --- requests -----------------------------------------------------------------------------------------------------

    async def on_request(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> JsonObject:
        """Answer a request of the backend: pings here, what the client declared that it can do by asking the client.

        It ends with the request of ours that it belongs to, or when the backend cancels it. Raises `MCPError`.
        """
        if method == "ping":
            await trio.lowlevel.checkpoint()
            return {}
        if not self.may_ask:
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method} (servers of this revision send no requests)")
        if CLIENT_CAPABILITY.get(method) not in self._client_capabilities:
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method} (the client did not declare it)")
        under_way = self._related(_related_id(context), guess=True)
        try:
            if under_way is None or under_way.ask is None:
                answer = self._events.ask(method, dict(params or {}))
                self._relay_progress(answer, params or {})
                return await self._wait_apart(answer, method)
            answer = under_way.ask(method, dict(params or {}))
            self._relay_progress(answer, params or {})
            return await self._wait_within(under_way, answer)
        except ClientError as error:
            raise MCPError(error.code, error.message, error.data) from error

    def _relay_progress(self, answer: PendingAnswer, params: Mapping[str, Any]) -> None:
        """What the client reports on the question goes to the backend, under the backend's own token."""
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if token is not None:
            answer.on_progress = lambda progress: self._tell(
                "notifications/progress", {**progress, "progressToken": token}
            )

    async def _wait_within(self, under_way: UnderWay, answer: PendingAnswer) -> JsonObject:
        """A question of a request: a person may be thinking, so the request's time stands still, within its bound."""
        under_way.asked.append(answer)
        under_way.extend(under_way.latest)
        try:
            return await wait_or_give_up(answer)
        finally:
            under_way.asked.remove(answer)
            under_way.restart_clock()

    async def _wait_apart(self, answer: PendingAnswer, method: str) -> JsonObject:
        with trio.move_on_after(MAX_EXTENSION * self._spec.call_timeout):
            return await wait_or_give_up(answer)
        raise ClientUnreachable(f"the client did not answer {method} in time")

    def __repr__(self) -> str:
        questions = sum(len(under_way.asked) for under_way in self._under_way.values())
        return f"<Backchannel of {self._spec.name}: {len(self._under_way)} requests under way, {questions} questions>"


def _related_id(context: DispatchContext[TransportContext]) -> str | int | None:
    metadata = context.message_metadata
    return metadata.related_request_id if isinstance(metadata, ServerMessageMetadata) else None


async def wait_or_give_up(answer: PendingAnswer) -> JsonObject:
    """The client's answer; when this is cancelled, the client is told that nobody needs it any more."""
    try:
        return await answer.wait()
    except trio.Cancelled:
        answer.give_up("the backend no longer needs it")
        raise


def _with_own_progress_token(params: JsonObject, request_id: int) -> tuple[JsonObject, str | int | None]:
    """Replace the client's progress token, which is unique only to that client, by the request's id."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    if not isinstance(token, str | int) or not isinstance(meta, dict):
        return params, None
    return {**params, "_meta": {**meta, "progressToken": request_id}}, token
