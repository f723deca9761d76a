"""Finds out which revision of MCP a backend speaks, and agrees on one with it: `initialize` or `server/discover`.

MCP 2025-11-25 basic/lifecycle §Initialization; MCP 2026-07-28 basic/versioning §Dual-era clients.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

import trio
from attrs import field, frozen
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from .. import __version__
from ..errors import (
    UNSUPPORTED_PROTOCOL_VERSION,
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendRevisionRefused,
    BackendUnavailable,
    Delivered,
)
from ..model import Era, Freshness, JsonObject
from ..wire.revisions import LATEST_STATEFUL, LATEST_STATELESS, STATEFUL_REVISIONS, STATELESS_REVISIONS
from ..wire.stateless import SERVER_INFO, Envelope, mirrored_headers, stamped

logger = logging.getLogger(__name__)

PROBE_TIMEOUT: Final = 5.0
"""Seconds after which a backend that says nothing to `server/discover` is taken for one that does not know it."""

OWN_INFO: Final[JsonObject] = {"name": "vmcp-actors", "version": __version__}
"""What backends are told of who is calling."""

STATEFUL_FIRST: Final = (Era.STATEFUL, Era.STATELESS)
STATELESS_FIRST: Final = (Era.STATELESS, Era.STATEFUL)
STATELESS_ONLY: Final = (Era.STATELESS,)


class Ask(Protocol):
    """Sends a request of our own to the backend. Raises `MCPError` or `BackendError`."""

    def __call__(
        self, method: str, params: JsonObject | None, headers: Mapping[str, str] | None = None
    ) -> Awaitable[JsonObject]:
        """The result."""
        ...


@frozen
class Greeting:
    """What a backend said of itself, in the shape of an `initialize` result, and the kind of revision agreed upon."""

    era: Era
    server: JsonObject
    freshness: Freshness = field(factory=Freshness)


class RevisionMemory:
    """Which kinds of revisions each backend was found to speak; one for the process. Verdicts correct themselves.

    A verdict only orders what a handshake tries, so a wrong one costs a request, not the backend.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, Era], bool] = {}

    def learn(self, backend: str, era: Era, speaks: bool) -> None:
        """A backend was found to speak, or not to speak, a kind of revision."""
        self._known[backend, era] = speaks

    def doubt(self, backend: str) -> None:
        """The backend was lost, and may come back as another version: what it did not speak, it may speak now."""
        for era in Era:
            if not self._known.get((backend, era), True):
                del self._known[backend, era]

    def keep(self, backends: Collection[str]) -> None:
        """Only these backends are the same as before; of others nothing is known."""
        self._known = {key: speaks for key, speaks in self._known.items() if key[0] in backends}

    def speaks(self, backend: str, era: Era) -> bool | None:
        """The verdict; None while there is none."""
        return self._known.get((backend, era))

    def ordered(self, backend: str, eras: Sequence[Era]) -> list[Era]:
        """What to try in which order: as preferred, but what did not work comes last."""
        return sorted(eras, key=lambda era: self.speaks(backend, era) is False)

    def all_speak(self, backends: Iterable[str], era: Era) -> bool:
        """Whether every one of these backends is known to speak it."""
        return all(self.speaks(backend, era) for backend in backends)

    def __repr__(self) -> str:
        verdicts = ", ".join(
            f"{backend} {'speaks' if speaks else 'does not speak'} {era.value}"
            for (backend, era), speaks in sorted(self._known.items(), key=lambda item: item[0][0])
        )
        return f"<RevisionMemory: {verdicts or 'nothing yet'}>"


