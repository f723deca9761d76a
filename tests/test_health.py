"""The circuit breaker and what is known of backends: plain objects, with a clock of the test's own."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from vmcp_actors.errors import (
    BackendError,
    BackendLost,
    BackendReplied,
    BackendSessionLost,
    BackendTimeout,
    BackendUnauthorized,
    BackendUnavailable,
)
from vmcp_actors.health import Admission, BackendHealth, Breaker, Circuit, Status
from vmcp_actors.settings import BreakerSettings, HealthSettings

ON = BreakerSettings(enabled=True)


@define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> Breaker:
    return Breaker(ON, clock)


def fail(circuit: Breaker, times: int = 1) -> None:
    for _ in range(times):
        admission = circuit.admit()
        assert admission is not None
        circuit.failed(admission)


def test_five_failures_within_a_minute_open_it() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(4):
        fail(circuit)
        clock.now += 14.9
    assert circuit.circuit is Circuit.CLOSED
    fail(circuit)
    assert circuit.circuit is Circuit.OPEN
    assert circuit.admit() is None
    assert circuit.next_try == 60


def test_five_failures_over_more_than_a_minute_do_not() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(20):
        fail(circuit)
        clock.now += 15
    assert circuit.circuit is Circuit.CLOSED


def test_a_success_in_between_begins_the_count_anew() -> None:
    circuit = breaker(Clock())
    for _ in range(5):
        fail(circuit, 4)
        circuit.succeeded(Admission.PLAIN)
    assert circuit.circuit is Circuit.CLOSED


def test_after_a_minute_one_call_may_pass_and_closes_it() -> None:
    clock = Clock()
    circuit = breaker(clock)
    fail(circuit, 5)
    clock.now += 60
    assert circuit.circuit is Circuit.HALF_OPEN
    probe = circuit.admit()
    assert probe is Admission.PROBE
    assert circuit.admit() is None
    circuit.succeeded(probe)
    assert circuit.circuit is Circuit.CLOSED
    assert circuit.admit() is Admission.PLAIN


def test_or_opens_it_for_another_minute() -> None:
    clock = Clock()
    circuit = breaker(clock)
    fail(circuit, 5)
    clock.now += 60
    fail(circuit)
    assert circuit.circuit is Circuit.OPEN
    assert circuit.next_try == 60


def test_a_probe_that_shows_nothing_makes_room_for_another() -> None:
    clock = Clock()
    circuit = breaker(clock)
    fail(circuit, 5)
    clock.now += 60
    probe = circuit.admit()
    assert probe is not None
    circuit.undecided(probe)
    assert circuit.admit() is Admission.PROBE


def test_a_straggler_neither_prolongs_it_nor_takes_the_place_of_the_probe() -> None:
    clock = Clock()
    circuit = breaker(clock)
    fail(circuit, 5)
    clock.now += 30
    circuit.failed(Admission.PLAIN)
    assert circuit.next_try == 30
    clock.now += 30
    assert circuit.admit() is Admission.PROBE
    circuit.undecided(Admission.PLAIN)
    assert circuit.admit() is None


def test_one_that_is_not_enabled_lets_everything_pass() -> None:
    circuit = Breaker(BreakerSettings(enabled=False), Clock())
    fail(circuit, 100)
    assert circuit.circuit is Circuit.CLOSED
    assert circuit.admit() is Admission.PLAIN


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "bad", "none"]), st.floats(0, 40)), max_size=60))
def test_whatever_happens_at_most_one_probe_is_under_way_and_none_before_its_time(
    steps: list[tuple[str, float]],
) -> None:
    clock = Clock()
    circuit = breaker(clock)
    under_way: deque[Admission] = deque()
    for step, seconds in steps:
        clock.now += seconds
        if step == "ask":
            before = circuit.circuit
            admission = circuit.admit()
            assert (admission is None) or before is not Circuit.OPEN
            if admission is not None:
                under_way.append(admission)
        elif under_way:
            settle = {"ok": circuit.succeeded, "bad": circuit.failed, "none": circuit.undecided}[step]
            settle(under_way.popleft())
        assert sum(admission is Admission.PROBE for admission in under_way) <= 1
        assert circuit.next_try <= 60
    for admission in under_way:
        circuit.undecided(admission)
    clock.now += 60
    assert circuit.admit() is not None


def observe(health: BackendHealth, error: BaseException | None = None) -> None:
    with suppress(BaseException), health.begin():
        if error is not None:
            raise error


def test_the_states_of_a_backend() -> None:
    health = BackendHealth("a", HealthSettings(), Clock())
    assert health.status is Status.UNKNOWN
    observe(health)
    assert health.status is Status.HEALTHY
    observe(health, BackendLost("a", "gone"))
    assert health.status is Status.DEGRADED
    for _ in range(2):
        observe(health, BackendTimeout("a", "slow"))
    assert health.status is Status.UNHEALTHY
    observe(health, BackendUnauthorized("a", "no"))
    assert health.status is Status.UNAUTHENTICATED
    observe(health)
    assert health.status is Status.HEALTHY
    assert health.statistics().failures == 4


@pytest.mark.parametrize(
    "error", [BackendReplied("a", -32603, "their own"), BackendSessionLost("a", "forgot")], ids=str
)
def test_what_a_backend_says_itself_is_no_failure(error: BackendError) -> None:
    health = BackendHealth("a", HealthSettings(breaker=ON), Clock())
    for _ in range(10):
        observe(health, error)
    assert health.statistics().failures == 0
    assert health.breaker.circuit is Circuit.CLOSED


def test_an_open_circuit_says_why_and_when_the_next_try_is() -> None:
    health = BackendHealth("a", HealthSettings(breaker=ON), Clock())
    for _ in range(5):
        observe(health, BackendTimeout("a", "no answer within 60 s"))
    with pytest.raises(BackendUnavailable, match=r"a: unavailable: no answer .* \(circuit open\), next try in 60 s"):
        with health.begin():
            raise AssertionError("not reached")
    assert health.statistics().refused == 1


def test_who_is_cancelled_shows_nothing() -> None:
    health = BackendHealth("a", HealthSettings(breaker=ON), Clock())
    for _ in range(10):
        observe(health, KeyboardInterrupt())
    assert health.status is Status.UNKNOWN
