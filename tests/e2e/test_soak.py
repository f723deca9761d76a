"""The soak, for a short time: nothing unanswered, nothing mixed up, nothing left. Memory needs a longer run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.soak.measure import Sample, growth, left_behind, slope, verdict
from benchmarks.soak.run import Plan, soak

pytestmark = pytest.mark.e2e


def sample(number: int, **held: Any) -> Sample:
    return Sample(**{"seconds": float(number), "operations": 100 * number, "resident": 10**8, "files": 9, "children": 0,
                     "tasks": 20, "sessions": 0, **held})  # fmt: skip


@pytest.mark.slow
async def test_a_short_soak_with_faults() -> None:
    report = await soak(Plan(seconds=60.0, operations=math.inf, workers=15, seed=1, faults=True))
    problems = [problem for problem in report["verdict"] if not problem.startswith("memory grew")]
    assert problems == []
    assert set(report["faults"]) == {"restart", "freeze", "kill_child", "reload"}
    assert report["outcomes"]["a_count ok"] > 20
    assert report["outcomes"]["n_notes ok"] > 20


def test_the_verdict_sees_a_leak_and_forgives_a_heap_that_settles() -> None:
    settling = [sample(n, resident=10**8 + min(n, 25) * 10**6) for n in range(100)]
    leaking = [sample(n, resident=10**8 + n * 10**6) for n in range(100)]
    assert verdict(settling, [], []) == []
    assert "memory grew by" in verdict(leaking, [], [])[0]
    assert (growth(settling), slope(settling)) == (0.0, 0.0)
    assert slope(leaking) == pytest.approx(10**4)


def test_the_verdict_names_what_is_left_and_what_went_wrong() -> None:
    before = sample(0)
    assert left_behind(before, sample(9, files=10, tasks=22)) == []
    after = sample(9, files=12, tasks=40, children=1, sessions=2)
    left = ["3 files are left", "20 tasks are left", "1 children are left", "2 sessions are left"]
    assert left_behind(before, after) == left
    samples = [sample(n) for n in range(8)]
    assert verdict(samples, [f"wrong {n}" for n in range(12)], left) == [
        *(f"wrong {n}" for n in range(10)), *left, "and 2 more that went wrong",
    ]  # fmt: skip
