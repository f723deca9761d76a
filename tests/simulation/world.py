"""A simulated world: a gateway over backends in memory, its clients, what goes wrong, and what must be true."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import evolve

from vmcp_actors.errors import BackendSessionLost, Draining, SessionLimitReached, UnresolvedConflicts, VmcpError
from vmcp_actors.model import BackendSpec, ClientProfile, Identity
from vmcp_actors.server import Asgi, create_app, front
from vmcp_actors.sessions import Session, SessionFactory, SessionSupervisor, open_supervisor
from vmcp_actors.settings import SessionSettings
from vmcp_actors.store import MemoryStore

from .backends import CAPABILITIES, Board, SimBackend, observed
from .config import Config
from .ledger import ORIGIN, Invariant, Ledger, Origin

QUIESCENCE = 3600.0
"""Virtual seconds within which everything must have come to an end once nobody begins anything new."""
RECOVERY = 150.0
"""Virtual seconds after the last fault, after which everything must work again."""
REPLAY_EVENTS = 24
CALL_BOUND = 1500.0

Inhabitants = Callable[["World"], Sequence[Callable[[], Awaitable[None]]]]


class World:
    """One world. Its clients and faults live in the nursery `people`, which outlives the gateway.

    Args:
        inhabitants: makes the clients and the faults; each is a task.
        keep: the whole trace is kept, and not only its end.
    """

    def __init__(self, seed: int, config: Config, inhabitants: Inhabitants, *, keep: bool = False) -> None:
        self.seed = seed
        self.config = config
        self._inhabitants = inhabitants
        self.ledger = Ledger(keep=keep)
        self.note = self.ledger.note
        self.check = self.ledger.check
        self.board = Board(
            self.ledger,
            call_timeout=config.call_timeout,
            max_calls=config.sessions.max_calls,
            max_sessions=config.sessions.max_sessions,
            max_per_client=config.sessions.max_per_client,
            partial=config.health.partial_failure_mode,
        )
        self.doubles = [self._double(n) for n in range(len(config.backends))]
        self.fronts: list[front.Front] = []
        self.sessions: dict[Session, Origin] = {}
        self.supervisor: SessionSupervisor
        self.app: Asgi
        self.requests: trio.Nursery
        self.specs = [
            evolve(double.spec, call_timeout=config.call_timeout, connect_timeout=5.0) for double in self.doubles
        ]
        self.drained = False
        self._steps = config.steps
        self._over = trio.Event()

    def _double(self, number: int) -> SimBackend:
        config = self.config.backends[number]
        return SimBackend(
            config.name,
            board=self.board,
            tools=dict(self.board.tools),
            resources=({"uri": f"x://{config.name}", "name": config.name},),
            capabilities=CAPABILITIES,
            eras=config.eras,
            http=config.http,
            session_loss=config.session_loss,
            keepalive=config.keepalive,
            connect_delay=config.connect_delay,
        )

    # --- for clients and faults ---------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Whether there is one more thing to do in this world; it is counted."""
        self._steps -= 1
        self.observe()
        return self._steps >= 0 and not self._over.is_set()

    def observe(self) -> None:
        """Check what can be seen from outside, now."""
        check, limits = self.check, self.config.sessions
        stats = self.supervisor.statistics()
        count = stats.sessions + stats.starting
        check(count <= self.board.max_sessions, Invariant.LIMITS, f"{count} sessions")
        check(stats.crashes == 0, Invariant.NO_SURPRISE, f"{stats.crashes} sessions have crashed")
        for seen in self.supervisor.sessions():
            calls = seen.running_calls
            check(calls <= limits.max_calls, Invariant.LIMITS, f"{seen.name} runs {calls} calls")
        live: dict[str, int] = {}
        for session, origin in list(self.sessions.items()):
            if session.closed:
                del self.sessions[session]
            else:
                live[origin.client] = live.get(origin.client, 0) + 1
        for client, count in live.items():
            check(count <= self.board.max_per_client, Invariant.LIMITS, f"{client} has {count} sessions")
        for kept in self.fronts:
            self._observe_front(kept.statistics())

    def _observe_front(self, stats: front.FrontStatistics) -> None:
        unsent = stats.streams * (self.config.server.stream_capacity + 1)
        self.check(stats.events <= max(REPLAY_EVENTS, unsent), Invariant.MEMORY, f"too many events are kept: {stats}")
        used = stats.events + stats.calls + stats.open_streams
        self.check(stats.streams <= used, Invariant.MEMORY, f"streams are kept that nobody can read: {stats}")

    def reload(self, specs: Sequence[BackendSpec], settings: SessionSettings) -> None:
        """Another configuration. Where limits become smaller, those that were there before may stay."""
        self.note(f"fault: reload with {', '.join(spec.name for spec in specs)}")
        old = {spec.name: spec.endpoint for spec in self.supervisor.backends}
        new = {spec.name: spec.endpoint for spec in specs}
        gone = {name for name, endpoint in old.items() if new.get(name) != endpoint}
        self.board.retire(gone, trio.current_time() + settings.drain_timeout)
        self.board.allow(max_sessions=settings.max_sessions, max_per_client=settings.max_per_client)
        self.supervisor.reconfigure(backends=specs, settings=settings)

    def begin_drain(self, drain: float | None) -> None:
        """The supervisor is drained; the world goes on."""
        self.note(f"fault: drain within {drain}")
        self._closing_by(self.config.sessions.drain_timeout if drain is None else drain)
        self.requests.start_soon(self._drain, drain)

    async def _drain(self, drain: float | None) -> None:
        await self.supervisor.drain(drain=drain)
        self._nothing_left("after a drain")

    def _closing_by(self, drain: float) -> None:
        self.drained = True
        self.ledger.cut_by = min(self.ledger.cut_by, trio.current_time() + drain)

    def shut_down(self) -> None:
        """The gateway is ended, whatever its clients are doing."""
        self._closing_by(self.config.sessions.drain_timeout)
        self._over.set()

    @property
    def ending(self) -> bool:
        """Whether the gateway is being ended."""
        return self._over.is_set()

    # --- the run ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the beginning to the end, unless an invariant is violated on the way."""
        with self.ledger.scope:
            with trio.move_on_after(3 * QUIESCENCE) as bound:
                async with trio.open_nursery() as people:
                    await self._gateway(people)
                    people.cancel_scope.deadline = trio.current_time() + QUIESCENCE
                ended = not people.cancel_scope.cancelled_caught
                self.check(ended, Invariant.NO_DEADLOCK, "a client waits for ever")
            self.check(not bound.cancelled_caught, Invariant.NO_DEADLOCK, "the world does not come to an end")
            self.ledger.check_calls()

    async def _gateway(self, people: trio.Nursery) -> None:
        config, store = self.config, MemoryStore()
        factory = SessionFactory(
            settings=config.sessions,
            restart=config.restart,
            store=store,
            transport=observed(self.doubles, self.board),
            health=config.health,
        )
        async with (
            open_supervisor(
                factory=factory, backends=self.specs, store=store, stateless=config.stateless
            ) as self.supervisor,
            trio.open_nursery() as self.requests,
        ):
            self.app = create_app(self.supervisor, config.server, name="sim")
            async with trio.open_nursery() as watch:
                watch.start_soon(self._live, people, watch.cancel_scope)
                await self._over.wait()
                watch.cancel_scope.cancel()
            self._closing_by(config.sessions.drain_timeout)
            if {"web", "stateless"} & set(config.clients):
                await self.supervisor.drain()  # the server ends after the sessions, so that their calls are answered
            self.requests.cancel_scope.cancel("the server has ended")
        self._nothing_left("after the end")
        self.check(not self.board.connections, Invariant.NOTHING_LEFT, f"{len(self.board.connections)} connections")
        for double in self.doubles:
            self.check(
                not double.sessions, Invariant.NOTHING_LEFT, f"{double.name} has {len(double.sessions)} sessions"
            )
        records = await store.unused_since(math.inf)
        self.check(not records, Invariant.NOTHING_LEFT, f"{len(records)} records in the store")
        for kept in self.fronts:
            stats = kept.statistics()
            self.check(not stats.calls, Invariant.NOTHING_LEFT, f"calls at the endpoint: {stats}")
            self.check(not stats.questions, Invariant.NOTHING_LEFT, f"questions at the endpoint: {stats}")

    def _nothing_left(self, when: str) -> None:
        stats = self.supervisor.statistics()
        self.check(stats.sessions == stats.starting == 0, Invariant.NOTHING_LEFT, f"{when}: {stats}")
        self.check(stats.crashes == 0, Invariant.NO_SURPRISE, f"{stats.crashes} children crashed")
        self.note(f"{when}: {stats}")

    async def _live(self, people: trio.Nursery, gateway: trio.CancelScope) -> None:
        """Let clients and faults live; then, when all is well again, see that it is. Ends the world."""
        inhabitants = self._inhabitants(self)
        living = Countdown(len(inhabitants))
        for live in inhabitants:
            people.start_soon(living.counting, live)
        await living.zero.wait()
        self.note("all clients are done")
        for double in self.doubles:
            double.heal()
        if not self.drained:
            self.reload(self.specs, self.supervisor.settings)
            await trio.sleep(RECOVERY)
            await self._recovered()
        self._over.set()

    async def _recovered(self) -> None:
        """A new client finds room, and every backend works; those who have stayed can go on."""
        self.observe()
        for session, origin in list(self.sessions.items()):
            if not session.closing and not session.leased:
                await self._works(session, origin)
        for session, origin in list(self.sessions.items()):
            origin.cut_by = trio.current_time()
            session.request_close("simulation", drain=0.0)
        idle = max(self.config.sessions.idle_timeout, self.config.stateless.idle_timeout)
        parked, asked = 300.0, 10 * self.config.call_timeout  # what is left of calls may take so long
        await trio.sleep(parked + asked + idle)
        stats = self.supervisor.statistics()
        self.check(not stats.sessions, Invariant.NOTHING_LEFT, f"when all clients are gone: {stats}")
        self.check(not self.board.connections, Invariant.NOTHING_LEFT, f"{self.board.connections} after the clients")
        limits = self.supervisor.settings
        for number in range(min(limits.max_sessions, limits.max_per_client)):
            newcomer = await self.start(Origin(f"newcomer {number}", "person 0"))
            if newcomer is None:
                self.check(self.drained, Invariant.ADMISSION, f"newcomer {number} finds no room: {stats}")
                return
            if number == 0:
                await self._works(newcomer, self.sessions[newcomer])

    async def _works(self, session: Session, origin: Origin) -> None:
        for double in self.doubles:
            error = await self._echo(session, origin, double)
            if isinstance(error, BackendSessionLost) and double.session_loss == "error":
                error = await self._echo(session, origin, double)  # one call has to hear of it
            works = error is None or self.drained
            self.check(works, Invariant.RECOVERY, f"{double.name} does not work for {origin.owner}: {error}")

    async def _echo(self, session: Session, origin: Origin, double: SimBackend) -> VmcpError | None:
        record = self.ledger.begin(origin.owner, "echo", origin)
        try:
            result = await session.call_tool(f"{double.name}_echo", {"call": record.number})
        except VmcpError as error:
            self.ledger.ended(record, type(error).__name__, error=error)
            return error
        self.ledger.ended(record, "ok", text=str(result["content"][0]["text"]))
        return None

    async def start(self, origin: Origin, client: ClientProfile | None = None) -> Session | None:
        """A session for a client that is no HTTP client, if it is given one."""
        identity = Identity("sim", origin.client)
        token = ORIGIN.set(origin)
        self.note(f"{origin.owner} starts")
        try:
            session = await self.supervisor.start_session(identity, client)
        except (SessionLimitReached, Draining) as error:
            self.note(f"{origin.owner} is refused: {error}")
            self.check(
                self.drained or not isinstance(error, Draining), Invariant.ADMISSION, "draining, and nobody drains"
            )
            return None
        except (VmcpError, UnresolvedConflicts) as error:
            self.note(f"{origin.owner} did not start: {error}")
            incomplete = self.config.health.partial_failure_mode == "fail"
            self.check(incomplete, Invariant.NO_SURPRISE, f"{origin.owner} did not start: {error}")
            return None
        finally:
            ORIGIN.reset(token)
        self.sessions[session] = origin
        self.observe()
        self.note(f"{origin.owner} has {session.name}")
        return session


class Countdown:
    """Counts tasks that end."""

    def __init__(self, number: int) -> None:
        self.zero = trio.Event()
        self._left = number

    async def counting(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run one of them."""
        try:
            await run()
        finally:
            self._left -= 1
            if not self._left:
                self.zero.set()
