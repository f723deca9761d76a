"""How the backends are, as far as is known: from the calls of all sessions and from pings; and the circuit breaker.

Plain objects: nothing here waits. One `BackendHealth` for each backend of the process, which all sessions feed.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection

import trio
from attrs import frozen

from .errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendReplied,
    BackendTimeout,
    BackendUnauthorized,
    BackendUnavailable,
)
from .settings import BreakerSettings, HealthSettings

FAILURES = (BackendUnavailable, BackendLost, BackendTimeout, BackendProtocolError, BackendUnauthorized)
"""What says that something is wrong with a backend. Its own errors and a tool's `isError` do not."""


class Circuit(enum.Enum):
    """The states of a breaker: calls pass; none passes; one passes, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Admission(enum.Enum):
    """How a call was let through: like any other, or to see whether the backend works again."""

    PLAIN = "plain"
    PROBE = "probe"


class Breaker:
    """Stops calls after `threshold` failures within `window` seconds; lets one through after `timeout`, to see.

    That one closes the circuit, or opens it for another `timeout`. Every call that was admitted is settled by exactly
    one of `succeeded`, `failed` and `undecided`, with what `admit` gave it.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = trio.current_time) -> None:
        self._settings = settings
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=settings.failure_threshold)
        self._opened: float | None = None
        self._probing = False

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Go by these settings from now on; closed, and without memory, if they are others."""
        if settings != self._settings:
            self._settings = settings
            self._failures = deque(maxlen=settings.failure_threshold)
            self._opened = None

    @property
    def circuit(self) -> Circuit:
        """The state as of now. A breaker that is not enabled stays closed."""
        if self._opened is None or not self._settings.enabled:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self._clock() >= self._opened + self._settings.timeout else Circuit.OPEN

    @property
    def next_try(self) -> float:
        """Seconds until a call may pass; 0 when one may now."""
        if self._opened is None:
            return 0.0
        return max(0.0, self._opened + self._settings.timeout - self._clock())

    def admit(self) -> Admission | None:
        """Whether a call may pass now: None if not. While the circuit is half open, one at a time may, as a probe."""
        if not self._settings.enabled or self._opened is None:
            return Admission.PLAIN
        if self.circuit is Circuit.OPEN or self._probing:
            return None
        self._probing = True
        return Admission.PROBE

    def succeeded(self, admission: Admission) -> None:
        """An admitted call showed that the backend works."""
        self._failures.clear()
        self._opened = None
        self.undecided(admission)

    def failed(self, admission: Admission) -> None:
        """An admitted call showed that it does not."""
        now = self._clock()
        self._failures.append(now)
        full = len(self._failures) == self._settings.failure_threshold
        if admission is Admission.PROBE or (
            # While it is open, a straggler from before says nothing new.
            self._opened is None and full and self._failures[0] > now - self._settings.window
        ):
            self._opened = now
        self.undecided(admission)

    def undecided(self, admission: Admission) -> None:
        """An admitted call ended without showing anything: it was cancelled, say."""
        if admission is Admission.PROBE:
            self._probing = False

    def __repr__(self) -> str:
        return f"<Breaker {self.circuit.value}: {len(self._failures)} failures>"


class Status(enum.Enum):
    """How a backend is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    UNAUTHENTICATED = "unauthenticated"


@frozen
class HealthStatistics:
    """A snapshot. `last_failure` is what went wrong last, `next_try` seconds until an open circuit lets a call pass."""

    backend: str
    status: str
    circuit: str
    successes: int
    failures: int
    failures_in_a_row: int
    refused: int
    last_failure: str | None
    next_try: float | None


