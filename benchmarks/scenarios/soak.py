"""Two minutes of mixed traffic with faults: `python -m benchmarks.soak`, which can also go on for longer.

Claim: whatever clients and backends do, every call is answered, nobody gets another's answer, and when it is over the
gateway holds nothing: no session, task, child process or descriptor, and no memory that goes on growing. Falsified by
any of these. Thirty seconds, as with `--quick`, say nothing about memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ..scenario import Bench, Figures, Plot, Result
from ..soak.measure import MAX_GROWTH, Sample, growth, slope
from ..soak.run import Plan, soak

SECONDS: Final = 120.0
QUICK_SECONDS: Final = 30.0
WORKERS: Final = 20


async def run(bench: Bench) -> Result:
    """Measure."""
    seconds = bench.choose(SECONDS, QUICK_SECONDS)
    bench.expect(1)
    bench.step(f"{seconds:.0f} s, then until all is given back")
    report = await soak(Plan(seconds, math.inf, WORKERS, seed=0, faults=True))
    samples: Sequence[Sample] = report["samples"]
    figures = Figures()
    figures.add("went wrong, or was left behind", len(report["wrong"]), "", "lower", bound=0.0)
    grown = growth(samples)
    bound = bench.choose(MAX_GROWTH, None)  # what is loaded once is no leak, and takes longer than a quick run
    figures.add("growth of memory, second quarter to last", grown, "of it", "lower", bound=bound)
    figures.add("memory for an operation", slope(samples), "B", "lower")
    figures.add("operations", samples[-1].operations, "")
    figures.add("faults", sum(report["faults"].values()), "")
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(report["outcomes"].items()))
    notes = [*(f"Problem: {problem}" for problem in report["verdict"]), f"What came of the operations: {outcomes}."]
    return Result(figures.all(), notes, [_plot(samples)])


def _plot(samples: Sequence[Sample]) -> Plot:
    points: list[tuple[float | str, float]] = [(sample.seconds, sample.resident / 2**20) for sample in samples]
    return Plot("soak", "lines", "Resident memory of the gateway", "seconds", "MiB", {"": points})
