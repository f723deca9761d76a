"""A session of the counting backend: its state, its calls, and what it has to say outside of any call."""

import contextlib
import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.e2e.backends._http import Exchange


@dataclass(eq=False)
class BackendSession:
    """One client's session. Public fields are for the tests to look at.

    `notices` are the messages for the GET stream, in order; each is sent once, on the newest GET stream. Those sent on
    a stream that broke can be had again with Last-Event-ID; those never sent wait for the next stream.
    """

    protocol_version: str
    client: dict[str, Any]  # the params of initialize
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    counter: int = 0
    grown: list[dict[str, Any]] = field(default_factory=list)
    log_level: str = "debug"
    subscriptions: set[str] = field(default_factory=set)
    calls: dict[Any, trio.CancelScope] = field(default_factory=dict)
    notices: list[dict[str, Any]] = field(default_factory=list)
    streams: list[trio.CancelScope] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sent = 0
        self._changed = trio.Event()
        self._ids = itertools.count(1)
        self._asked: dict[str, trio.MemorySendChannel[dict[str, Any]]] = {}

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Send a notification on the GET stream."""
        self._post({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))

    async def ask(self, method: str, params: dict[str, Any], on: Exchange | None = None) -> dict[str, Any]:
        """Send a request to the client, on the stream of a call or on the GET stream; its whole response."""
        request_id = f"ask-{next(self._ids)}"
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        self._asked[request_id], answer = trio.open_memory_channel[dict[str, Any]](1)
        try:
            if on is None:
                self._post(request)
            else:
                await on.start_events()
                await on.event(request)
            return await answer.receive()
        finally:
            del self._asked[request_id]

    def answered(self, response: dict[str, Any]) -> bool:
        """Hand the client's response to whoever asked; whether somebody waited for it."""
        waiting = self._asked.get(response.get("id", ""))
        if waiting is not None:
            waiting.send_nowait(response)
        return waiting is not None

    async def serve_stream(self, exchange: Exchange, last_event_id: str | None, retry: int | None) -> None:
        """Send the notices as events until cancelled or the client is gone; `last_event_id`: the missed ones first."""
        number = next(self._ids)
        with contextlib.suppress(trio.BrokenResourceError), trio.CancelScope() as scope:
            self.streams.append(scope)
            try:
                await exchange.start_events()
                # An id says how many notices came before it, and the number of the stream keeps it unique.
                position = self._sent if last_event_id is None else int(last_event_id.rpartition("-")[2])
                await exchange.event(None, event_id=f"{number}-{position}", retry=retry)
                for index in range(position, self._sent):
                    await exchange.event(self.notices[index], event_id=f"{number}-{index + 1}")
                while True:
                    while self.streams[-1] is scope and self._sent < len(self.notices):
                        self._sent += 1
                        await exchange.event(self.notices[self._sent - 1], event_id=f"{number}-{self._sent}")
                    await self._changed.wait()
            finally:
                self.streams.remove(scope)
                self._wake()  # an older stream may be the newest now

    def _post(self, message: dict[str, Any]) -> None:
        self.notices.append(message)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
