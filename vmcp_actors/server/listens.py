"""What stateless clients listen for: `subscriptions/listen` streams, fed by all backends of a session.

MCP 2026-07-28, server/utilities/subscriptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, field

from ..errors import InvalidParams, SessionClosed, VmcpError
from ..model import JsonObject, Notice
from ..sessions import Session
from ..wire.messages import RequestId, encode_notification, encode_result
from ..wire.stateless import for_stateless, tagged
from .streams import StreamLog

LISTS: Final = ("tools", "prompts", "resources")
MAX_SUBSCRIPTIONS: Final = 1000
"""Resources that one listen may name."""


@define(eq=False)
class Listen:
    """One open stream: its request's id, what was granted, and where it is written.

    Until it is acknowledged, what comes for it waits: the acknowledgement is the first message.
    """

    request_id: RequestId
    log: StreamLog
    granted: JsonObject
    waiting: list[Notice] | None = field(factory=list)

    @property
    def uris(self) -> list[str]:
        """The resources whose changes are told."""
        uris: list[str] = self.granted.get("resourceSubscriptions", [])
        return uris

    def wants(self, notice: Notice) -> bool:
        """Whether the client asked for notices of this kind."""
        if notice.method == "notifications/resources/updated":
            return (notice.params or {}).get("uri") in self.uris
        kind = notice.method.removeprefix("notifications/").removesuffix("/list_changed")
        return self.granted.get(f"{kind}ListChanged") is True

    def tell(self, notice: Notice) -> None:
        """Hand on a notice, under the id of this listen."""
        if self.waiting is not None:
            self.waiting.append(notice)
        else:
            self.log.notify(Notice(notice.method, tagged(notice.params, self.request_id)))


class Listens:
    """The listens on one session. A resource is subscribed to for as long as one of them names it."""

    def __init__(self, session: Session, *, capacity: int, server_info: JsonObject) -> None:
        self._session = session
        self._capacity = capacity
        self._server_info = server_info
        self._open: list[Listen] = []

    async def open(self, request_id: RequestId, params: JsonObject) -> Listen:
        """Open a listen, acknowledged with as much of what it asks for as can be granted.

        Raises:
            InvalidParams: it does not say what to listen for.
            SessionClosed: the session is closing.
        """
        wanted = params.get("notifications")
        uris = wanted.get("resourceSubscriptions", []) if isinstance(wanted, dict) else None
        if not isinstance(wanted, dict) or not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise InvalidParams("subscriptions/listen: notifications must be an object, resourceSubscriptions URIs")
        if len(uris) > MAX_SUBSCRIPTIONS:
            raise InvalidParams(f"subscriptions/listen: more than {MAX_SUBSCRIPTIONS} resourceSubscriptions")
        capabilities = self._session.capabilities
        granted: JsonObject = {
            f"{kind}ListChanged": True
            for kind in LISTS
            if wanted.get(f"{kind}ListChanged") is True and capabilities.get(kind, {}).get("listChanged")
        }
        listen = Listen(request_id, StreamLog("listen", capacity=self._capacity), granted)
        self._open.append(listen)
        try:
            await self._subscribe(listen, dict.fromkeys(uris))
        except BaseException:
            self.closed(listen)
            raise
        ack = tagged({"notifications": granted}, listen.request_id)
        listen.log.put(encode_notification("notifications/subscriptions/acknowledged", ack))
        waiting, listen.waiting = listen.waiting, None
        for notice in waiting or ():
            listen.tell(notice)
        return listen

    async def _subscribe(self, listen: Listen, uris: Iterable[str]) -> None:
        """Have resources watched; one that a backend refuses is left out of what is granted.

        Raises `SessionClosed` if the session closes meanwhile.
        """
        for uri in uris:
            listen.granted.setdefault("resourceSubscriptions", []).append(uri)
            if sum(uri in other.uris for other in self._open) == 1:
                try:
                    await self._session.request("resources/subscribe", {"uri": uri})
                except VmcpError:
                    listen.uris.remove(uri)
        if self._session.closing:
            raise SessionClosed

    def closed(self, listen: Listen) -> None:
        """A listen has no reader any more."""
        self._open.remove(listen)
        for uri in listen.uris:
            if not self._session.closing and not any(uri in other.uris for other in self._open):
                self._session.submit("resources/unsubscribe", {"uri": uri})

    def notify(self, notice: Notice) -> None:
        """Hand a notification of the session to those that listen for it."""
        for listen in self._open:
            if listen.wants(notice):
                listen.tell(notice)

    def close(self) -> None:
        """The session begins to close: the listens end properly, and their clients listen again."""
        for listen in self._open:
            result = for_stateless(tagged(None, listen.request_id), self._server_info)
            listen.log.put(encode_result(listen.request_id, result))
            listen.log.finish()

    def __repr__(self) -> str:
        return f"<Listens: {len(self._open)} open>"
