"""What all simulated clients have in common: they do random things, a step at a time, and then leave."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import frozen

from vmcp_actors.errors import ClientReplied, ClientUnreachable
from vmcp_actors.model import JsonObject, Notice, NoticeSink

from .ledger import CallRecord, Invariant, Origin
from .world import World

TOOLS = ("echo", "count", "sleep", "sleep", "sleep", "ask", "die")
TOOL_WEIGHTS = (3, 2, 2, 2, 2, 2, 0.4)
LEVELS = ("debug", "info", "warning", "error")
Operation = tuple[float, Callable[[], Awaitable[None]]]


@frozen
class Plan:
    """What a client means to do with one call. It gives up after `patience` seconds, or so many passes of trio."""

    backend: str
    tool: str
    arguments: JsonObject
    token: int | None
    patience: float | None
    passes: int | None


class Client:
    """A task that does random things until its world has no steps left. Those that take long go on beside it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.random = random.Random(f"{world.seed}/client {number}")
        self.person = f"person {number // 2}"
        self.tasks: trio.Nursery

    def operations(self) -> Sequence[Operation]:
        """What it can do now, and how likely it is."""
        raise NotImplementedError

    async def leave(self) -> None:
        """What it does at last."""

    async def live(self) -> None:
        """From its first step to its last; returns when all that it began is over."""
        await trio.sleep(self.random.choice((0.0, self.random.uniform(0.0, 5.0))))
        async with trio.open_nursery() as self.tasks:
            while self.world.step():
                weights, operations = zip(*self.operations(), strict=True)
                (operation,) = self.random.choices(operations, weights)
                self.world.note(f"client {self.number}: {operation.__name__.strip('_')}")
                await operation()
                await self.pause()
            await self.leave()

    async def pause(self) -> None:
        """Do nothing, mostly for a short time."""
        await trio.sleep(self.random.choice((0.0, 0.0, 0.01, 0.3, self.random.expovariate(0.5))))

    async def _think(self) -> None:
        await trio.sleep(self.random.choice((1.0, 5.0, self.random.expovariate(0.05))))

    def after_passes(self, passes: int | None, cut: Callable[[], None]) -> None:
        """Do something after so many passes of the scheduler, wherever everything else is by then; None for never."""

        async def count() -> None:
            for _ in range(passes or 0):
                await trio.lowlevel.checkpoint()
            cut()

        if passes is not None:
            self.tasks.start_soon(count)

    def give_up(self, record: CallRecord, cut: Callable[[], None]) -> None:
        """The client wants no more of a call that has no outcome yet."""
        if not record.outcomes:
            record.gives_up_at = min(record.gives_up_at, trio.current_time())
            cut()

    # --- calls --------------------------------------------------------------------------------------------------------

    def begin_call(self, plan: Plan) -> None:
        """Begin a call, in a task of its own."""
        raise NotImplementedError

    async def call(self) -> None:
        """One call."""
        self.begin_call(self.plan())

    async def burst(self) -> None:
        """The same call, at once and more often than is allowed."""
        plan = self.plan()
        for _ in range(self.random.randint(2, self.world.config.sessions.max_calls + 2)):
            self.begin_call(plan)

    def plan(self) -> Plan:
        """A random call."""
        rng = self.random
        (tool,) = rng.choices(TOOLS, TOOL_WEIGHTS)
        arguments: JsonObject = {}
        if tool == "sleep":
            arguments = {
                "seconds": rng.choice((0.01, 0.5, 3.0, rng.uniform(0.0, 12.0))),
                "steps": rng.randint(1, 3),
                "logs": rng.choice((0, 0, 1, 20)),
                "breaks": rng.random() < 0.2,
            }
        elif tool == "die":
            arguments = {"seconds": rng.uniform(0.0, 2.0)}
        return Plan(
            backend=rng.choice(self.world.doubles).name,
            tool=tool,
            arguments=arguments,
            # Many choose the same tokens, and such as are request ids of other calls.
            token=rng.choice((None, rng.randint(1, 20))),
            patience=rng.choice((None, None, None, 0.0, rng.uniform(0.0, 4.0))),
            passes=rng.choice((None, None, None, None, rng.randint(0, 60))),
        )

    def record(self, plan: Plan, owner: str, origin: Origin | None) -> tuple[CallRecord, JsonObject]:
        """A new call, and its params."""
        record = self.world.ledger.begin(owner, plan.tool, origin)
        params: JsonObject = {
            "name": f"{plan.backend}_{plan.tool}",
            "arguments": {"call": record.number, **plan.arguments},
        }
        if plan.token is not None:
            record.token = plan.token
            params["_meta"] = {"progressToken": plan.token}
        return record, params

    def hears(self, record: CallRecord) -> NoticeSink:
        """A sink for the notices of a call."""
        return lambda notice: self.heard(notice, record.owner, record)

    def heard(self, notice: Notice, owner: str, record: CallRecord | None) -> None:
        """A notice has come, to a call or to the session of `owner`."""
        params = notice.params or {}
        if notice.method == "notifications/message":
            own = params.get("data") == owner
            self.world.check(own, Invariant.OWN_NOTICES, f"{owner} hears {params}")
        elif notice.method == "notifications/progress":
            own = record is not None and params.get("message") == str(record.number)
            own = own and params.get("progressToken") == (record and record.token)
            self.world.check(own, Invariant.OWN_NOTICES, f"{record} hears {params}")
            if record is not None:
                record.progress_heard += 1

    def succeeded(self, record: CallRecord, result: JsonObject) -> None:
        """A call has its result."""
        text = str(result["content"][0]["text"])
        if record.token is not None:
            self.world.check(
                record.progress_heard == record.progress_sent,
                Invariant.PROGRESS,
                f"{record} heard {record.progress_heard} of {record.progress_sent} reports",
            )
        self.world.ledger.ended(record, "ok", text=text)


class Answer:
    """The answer of a client that was asked something: an answer, a refusal, or none."""

    def __init__(self, client: Client) -> None:
        self.on_progress: Callable[[JsonObject], None] = lambda _: None
        self._given_up = trio.Event()
        self._delay = client.random.choice((0.0, 0.5, client.random.uniform(0.0, 30.0), float("inf")))
        self._refuses = client.random.random() < 0.3

    async def wait(self) -> JsonObject:
        with trio.move_on_after(self._delay):
            await self._given_up.wait()
            raise ClientUnreachable("given up")
        self.on_progress({"progress": 1})
        if self._refuses:
            raise ClientReplied(-1, "the client refuses")
        return {"action": "accept"}

    def give_up(self, reason: str) -> None:
        self._given_up.set()
