"""What a scenario finds: percentiles, ratios round by round, bounds."""

from __future__ import annotations

import pytest

from benchmarks.scenario import Bench, Figure, Figures
from benchmarks.scenarios import SCENARIOS
from benchmarks.statistics import percentile, ratios


class NoDisplay:
    def expect(self, steps: int) -> None:
        pass

    def step(self, text: str) -> None:
        pass


@pytest.mark.parametrize(
    ("samples", "part", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([5.0], 0.99, 5.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_a_percentile_is_a_sample_that_was_measured(samples: list[float], part: float, expected: float) -> None:
    assert percentile(samples, part) == expected


def test_the_99th_percentile_of_a_hundred_is_all_but_the_worst() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_ratios_are_those_of_the_same_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_ratios_of_different_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        ratios([1.0], [1.0, 2.0])


def test_a_ratio_has_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    figures = Figures()
    for ours, theirs in ((1.0, 1.0), (2.0, 4.0), (30.0, 10.0)):
        figures.add("ours", ours, "ms")
        figures.add("theirs", theirs, "ms")

    figures.relate("ours / theirs", "ours", "theirs", "lower", bound=2.0)

    related = figures.get("ours / theirs")
    assert related.samples == [1.0, 0.5, 3.0]
    assert (related.median, related.range) == (1.0, (0.5, 3.0))


@pytest.mark.parametrize(
    ("better", "bound", "holds"),
    [("lower", 2.0, True), ("lower", 1.9, False), ("higher", 2.0, True), ("higher", 2.1, False), ("lower", None, None)],
)
def test_a_bound_is_held_against_the_median(better: str, bound: float | None, holds: bool | None) -> None:
    figure = Figure("x", "ms", [1.0, 2.0, 9.0], better, bound)  # type: ignore[arg-type]

    assert figure.holds is holds


def test_figures_near_the_limit_of_the_load_generator_are_marked() -> None:
    figures = Figures()
    for name, value in (("throughput, limit", 100.0), ("throughput, near", 70.0), ("throughput, far", 69.0)):
        figures.add(name, value, "calls/s")
    figures.add("throughput, far / near", 99.0, "×")

    figures.limit("throughput", figures.get("throughput, limit"), 0.7)

    assert [figure.name for figure in figures.all() if figure.limited] == ["throughput, near"]


def test_figures_of_a_candidate_that_failed_are_forgotten_in_its_group_only() -> None:
    figures = Figures()
    for group in ("a", "b"):
        figures.add("latency, one", 1.0, "ms", group=group)
        figures.add("latency, two", 1.0, "ms", group=group)

    figures.forget("two", "a")

    assert [figure.label for figure in figures.all()] == ["a: latency, one", "b: latency, one", "b: latency, two"]


def test_a_quick_run_makes_few_rounds() -> None:
    assert Bench(True, NoDisplay()).rounds(7) == 2
    assert Bench(False, NoDisplay()).rounds(7) == 7


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_says_what_it_claims_and_what_would_falsify_it(scenario: object) -> None:
    claim = scenario.claim  # type: ignore[attr-defined]

    assert "Claim: " in claim
    assert "Falsified by" in claim
