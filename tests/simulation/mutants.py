"""`python -m tests.simulation.mutants`: does the simulation notice a defect?

The runtime with one defect at a time, until a seed shows it. A mutant replaces the
text of one function of the package in memory. One whose text is no longer there fails loudly.
"""

from __future__ import annotations
import __future__

import argparse
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import frozen

from vmcp_actors.actors import Actor as AnyActor
from vmcp_actors.actors import ActorRef, mailbox
from vmcp_actors.server import stateful
from vmcp_actors.server.front import Front, Question
from vmcp_actors.sessions import ConnectionState, SessionSupervisor, backchannel, backend, leases, link, parking
from vmcp_actors.sessions.actor import SessionActor

from .run import Result, simulate

SEEDS: Final = 1000


@frozen
class Mutant:
    """A defect: what it is, where it is put, and the text that it replaces."""

    name: str
    owner: Any
    function: str
    old: str
    new: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The package has this defect while the body runs."""
        with _replaced(self.owner, self.function, _rewritten(self.owner, self.function, self.old, self.new)):
            yield


@frozen
class Patch:
    """A defect that is a function of its own."""

    name: str
    owner: Any
    function: str
    replacement: Callable[..., Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The package has this defect while the body runs."""
        with _replaced(self.owner, self.function, self.replacement):
            yield


def _rewritten(owner: Any, name: str, old: str, new: str) -> Any:
    function = inspect.getattr_static(owner, name)
    inner = inspect.unwrap(function.__func__ if isinstance(function, staticmethod) else function)
    source = textwrap.dedent(inspect.getsource(inner))
    if source.count(old) != 1:
        raise LookupError(f"{owner.__name__}.{name} has {source.count(old)} times the text {old!r}")
    code = compile(
        source.replace(old, new),
        f"<mutant of {name}>",
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
    )
    namespace: dict[str, Any] = {}
    exec(code, inner.__globals__, namespace)
    return staticmethod(namespace[name]) if isinstance(function, staticmethod) else namespace[name]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = inspect.getattr_static(owner, name)
    inherited = name not in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, original)


def _connections_close_first(self: SessionActor, drain: float, reason: str) -> None:
    for connection in self.connections.values():
        if connection._link is not None:
            connection._link.ref.request_stop(drain=0.0, reason=reason)
    AnyActor._request_stop(self, drain, reason)


_run = backend.BackendConnection.run


async def _connects_twice(self: backend.BackendConnection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, self)
        while self.state is not ConnectionState.WAITING:
            await self._changed.wait()
        nursery.start_soon(_run, self)


