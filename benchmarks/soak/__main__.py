"""`python -m benchmarks.soak [--minutes 30 | --operations N]`: mixed traffic with faults, and a verdict.

Claim: whatever clients and backends do, every call is answered, nobody gets another's answer, and when it is over the
gateway holds nothing. Falsified by a call without an answer, HTTP 500, the answer of another call, memory that goes on
growing, or a session, task, child process or descriptor that is left.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import attrs
import click
import trio
from rich.console import Console

from .measure import growth, slope
from .run import Plan, soak


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--operations", type=int, help="End after so many operations instead.")
@click.option("--workers", type=int, default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--faults/--no-faults", default=True)
@click.option("--output", type=click.Path(path_type=Path), help="A folder for soak.json and soak.png.")
def main(minutes: float, operations: int | None, output: Path | None, **options: Any) -> None:
    """Soak a gateway."""
    seconds = math.inf if operations is not None else minutes * 60
    report = trio.run(soak, Plan(seconds, operations or math.inf, **options))
    samples = report["samples"]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "soak.json").write_text(
            json.dumps({**report, "samples": [attrs.asdict(sample) for sample in samples]}, indent=1) + "\n"
        )
        from .plots import plot  # noqa: PLC0415  # slow to import, and only needed here

        plot(samples, output / "soak.png")
    for name, count in sorted(report["outcomes"].items()):
        console.print(f"{count:9} {name}")
    console.print(f"faults: {report['faults']}")
    console.print(
        f"{samples[-1].operations} operations in {samples[-1].seconds:.0f} s; resident memory grew by "
        f"{growth(samples):.1%} from the second quarter to the last, {slope(samples):.1f} bytes for each operation"
    )
    for problem in report["verdict"]:
        console.print(f"FAILED: {problem}")
    console.print("failed" if report["verdict"] else "passed")
    sys.exit(bool(report["verdict"]))


if __name__ == "__main__":
    main()
