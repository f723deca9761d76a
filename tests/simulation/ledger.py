"""What has happened in a simulated world: calls, connections, sessions. The invariants are checked as it is written."""

from __future__ import annotations

import enum
import logging
import math
from collections import Counter
from contextvars import ContextVar
from hashlib import sha256
from typing import Any

import trio
from attrs import define, frozen

from vmcp_actors.errors import Delivered

EPSILON = 1e-6
CANCEL_TIME = 0.5
"""Seconds that a cancellation may take to its backend."""
TRACE_TAIL = 60


class Invariant(enum.Enum):
    """What must be true in every world, at every moment."""

    ONE_OUTCOME = "every call gets exactly one outcome, in time"
    ONCE = "no call is executed twice"
    REFUSED = "what was refused, or provably not delivered, was not executed"
    RIGHT_RESULT = "a result is the result of its own call"
    DELIVERED = "a result that was there in time is delivered"
    CANCELLED = "a call that its client has given up is cancelled at its backend"
    CUT = "a running call is not cut off without a reason"
    ISOLATION = "a call reaches only the backend session of its own client session"
    OWN_NOTICES = "notices and questions reach only the client that they are for"
    PROGRESS = "the progress of a call reaches its caller"
    GOODBYE = "a connection ends with exactly one goodbye"
    AFTER_GOODBYE = "nothing is sent on a backend session after its goodbye"
    ONE_CONNECTION = "a session has one connection to a backend at a time"
    LIMITS = "limits are never exceeded"
    ADMISSION = "a place that is free is given"
    ONE_USE = "a parked call is resumed once for each of its handles"
    MEMORY = "what is kept for replay is bounded"
    STREAMS = "a message is on one stream, once"
    NOTHING_LEFT = "what has ended leaves nothing"
    RECOVERY = "when the faults are over, everything works again"
    NO_DEADLOCK = "everything comes to an end"
    NO_SURPRISE = "nothing unexpected is raised or logged"


@frozen
class Violation:
    """An invariant that did not hold: where, and when on the world's clock."""

    invariant: Invariant
    detail: str
    time: float

    def __str__(self) -> str:
        return f"[{self.time:.3f}] {self.invariant.name}: {self.invariant.value}: {self.detail}"


@define(eq=False)
class Origin:
    """The start of one session of ours: who may use what comes of it, and whom it counts against.

    It travels in a context variable: tasks inherit it from the one that asked for the session, so a connection knows
    for which session it was opened without any help from the runtime.

    Attributes:
        owner: the only one whose calls may arrive here.
        client: the address or identity that it counts against.
        cut_by: from when on calls that still run may be cut off, since the session was closed.
    """

    owner: str
    client: str
    cut_by: float = math.inf


ORIGIN: ContextVar[Origin] = ContextVar("ORIGIN")


@define(eq=False)
class CallRecord:
    """One tool call of a client, under a number that nobody else uses.

    Attributes:
        gives_up_at: when its client cancels it, or wants to hear no more of it.
        left: the client may not hear of the outcome.
        cuttable: it may be cut off for reasons that the ledger cannot know.
        past_cancelling: its client was not heard any more when it cancelled, since its session was closing.
    """

    number: int
    owner: str
    tool: str
    origin: Origin | None
    began: float
    gives_up_at: float = math.inf
    left: bool = False
    cuttable: bool = False
    past_cancelling: bool = False
    token: Any = None
    arrived: float = math.inf
    executions: int = 0
    finished: float | None = None
    cut: bool = False
    outcomes: int = 0
    outcome: str = ""
    delivered: Delivered | None = None
    progress_sent: int = 0
    progress_heard: int = 0

    def __str__(self) -> str:
        return f"call {self.number} ({self.tool} of {self.owner})"


