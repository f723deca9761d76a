"""What the endpoint keeps for one session: its calls, its streams, and what its client has been asked."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final

from attrs import frozen

from ..actors import Call, Reply
from ..errors import ClientReplied, ClientUnreachable, RequestError
from ..model import JsonObject, McpRequest, Notice, PendingAnswer
from ..wire.messages import Message, RequestId, encode_notification, encode_request
from .streams import StreamLog

REPLAY_EVENTS: Final = 1024
REPLAY_BYTES: Final = 4 * 1024 * 1024
"""What a session keeps of what it has sent, for clients that resume a stream."""
MAX_PLACE_DIGITS: Final = 18


@frozen
class FrontStatistics:
    """A snapshot: calls under way, streams kept for replay, GET streams open, questions, and what is kept in all."""

    calls: int
    streams: int
    open_streams: int
    questions: int
    events: int
    bytes: int


class Front:
    """Synchronous bookkeeping, called from the session's tasks and from those of HTTP requests.

    Streams that answer a request are named `p…`, those that a GET opened `g…`; a message is on exactly one of them.
    """

    def __init__(self, capacity: int) -> None:
        self.calls: dict[RequestId, Call[McpRequest, JsonObject]] = {}
        self._capacity = capacity
        self._logs: dict[str, StreamLog] = {}
        self._open: list[StreamLog] = []
        self._waiting = StreamLog("waiting", capacity=capacity, ends_when_full=False)
        self._asked: dict[RequestId, Question] = {}
        self._streams = self._questions = 0
        self._events = self._bytes = 0
        self._closed = False
        self._on_change = _weakly(self)

    # --- streams ----------------------------------------------------------------------------------------------------

    def answer_stream(self) -> StreamLog:
        """The log of a request's own stream, not yet kept: most requests need none."""
        return self._new_log("p")

    def keep(self, log: StreamLog) -> None:
        """The response is an event stream: it can be resumed from now on."""
        self._logs[log.name] = log

    def open_stream(self) -> StreamLog:
        """A stream for what belongs to no request; what has been waiting goes to it."""
        return self._opened(self._new_log("g"))

    def resume_stream(self, event_id: str) -> tuple[StreamLog, int]:
        """The stream of an event, and the place of that event in it.

        Raises:
            RequestError: it was the stream of a request, and is no longer kept. A GET stream is simply opened anew.
        """
        name, _, number = event_id.rpartition("-")
        log = self._logs.get(name)
        if log is not None and number.isdecimal() and len(number) <= MAX_PLACE_DIGITS:
            place = min(int(number), log.last)
            if name.startswith("p"):
                return log, place
            if not log.finished or log.after(place):
                return self._opened(log), place
        elif name.startswith("p"):
            raise RequestError("The stream of this Last-Event-ID is no longer kept")
        return self.open_stream(), 0

    def _new_log(self, kind: str) -> StreamLog:
        self._streams += 1
        return StreamLog(f"{kind}{self._streams}", capacity=self._capacity, on_change=self._on_change)

    def _opened(self, log: StreamLog) -> StreamLog:
        if not log.finished:
            for entry in self._waiting.withdraw_unsent():
                log.put(entry.data, entry.notice)
        if self._closed:
            log.finish()
        self._logs[log.name] = log
        self._open.append(log)
        return log

    def closed_stream(self, log: StreamLog) -> None:
        """A stream that a GET opened or resumed has no reader any more: what it did not send waits for the next."""
        if log in self._open:
            self._open.remove(log)
        if log in self._open or not log.name.startswith("g"):
            return  # another reader has it already, or it belongs to a request
        for entry in log.withdraw_unsent():
            self._put(entry.data, entry.notice)
        if not log.statistics().kept:
            self._logs.pop(log.name, None)

    def _changed(self, log: StreamLog, events: int, size: int) -> None:
        """What a log keeps has changed: of all of them together no more is kept for replay than the bounds allow."""
        self._events += events
        self._bytes += size
        if events < 0:
            return
        self._logs.setdefault(log.name, log)
        for name, oldest in list(self._logs.items()) if self._over_bounds() else ():
            while self._over_bounds() and oldest.forget_oldest():
                pass
            if oldest.finished and not oldest.statistics().kept:
                del self._logs[name]
            if not self._over_bounds():
                break

    def _over_bounds(self) -> bool:
        return self._events > REPLAY_EVENTS or self._bytes > REPLAY_BYTES

    # --- from the session -------------------------------------------------------------------------------------------

    def notify(self, notice: Notice) -> None:
        """Hand a notification that belongs to no request to the newest open stream, or keep it for the next one."""
        (self._newest() or self._waiting).notify(notice)

    def ask(self, method: str, params: JsonObject) -> PendingAnswer:
        """Ask the client something that belongs to no request."""
        return self.ask_on(self._put, method, params)

    def ask_on(self, put: Callable[[bytes], bool], method: str, params: JsonObject) -> PendingAnswer:
        """Ask the client something on a stream. Id and progress token are ours: two backends never use the same."""
        if self._closed:
            raise ClientUnreachable("the session is closing")
        self._questions += 1
        question = Question(self._questions, put, self._asked)
        meta = params.get("_meta")
        if isinstance(meta, dict) and "progressToken" in meta:
            params = {**params, "_meta": {**meta, "progressToken": self._questions}}
        if not put(encode_request(self._questions, method, params)):
            question.reply.set_error(ClientUnreachable("the client does not read"))
            raise ClientUnreachable("the client does not read")
        return question

    def close(self) -> None:
        """The session begins to close: GET streams end, and nobody waits for the client any more."""
        self._closed = True
        for log in self._open:
            log.finish()
        for question in list(self._asked.values()):
            question.reply.set_error(ClientUnreachable("the session is closing"))

    def _put(self, data: bytes, notice: Notice | None = None) -> bool:
        return (self._newest() or self._waiting).put(data, notice)

    def _newest(self) -> StreamLog | None:
        return next((log for log in reversed(self._open) if not log.finished), None)

    # --- from the client --------------------------------------------------------------------------------------------

    def answered(self, message: Message) -> None:
        """The client's answer to something that it was asked; late and unknown ones are ignored."""
        question = self._asked.get(message.id) if isinstance(message.id, int | str) else None
        if question is None:
            return
        reply = question.reply
        if isinstance(message.error, dict):
            code, text = message.error.get("code"), message.error.get("message")
            reply.set_error(
                ClientReplied(
                    code if isinstance(code, int) else -32603,
                    text if isinstance(text, str) else "the client gave no message",
                    message.error.get("data"),
                )
            )
        elif (result := message.object_result) is not None:
            reply.set_value(result)
        else:
            reply.set_error(ClientReplied(-32603, "the client's result is not an object"))

    def progressed(self, params: JsonObject) -> None:
        """The client reports progress on something that it was asked."""
        token = params.get("progressToken")
        question = self._asked.get(token) if isinstance(token, int | str) else None
        if question is not None:
            question.on_progress(params)

    def statistics(self) -> FrontStatistics:
        """A snapshot."""
        return FrontStatistics(
            calls=len(self.calls),
            streams=len(self._logs),
            open_streams=len(self._open),
            questions=len(self._asked),
            events=self._events,
            bytes=self._bytes,
        )

    def __repr__(self) -> str:
        stats = self.statistics()
        return (
            f"<Front: {stats.calls} calls, {stats.open_streams} GET streams, {stats.questions} questions, "
            f"{stats.events} events kept>"
        )