MUTANTS: Final[tuple[Mutant | Patch, ...]] = (
    Mutant(
        "a call that may have run is sent again",
        backend.BackendConnection,
        "_request",
        "if error.delivered is not Delivered.NO:",
        "if False:",
    ),
    Mutant(
        "the reply is forgotten on cancel",
        AnyActor,
        "_run_call",
        "call.reply.set_error(call.cancellation_error(Delivered.UNKNOWN))",
        "pass",
    ),
    Mutant(
        "no worker waits while a call runs",
        AnyActor,
        "_work",
        "if not self._idle_workers:",
        "if False:",
    ),
    Mutant(
        "the deadline of a call stays with its worker",
        mailbox.Call,
        "end",
        "self._scope.deadline = math.inf",
        "pass",
    ),
    Mutant(
        "the reply of a queued call is forgotten on cancel",
        AnyActor,
        "_run_call",
        "call.reply.set_error(call.cancellation_error(Delivered.NO))",
        "pass",
    ),
    Patch("connections are closed before the calls end", SessionActor, "_request_stop", _connections_close_first),
    Mutant(
        "the drain time is ignored", AnyActor, "_request_stop", "trio.current_time() + drain", "trio.current_time()"
    ),
    Mutant("calls are not counted", mailbox.Mailbox, "put", "if self._under_way >= self._max_calls:", "if False:"),
    Mutant("a place is never given back", mailbox.Mailbox, "finished", "self._under_way -= 1", "pass"),
    Mutant(
        "one session too many is admitted",
        SessionSupervisor,
        "_admit",
        "len(self._starting) >= self.settings",
        "len(self._starting) > self.settings",
    ),
    Mutant(
        "a client gets one session too many",
        SessionSupervisor,
        "_admit",
        "self._per_client[key] >= self",
        "self._per_client[key] > self",
    ),
    Mutant(
        "a request is given to another session",
        SessionSupervisor,
        "lookup",
        "self._live.get(session_id)",
        "self._live.get(session_id) and next(reversed(self._live.values()))",
    ),
    Mutant("principals share a lease", leases.Leases, "_key", "parts = [identity.binding, None]", "parts = ['', None]"),
    Mutant(
        "an ended session stays registered",
        SessionSupervisor,
        "_forget_when_closed",
        "del self._live[session.id.reveal()]",
        "pass",
    ),
    Mutant(
        "the count of a client is leaked",
        SessionSupervisor,
        "_forget_when_closed",
        "self._release(_client_key(session.identity, session.client))",
        "pass",
    ),
    Mutant(
        "the record stays in the store",
        SessionSupervisor,
        "_forget_when_closed",
        "await self._forget(session.id)",
        "await trio.lowlevel.checkpoint()",
    ),
    Mutant(
        "a queued call is dropped when its actor ends",
        mailbox.Mailbox,
        "fail_queued",
        'call.reply.set_error(ActorStopped(f"{self._owner} stopped before handling the call"))',
        "pass",
    ),
    Mutant(
        "the progress token is not replaced",
        backchannel,
        "_with_own_progress_token",
        'return {**params, "_meta": {**meta, "progressToken": request_id}}, token',
        "return params, token",
    ),
    Mutant(
        "no goodbye is said",
        link.BackendLink,
        "lifespan",
        "await transport.goodbye()",
        "await trio.lowlevel.checkpoint()",
    ),
    Mutant(
        "a backend that was removed stays connected",
        SessionActor,
        "reconfigure",
        "self._retire(gone)",
        "pass",
    ),
    Mutant(
        "a backend is met at its new place before the old one is left",
        SessionActor,
        "_keep",
        "await after.wait_closed()",
        "await trio.lowlevel.checkpoint()",
    ),
    Mutant(
        "the calls of a backend that is removed are not waited for",
        backend.BackendConnection,
        "retire",
        "drain=drain",
        "drain=0.0",
    ),
    Patch("a lost connection is made twice", backend.BackendConnection, "run", _connects_twice),
    Mutant("a parked call is resumed twice", parking.Parking, "begin", "del self._parked[state]", "pass"),
    Mutant("a caller that leaves cancels nothing", ActorRef, "call", "call.caller_left()", "pass"),
    Mutant("the gate is not left", link.BackendLink, "lifespan", "at_gate = False", "at_gate = True"),
    Mutant(
        "a place at the gate is leaked",
        link.BackendLink,
        "lifespan",
        "self._gate.leave()\n                        at_gate = False",
        "at_gate = False",
    ),
    Mutant("what is kept for replay has no bounds", Front, "_over_bounds", "return ", "return False and "),
    Mutant("a stream is resumed one message too early", Front, "resume_stream", "log.last)", "log.last) - 1"),
    Mutant("a question that was answered is kept", Question, "_forget", "del self._asked[self._id]", "pass"),
    Mutant(
        "a call stays at the endpoint after its answer",
        stateful.StatefulEndpoint,
        "_answer",
        "del front.calls[request_id]",
        "pass",
    ),
    Mutant(
        "a stream does not end with its answer",
        stateful.StatefulEndpoint,
        "_answer",
        "log.put(_outcome(call, request_id))\n            log.finish()\n        log.wake()",
        "log.finish()\n        log.wake()",
    ),
)

__all__ = ["MUTANTS", "Mutant", "Patch", "caught", "main"]


def caught(mutant: Mutant | Patch, seeds: range) -> Result | None:
    """The first of these seeds that shows the defect."""
    with mutant.applied():
        for seed in seeds:
            result = simulate(seed)
            if not result.passed:
                return result
    return None


def main() -> int:
    """Try them all, and print which seed caught which, and by what. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="for each of them (default: %(default)s)")
    parser.add_argument("--only", default="", help="those with this text in their name")
    options = parser.parse_args()
    survivors = 0
    for mutant in MUTANTS:
        if options.only not in mutant.name:
            continue
        result = caught(mutant, range(options.seeds))
        survivors += result is None
        how = f"{result.seed:5}  {result.violations[0].invariant.name}" if result is not None else "SURVIVED"
        sys.stdout.write(f"{mutant.name:50} {how}\n")
        sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
