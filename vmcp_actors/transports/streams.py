"""Event streams of a streamable HTTP backend: the one that answers a request, and the one that is always open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from ..actors import Backoff
from ..errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendSessionLost,
    BackendUnauthorized,
    Delivered,
)
from ..wire.messages import Message, RequestId
from ..wire.sse import EventDecoder
from .http1 import Response
from .http1_messages import BadResponse, ConnectionBroken

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES = 64 * 1024 * 1024
RESUME_ATTEMPTS = 5
DEFAULT_RETRY = 1.0
MAX_RETRY = 60.0
LASTING = 5.0
"""Seconds after which a GET stream counts as having worked, so that the next one may follow it soon."""


class Connection(Protocol):
    """What a stream needs of the connection that it belongs to."""

    backend: str

    async def open(self, method: str, body: bytes | None, extra: Mapping[str, str] | None = None) -> Response:
        """Send one HTTP request; raises `BackendError`."""
        ...

    async def incoming(self, data: str, related: RequestId | None) -> Message | None:
        """Take one message; returns it if it is a response."""
        ...

    def check_status(self, status: int) -> None:
        """Raise for a status that says something about the connection."""
        ...


class AnswerStream:
    """The response to one request as an event stream, resumed with `Last-Event-ID` when the backend cuts it off.

    The backend may close the connection before the answer (MCP 2025-11-25 transports §Sending Messages 6); the request
    goes on, and is not sent again.
    """

    def __init__(
        self, connection: Connection, request_id: RequestId, on_break: Callable[[], None] | None = None
    ) -> None:
        self._on_break = on_break
        self._connection = connection
        self._request_id = request_id
        self._decoder = EventDecoder(MAX_EVENT_BYTES)

    async def answer(self, response: Response) -> Message:
        """Read until the answer comes, over as many connections as it takes.

        The caller releases `response`; those of resumed streams are released here.

        Raises:
            BackendLost: the stream ended and cannot be resumed; the backend may have run the request.
        """
        answer = await self._read(response)
        attempts = 0
        while answer is None:
            if not self._decoder.last_event_id or attempts >= RESUME_ATTEMPTS:
                raise BackendLost(self._connection.backend, "the stream ended before the answer")
            seen = self._decoder.last_event_id
            if self._on_break is not None and self._decoder.retry is not None:
                self._on_break()
            await trio.sleep(min(self._decoder.retry or DEFAULT_RETRY, MAX_RETRY))
            answer = await self._resume()
            attempts = 0 if self._decoder.last_event_id != seen else attempts + 1
        return answer

    async def _resume(self) -> Message | None:
        connection = self._connection
        self._decoder = self._decoder.resumed()
        try:
            response = await connection.open("GET", None, {"last-event-id": self._decoder.last_event_id or ""})
        except BackendError as error:
            logger.info("backend %s: cannot resume a stream yet: %s", connection.backend, error)
            return None
        try:
            if response.status == 200:
                return await self._read(response)
            connection.check_status(response.status)
            raise BackendLost(
                connection.backend, f"the stream ended before the answer, resuming it got HTTP {response.status}"
            )
        except BackendSessionLost as error:
            # The request had been sent: unlike a 404 to the request itself, this does not say that it was not run.
            raise BackendLost(connection.backend, error.reason, delivered=Delivered.UNKNOWN) from error
        finally:
            response.close()

    async def _read(self, response: Response) -> Message | None:
        """Read events until the answer, or None when the stream ends first."""
        while True:
            try:
                chunk = await response.receive_chunk()
            except (ConnectionBroken, BadResponse):
                return None
            if not chunk:
                return None
            for event in _decode(self._decoder, chunk, self._connection.backend):
                message = await self._connection.incoming(event, self._request_id)
                if message is not None and message.id == self._request_id:
                    return message


async def listen(connection: Connection) -> None:
    """Hold the GET stream open, for what the backend sends unasked, until the connection is over.

    A stream that ends is opened again, with `Last-Event-ID` where the backend numbers its events and after the time
    that it asks for (`retry`). A backend that answers 405 does not offer the stream, and is not asked again.
    """
    decoder = EventDecoder(MAX_EVENT_BYTES)
    backoff = Backoff(DEFAULT_RETRY, MAX_RETRY)
    while True:
        decoder = decoder.resumed()
        try:
            opened = trio.current_time()
            if not await _listen_once(connection, decoder):
                return
            if trio.current_time() - opened >= LASTING:
                backoff.reset()
        except BackendSessionLost:
            return
        except BackendUnauthorized as error:
            logger.warning("%s; not listening for its notifications", error)
            return
        except BackendError as error:
            logger.debug("listening: %s", error)
        await trio.sleep(max(min(decoder.retry or 0.0, MAX_RETRY), backoff.next_delay()))


async def _listen_once(connection: Connection, decoder: EventDecoder) -> bool:
    """One GET stream from start to end. Returns False when the backend does not offer one."""
    last = decoder.last_event_id
    response = await connection.open("GET", None, {"last-event-id": last} if last else None)
    try:
        content_type = response.headers.get("content-type", "")
        if response.status >= 500 or response.status in (408, 429):
            raise BackendProtocolError(connection.backend, f"answered HTTP {response.status} to GET")
        connection.check_status(response.status)
        if response.status != 200 or not content_type.startswith("text/event-stream"):
            logger.debug("backend %s offers no GET stream (HTTP %d)", connection.backend, response.status)
            return False
        while chunk := await response.receive_chunk():
            for event in _decode(decoder, chunk, connection.backend):
                await connection.incoming(event, None)
        return True
    except (ConnectionBroken, BadResponse) as error:
        raise BackendLost(connection.backend, f"the GET stream broke: {error}") from error
    finally:
        response.close()


def _decode(decoder: EventDecoder, chunk: bytes, backend: str) -> list[str]:
    """The data of the message events in a chunk."""
    try:
        return [event.data for event in decoder.feed(chunk) if event.event == "message" and event.data]
    except ValueError as error:
        raise BackendProtocolError(backend, f"sent a broken event stream: {error}") from error
