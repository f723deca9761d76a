"""What the load generator is told, and what it tells: JSON lines, one for each step."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Mode = Literal["legacy", "auto", "bare"]


class Clients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: who makes the load. Each client has a session of its own.

    Attributes:
        mode: `legacy` begins with `initialize`; `auto` asks for the stateless revision first and falls back to that;
            `bare` has no handshake, for a server that answers anything.
        connections: of each session, for as many calls at the same time.
    """

    url: str
    tool: str = "echo"
    mode: Mode = "legacy"
    sessions: int = 1
    connections: int = 1
    arguments: dict[str, Any] = {}


class Start(msgspec.Struct, frozen=True, tag_field="step", tag="start"):
    """Begin the sessions, so many at a time; all at once when it is 0."""

    at_once: int = 0


class Call(msgspec.Struct, frozen=True, tag_field="step", tag="call"):
    """Call the tool, on all connections at the same time.

    Attributes:
        calls: how many in all. None: until the next line comes.
        each: how many each connection makes before another has its turn. None: as many as it can.
        at_once: how many connections are used at the same time; 0 is all.
        pause: seconds that each client waits between two calls; for one client.
        watch: processes whose processor time is to be read, right before and right after.
    """

    calls: int | None
    each: int | None = None
    at_once: int = 0
    pause: float = 0.0
    watch: list[int] = []


class Send(msgspec.Struct, frozen=True, tag_field="step", tag="send"):
    """Call the tool once on every connection, and do not wait for an answer, nor read one."""


class Listen(msgspec.Struct, frozen=True, tag_field="step", tag="listen"):
    """Open the stream of every session for what comes unasked, and read nothing of it."""


class End(msgspec.Struct, frozen=True, tag_field="step", tag="end"):
    """Delete the sessions and close the connections; then they may start again."""


Step = Start | Call | Send | Listen | End


class Outcome(msgspec.Struct, frozen=True):
    """What came of a step.

    Attributes:
        seconds: how long the whole step took.
        latencies: seconds that each call took, or each start.
        cpu: seconds of processor time of those who were watched.
        errors: how many answers were not the result of their request; `error` is the first.
    """

    seconds: float
    latencies: list[float]
    cpu: float = 0.0
    errors: int = 0
    error: str | None = None


def decode_clients(line: bytes) -> Clients:
    """Read the first line. Raises msgspec.ValidationError for one that is wrong."""
    return msgspec.json.decode(line, type=Clients)


def decode_step(line: bytes) -> Step:
    """Read another line. Raises msgspec.ValidationError for one that is wrong."""
    step: Step = msgspec.json.decode(line, type=Step)
    return step