class Ledger:
    """The trace, the calls, and the violations of one world."""

    def __init__(self, *, keep: bool = False) -> None:
        self.calls: dict[int, CallRecord] = {}
        self.violations: list[Violation] = []
        self.cut_by = math.inf
        self.scope = trio.CancelScope()
        self.counts: Counter[str] = Counter()
        self.tail: list[str] = []
        self._keep = keep
        self._digest = sha256()
        self._over = False

    # --- the trace ----------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write down that something happened now."""
        line = f"{trio.current_time():.6f} {text}"
        self._digest.update(line.encode())
        self.tail.append(line)
        if not self._keep and len(self.tail) > 2 * TRACE_TAIL:
            del self.tail[:TRACE_TAIL]

    @property
    def digest(self) -> str:
        """The fingerprint of everything that happened, in its order."""
        return self._digest.hexdigest()

    def check(self, holds: bool, invariant: Invariant, detail: str) -> bool:
        """Unless it holds: write down that the invariant does not, and end the world. Never raises."""
        if not holds and not self._over:
            violation = Violation(invariant, detail, trio.current_time())
            self.note(f"VIOLATION {violation}")
            self.violations.append(violation)
            self._over = True  # what follows is wreckage
            self.scope.cancel("an invariant is violated")
        return holds

    # --- a call: its client -------------------------------------------------------------------------------------------

    def begin(self, owner: str, tool: str, origin: Origin | None) -> CallRecord:
        """A client begins a call."""
        record = CallRecord(len(self.calls) + 1, owner, tool, origin, trio.current_time())
        self.calls[record.number] = record
        return record

    def ended(self, record: CallRecord, outcome: str, *, text: str | None = None, error: Any = None) -> None:
        """The client has the outcome of its call: `ok` with a text, or something else."""
        record.outcomes += 1
        record.outcome = outcome
        record.delivered = getattr(error, "delivered", None)
        self.counts[f"outcome {outcome}"] += 1
        self.note(f"{record} ended: {outcome} {record.delivered and record.delivered.name} {error or ''}")
        self.check(record.outcomes == 1, Invariant.ONE_OUTCOME, f"{record} has a second outcome: {outcome}")
        if outcome == "ok":
            expected = f"{record.tool} {record.number}"
            self.check(text == expected, Invariant.RIGHT_RESULT, f"{record} got {text!r}")
            # An input that was needed makes one call many: those are executed once for each round.
            once = record.executions == 1
            self.check(once, Invariant.ONCE, f"{record} succeeded, and was executed {record.executions} times")
        elif not self._may_be_cut(record, record.finished):
            self.check(
                record.finished is None,
                Invariant.DELIVERED,
                f"{record} was finished at {record.finished}, and its client got {outcome}: {error}",
            )
        self._check_refused(record)

    def _check_refused(self, record: CallRecord) -> None:
        if record.delivered is Delivered.NO and record.tool != "ask":
            refused = record.executions == 0
            self.check(refused, Invariant.REFUSED, f"{record} was refused ({record.outcome}), and executed")

    # --- a call: its backend ------------------------------------------------------------------------------------------

    def executing(self, record: CallRecord, owner: str) -> None:
        """A backend begins to execute the call, in the backend session of a client session of `owner`."""
        record.executions += 1
        self.counts[f"executed {record.tool}"] += 1
        self.note(f"{record} is executed")
        self.check(record.executions == 1, Invariant.ONCE, f"{record} is executed again")
        self.check(record.owner == owner, Invariant.ISOLATION, f"{record} came to a backend session of {owner}")
        self._check_refused(record)

    def finished(self, record: CallRecord) -> None:
        """The backend gives the result of the call."""
        now = record.finished = trio.current_time()
        in_time = record.past_cancelling or now <= record.gives_up_at + CANCEL_TIME
        self.check(in_time, Invariant.CANCELLED, f"{record} was given up at {record.gives_up_at:.3f}, and goes on")
        self.note(f"{record} is finished")

    def was_cut(self, record: CallRecord, *, excused: bool, timeout: float) -> None:
        """The execution of a call was cancelled. `excused`: something happened to its connection."""
        record.cut = True
        now = trio.current_time()
        self.note(f"{record} is cut off")
        self.counts["cut"] += 1
        timed_out = now >= record.arrived + timeout - EPSILON
        if not (excused or timed_out or self._over):
            self.check(self._may_be_cut(record, now), Invariant.CUT, f"{record} was cut off")

    def _may_be_cut(self, record: CallRecord, when: float | None) -> bool:
        if when is None or record.cuttable:
            return True
        origin = math.inf if record.origin is None else record.origin.cut_by
        return when >= min(record.gives_up_at, origin, self.cut_by) - EPSILON

    # --- the end ------------------------------------------------------------------------------------------------------

    def check_calls(self) -> None:
        """At the end: every call has an outcome, and none was executed after it was refused."""
        for record in self.calls.values():
            if not record.left:
                self.check(record.outcomes == 1, Invariant.ONE_OUTCOME, f"{record} has {record.outcomes} outcomes")
            self._check_refused(record)


class Surprises(logging.Handler):
    """Takes what the package logs as an error: it does so for bugs, and for what was never expected."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Hold it against the world."""
        cause = record.exc_info[1] if record.exc_info else None
        self._ledger.check(False, Invariant.NO_SURPRISE, f"{record.name}: {record.getMessage()}: {cause!r}")