class Handshake:
    """One handshake with one backend.

    Args:
        eras: what may be agreed upon, the preferred kind first.
    """

    def __init__(
        self, backend: str, ask: Ask, *, eras: Sequence[Era], capabilities: JsonObject, memory: RevisionMemory
    ) -> None:
        self._backend = backend
        self._ask = ask
        self._eras = eras
        self._capabilities = capabilities
        self._memory = memory

    async def run(self) -> Greeting:
        """Agree on a revision. A refusal of the one kind leads to the other; an outage is no refusal.

        Raises:
            BackendRevisionRefused: it does not speak the only kind that was asked for.
            BackendUnavailable: it refused every kind, with its reason; or it ended.
            BackendProtocolError: it speaks a revision that is not known here.
            BackendError: it could not be reached.
        """
        refusals: dict[Era, BackendError] = {}
        for era in self._memory.ordered(self._backend, self._eras):
            try:
                greeting = await (self._initialize() if era is Era.STATEFUL else self._discover())
            except _Refused as refusal:
                refusals[era] = refusal.error
                if refusal.clear:
                    self._memory.learn(self._backend, era, False)
            else:
                for refused in refusals:
                    self._memory.learn(self._backend, refused, False)
                self._memory.learn(self._backend, era, True)
                return greeting
        if not refusals:
            raise BackendUnavailable(self._backend, "the configuration does not let us speak its revisions")
        raise refusals.get(Era.STATEFUL) or refusals[Era.STATELESS]

    async def _initialize(self) -> Greeting:
        params: JsonObject = {
            "protocolVersion": LATEST_STATEFUL,
            "capabilities": self._capabilities,
            "clientInfo": OWN_INFO,
        }
        try:
            server = await self._ask("initialize", params)
        except MCPError as error:
            if is_closed(error):
                raise BackendUnavailable(self._backend, "ended before it was initialized") from error
            raise _Refused(BackendUnavailable(self._backend, f"refused to initialize: {error.message}")) from error
        except BackendProtocolError as error:
            raise _Refused(error, clear=error.delivered is Delivered.NO) from error
        version = server.get("protocolVersion")
        if version not in STATEFUL_REVISIONS:
            text = f"speaks protocol version {version!r}, which is not supported"
            raise _Refused(BackendProtocolError(self._backend, text))
        return Greeting(Era.STATEFUL, server)

    async def _discover(self) -> Greeting:
        found: JsonObject | None = None
        refusal = BackendRevisionRefused(self._backend, f"does not speak {LATEST_STATELESS}")
        try:
            with trio.move_on_after(PROBE_TIMEOUT):
                found = await self._probe()
        except MCPError as error:
            if is_closed(error):
                # Some servers of the stateful revisions end when the first message is not `initialize`.
                self._memory.learn(self._backend, Era.STATELESS, False)
                raise BackendUnavailable(self._backend, "ended when it was probed") from error
            raise _Refused(refusal) from error
        except (BackendProtocolError, BackendLost) as error:
            raise _Refused(refusal, clear=error.delivered is Delivered.NO) from error
        if found is None or not _names_ours(found.get("supportedVersions")):
            raise _Refused(refusal)
        meta = found.get("_meta")
        info = meta.get(SERVER_INFO) if isinstance(meta, dict) else None
        server = {**found, "protocolVersion": LATEST_STATELESS, "serverInfo": info if isinstance(info, dict) else {}}
        return Greeting(Era.STATELESS, server, Freshness.of(found))

    async def _probe(self) -> JsonObject:
        """`server/discover`; once more if the backend refuses our revision and at the same time says that it has it."""
        params = stamped({}, Envelope(LATEST_STATELESS, self._capabilities, OWN_INFO, None))
        headers = mirrored_headers("server/discover", params)
        try:
            return await self._ask("server/discover", params, headers)
        except MCPError as error:
            supported = error.data.get("supported") if isinstance(error.data, dict) else None
            if error.code != UNSUPPORTED_PROTOCOL_VERSION or not _names_ours(supported):
                raise
        return await self._ask("server/discover", params, headers)


def _names_ours(versions: object) -> bool:
    """Whether a list of versions has one of the stateless revisions that we speak."""
    return isinstance(versions, list) and any(version in STATELESS_REVISIONS for version in versions)


class _Refused(Exception):
    """The backend does not speak this kind of revision; `error` is what to say if it speaks no other.

    Unless `clear` it may have been an accident (HTTP 500), so that it counts only if the backend speaks the other kind.
    """

    def __init__(self, error: BackendError, *, clear: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.clear = clear


def is_closed(error: MCPError) -> bool:
    """Whether the SDK's dispatcher says that its stream ended, rather than the backend something of its own."""
    return error.code == CONNECTION_CLOSED and error.message == "Connection closed"
