"""`python -m benchmarks [--quick] [--output FILE]`: run the scenarios and print what they found."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.table import Table

from . import per_call, scale, session_start

SCENARIOS = (per_call, session_start, scale)
PACKAGES = ("vmcp-actors", "trio", "hypercorn", "mcp", "httptools", "msgspec")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processors": len(__import__("os").sched_getaffinity(0)),
        "versions": {name: version(name) for name in PACKAGES},
    }


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: to see that it runs, not to quote.")
@click.option("--output", type=click.Path(path_type=Path), help="Write machine, versions and raw samples as JSON.")
def main(quick: bool, output: Path | None) -> None:
    """Run every scenario against real processes on this machine."""
    console = Console()
    report: dict[str, Any] = {"machine": machine(), "quick": quick, "scenarios": {}}
    for scenario in SCENARIOS:
        name = scenario.__name__.rpartition(".")[2]
        console.print(f"[bold]{name}[/bold]\n{(scenario.__doc__ or '').strip()}", highlight=False)
        with console.status("measuring"):
            result = trio.run(scenario.run, quick)
        report["scenarios"][name] = result
        table = Table("figure", "median", "min", "max")
        for figure, samples in result["figures"].items():
            ordered = sorted(samples)
            values = (ordered[len(ordered) // 2], ordered[0], ordered[-1])
            table.add_row(figure, *(f"{value:.3g}" for value in values))
        console.print(table)
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


main()