def _weakly(front: Front) -> Callable[[StreamLog, int, int], None]:
    """What a log calls when what it keeps has changed: it is known to its front, so holding that would be a cycle."""
    known = weakref.ref(front)

    def changed(log: StreamLog, events: int, size: int) -> None:
        there = known()
        if there is not None:
            there._changed(log, events, size)

    return changed


class Question:
    """A request to the client: the `PendingAnswer` that the backend's side waits for."""

    def __init__(self, request_id: int, put: Callable[[bytes], bool], asked: dict[RequestId, Question]) -> None:
        self.reply: Reply[JsonObject] = Reply()
        self.on_progress: Callable[[JsonObject], None] = lambda _: None
        self._id = request_id
        self._put = put
        self._asked = asked
        asked[request_id] = self
        self.reply.on_done(self._forget)

    async def wait(self) -> JsonObject:
        """The client's result. Raises `ClientReplied`, `ClientUnreachable`."""
        return await self.reply.wait()

    def give_up(self, reason: str) -> None:
        """Nobody needs the answer: the client is told, unless it has answered."""
        if self.reply.set_error(ClientUnreachable(reason)):
            params: JsonObject = {"requestId": self._id, "reason": reason}
            self._put(encode_notification("notifications/cancelled", params))

    def _forget(self) -> None:
        del self._asked[self._id]