class BackendHealth:
    """What is known of one backend, over all sessions."""

    def __init__(self, backend: str, settings: HealthSettings, clock: Callable[[], float] = trio.current_time) -> None:
        self.backend = backend
        self.breaker = Breaker(settings.breaker, clock)
        self._threshold = settings.unhealthy_threshold
        self._successes = self._failures = self._in_a_row = self._refused = 0
        self._last_failure: BackendError | None = None
        self._known = False

    def reconfigure(self, settings: HealthSettings) -> None:
        """Go by these settings from now on. What was learnt stays; a breaker that is another begins anew, closed."""
        self._threshold = settings.unhealthy_threshold
        self.breaker.reconfigure(settings.breaker)

    @property
    def status(self) -> Status:
        """Healthy after a success; degraded after a failure; unhealthy after `unhealthy_threshold` of them in a row."""
        if not self._known:
            return Status.UNKNOWN
        if not self._in_a_row:
            return Status.HEALTHY
        if isinstance(self._last_failure, BackendUnauthorized):
            return Status.UNAUTHENTICATED
        return Status.UNHEALTHY if self._in_a_row >= self._threshold else Status.DEGRADED

    def begin(self) -> Observation:
        """Something is about to be tried with the backend.

        Raises:
            BackendUnavailable: the circuit is open; it says why, and when the next try is. Not delivered.
        """
        admission = self.breaker.admit()
        if admission is None:
            self._refused += 1
            raise BackendUnavailable(self.backend, self._refusal())
        return Observation(self, admission)

    def succeeded(self, admission: Admission) -> None:
        """The backend answered. For `Observation`."""
        self._known = True
        self._successes += 1
        self._in_a_row = 0
        self.breaker.succeeded(admission)

    def failed(self, admission: Admission, error: BackendError) -> None:
        """It did not, or not properly. For `Observation`."""
        self._known = True
        self._failures += 1
        self._in_a_row += 1
        self._last_failure = error
        self.breaker.failed(admission)

    def _refusal(self) -> str:
        reason = self._last_failure.reason if self._last_failure is not None else "it failed too often"
        return f"unavailable: {reason} (circuit open), next try in {self.breaker.next_try:.0f} s"

    def statistics(self) -> HealthStatistics:
        """A snapshot."""
        circuit = self.breaker.circuit
        return HealthStatistics(
            backend=self.backend,
            status=self.status.value,
            circuit=circuit.value,
            successes=self._successes,
            failures=self._failures,
            failures_in_a_row=self._in_a_row,
            refused=self._refused,
            last_failure=self._last_failure.reason if self._last_failure is not None else None,
            next_try=self.breaker.next_try if circuit is Circuit.OPEN else None,
        )

    def __repr__(self) -> str:
        return f"<BackendHealth {self.backend}: {self.status.value}, circuit {self.breaker.circuit.value}>"


class Observation:
    """One try with a backend, until it is known how it ended. What is said first counts.

    As a context it learns from how the body ends.
    """

    __slots__ = ("_admission", "_health")

    def __init__(self, health: BackendHealth, admission: Admission) -> None:
        self._health = health
        self._admission: Admission | None = admission

    def succeeded(self) -> None:
        """The backend answered."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._health.succeeded(admission)

    def failed(self, error: BackendError) -> None:
        """It did not, or not properly."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._health.failed(admission, error)

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, BackendReplied):
            self.succeeded()
        elif isinstance(error, FAILURES):
            self.failed(error)
        else:
            self.undecided()

    def undecided(self) -> None:
        """It ended without showing anything."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._health.breaker.undecided(admission)


class Health:
    """The health of every backend of the process, by name."""

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self.settings = settings or HealthSettings()
        self._backends: dict[str, BackendHealth] = {}

    def of(self, backend: str) -> BackendHealth:
        """That of one backend; of one that was never heard of, nothing is known."""
        if backend not in self._backends:
            self._backends[backend] = BackendHealth(backend, self.settings)
        return self._backends[backend]

    def reconfigure(self, settings: HealthSettings, backends: Collection[str]) -> None:
        """Go by these settings from now on, and forget backends that are none of these."""
        self.settings = settings
        self._backends = {name: health for name, health in self._backends.items() if name in backends}
        for health in self._backends.values():
            health.reconfigure(settings)

    def statistics(self) -> tuple[HealthStatistics, ...]:
        """A snapshot of every backend."""
        return tuple(health.statistics() for _, health in sorted(self._backends.items()))

    def __repr__(self) -> str:
        return f"<Health: {', '.join(f'{name} {health.status.value}' for name, health in self._backends.items())}>"
