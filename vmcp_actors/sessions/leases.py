"""Sessions for stateless clients: found or started by who asks, and shared by all of that principal's requests."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from ..actors import Reply
from ..errors import Draining, UnsupportedProtocolVersion
from ..model import BackendSpec, ClientProfile, Era, Identity, StdioCommand
from ..settings import StatelessSettings
from ..wire.messages import canonical_json
from ..wire.revisions import LATEST_STATELESS, STATEFUL_REVISIONS, STATELESS_REVISIONS
from .handshake import STATELESS_FIRST, STATELESS_ONLY, RevisionMemory
from .session import Session

logger = logging.getLogger(__name__)

UNKNOWN_PAUSE: Final = 30.0
"""Seconds for which clients are declined after it could not be found out what every backend speaks."""


class StartLeased(Protocol):
    """Starts a session for a lease. Raises as `SessionSupervisor.start_session`."""

    def __call__(self, identity: Identity, client: ClientProfile, eras: tuple[Era, ...]) -> Awaitable[Session]:
        """The session, ready to be used."""
        ...


class Leases:
    """Finds or starts the session under which a stateless principal's requests run (`stateless.mode`).

    * `auto`: only where every backend speaks the stateless revision.
    * `lease`: also with backends of stateful revisions, which keep their state for the principal.
    * `off`: never.

    A principal is an identity, or the address of a client that has none. Clients of different names do not share where
    a backend might keep something: one of a stateful revision, or a child process, whatever it promises. Backends of
    stateful revisions were told what a client declares, so clients that declare something else do not share them.

    Args:
        start: starts a session.
        spawn: runs an async function in a task of its own, which outlives the request that needed it first.
    """

    def __init__(
        self,
        settings: StatelessSettings,
        *,
        backends: Sequence[BackendSpec],
        memory: RevisionMemory,
        start: StartLeased,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._memory = memory
        self._start = start
        self._spawn = spawn
        self._sessions: dict[str, Session] = {}
        self._starting: dict[str, Reply[Session]] = {}
        self.reconfigure(settings, backends)

    def reconfigure(self, settings: StatelessSettings, backends: Sequence[BackendSpec]) -> None:
        """Serve stateless clients in this way, with these backends, from now on."""
        self._settings = settings
        self._backends = [spec.name for spec in backends]
        self._some_never = any(Era.STATELESS not in spec.eras for spec in backends)
        self._by_name = any(isinstance(spec.endpoint, StdioCommand) for spec in backends)
        self._declined_until = -float("inf")

    @property
    def revisions(self) -> tuple[str, ...]:
        """All revisions that clients can speak with us now, oldest first."""
        return STATEFUL_REVISIONS if self._declines() else (*STATEFUL_REVISIONS, *STATELESS_REVISIONS)

    def find(self, identity: Identity, client: ClientProfile) -> Session | None:
        """The principal's session, if `get` would give it without waiting."""
        if self._declines() or not self._may_serve():
            return None
        session = self._sessions.get(self._key(identity, client))
        return None if session is None or session.closing else session

    def _may_serve(self) -> bool:
        """Whether, by what is known now, the backends speak what the mode asks for."""
        return self._settings.mode != "auto" or self._memory.all_speak(self._backends, Era.STATELESS)

    async def get(self, identity: Identity, client: ClientProfile) -> Session:
        """The principal's session; started if there is none. Many requests at once start one, and all wait for it.

        Cancelling it leaves the session to the others.

        Raises:
            UnsupportedProtocolVersion: the stateless revision is not served; it names those that are.
            VmcpError: as `SessionSupervisor.start_session`.
        """
        if self._declines():
            raise self._declined()
        key = self._key(identity, client)
        session = self._sessions.get(key)
        if session is None or session.closing:
            session = await self._shared_start(key, identity, client)
        if not self._may_serve():
            # Clients that speak both kinds fall back to a session of their own; the others are told what is spoken.
            session.request_close("not every backend is stateless", drain=0.0)
            if not self._declines():
                self._declined_until = trio.current_time() + UNKNOWN_PAUSE
            raise self._declined()
        return session

    async def _shared_start(self, key: str, identity: Identity, client: ClientProfile) -> Session:
        reply = self._starting.get(key)
        if reply is None:
            reply = self._starting[key] = Reply()
            self._spawn(lambda: self._start_for(key, reply, identity, client))
        return await reply.wait()

    async def _start_for(self, key: str, reply: Reply[Session], identity: Identity, client: ClientProfile) -> None:
        eras = STATELESS_ONLY if self._settings.mode == "auto" else STATELESS_FIRST
        try:
            session = await self._start(identity, client, eras)
            self._sessions[key] = session
            reply.set_value(session)
        except Exception as error:
            reply.set_error(error)
        finally:
            del self._starting[key]
            reply.set_error(Draining())  # only if nothing else was set: the gateway is ending

    def forget(self, session: Session) -> None:
        """A session has ended."""
        for key, other in list(self._sessions.items()):
            if other is session:
                del self._sessions[key]

    def _declines(self) -> bool:
        """Whether it is known already that the stateless revision is not served."""
        if self._settings.mode != "auto":
            return self._settings.mode == "off"
        refusing = any(self._memory.speaks(backend, Era.STATELESS) is False for backend in self._backends)
        return self._some_never or refusing or trio.current_time() < self._declined_until

    @staticmethod
    def _declined() -> UnsupportedProtocolVersion:
        return UnsupportedProtocolVersion(LATEST_STATELESS, STATEFUL_REVISIONS)

    def _key(self, identity: Identity, client: ClientProfile) -> str:
        native = self._settings.mode == "auto" or self._memory.all_speak(self._backends, Era.STATELESS)
        if identity.anonymous:
            parts: list[object] = [client.address]
            if self._by_name or not native:
                parts += [client.info.get("name"), client.info.get("version")]
        else:
            parts = [identity.binding, None]
        if not native:
            parts.append(client.capabilities)
        return canonical_json(parts).decode()

    def __repr__(self) -> str:
        return f"<Leases {self._settings.mode}: {len(self._sessions)} sessions, {len(self._starting)} starting>"
