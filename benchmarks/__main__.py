"""`python -m benchmarks [--quick] [--only NAME,…] [--output FILE] [--report FILE] [--compare OLD.json]`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from .compare import changes, reservations
from .display import show_changes
from .record import Record
from .report import write_report
from .running import run_all
from .scenario import Scenario
from .scenarios import SCENARIOS

FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)


def chosen(_: click.Context, __: click.Parameter, names: str | None) -> tuple[Scenario, ...]:
    """The scenarios of these names, in the order in which they are run."""
    if names is None:
        return SCENARIOS
    wanted = {name.strip() for name in names.split(",")}
    unknown = wanted - {scenario.name for scenario in SCENARIOS}
    if unknown:
        raise click.BadParameter(f"there is no scenario {', '.join(sorted(unknown))}; see --list")
    return tuple(scenario for scenario in SCENARIOS if scenario.name in wanted)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Few rounds: to see that it runs, not to quote.")
@click.option("--only", "scenarios", metavar="NAME[,NAME]", callback=chosen, help="Only these scenarios.")
@click.option("--list", "list_only", is_flag=True, help="Say which scenarios there are, and what they claim.")
@click.option("--output", type=FILE, help="Write machine, versions and raw samples as JSON.")
@click.option("--report", type=FILE, help="Write a report as Markdown, with plots in a folder beside it.")
@click.option("--from", "source", type=EXISTING, help="Measure nothing: take the results from this JSON.")
@click.option("--compare", "old", type=EXISTING, help="Show what has changed since this JSON.")
@click.option("--install-peers", is_flag=True, help="Install the other gateways that are measured beside, and end.")
def main(
    *,
    quick: bool,
    scenarios: tuple[Scenario, ...],
    list_only: bool,
    output: Path | None,
    report: Path | None,
    source: Path | None,
    old: Path | None,
    install_peers: bool,
) -> None:
    """Measure the gateway, as real processes on this machine, and say which claims hold."""
    console = Console()
    if list_only:
        for scenario in scenarios:
            console.print(f"[bold]{scenario.name}[/bold]\n{scenario.claim}\n", highlight=False)
        return
    if install_peers:
        from .peers import install_all  # noqa: PLC0415  # they bring packages of their own

        install_all()
        return
    record = Record.read(source) if source is not None else run_all(scenarios, console, quick=quick)
    if output is not None:
        record.write(output)
    if report is not None:
        write_report(record, report)
    if old is not None:
        before = Record.read(old)
        show_changes(console, changes(before, record), reservations(before, record))
    sys.exit(any(chapter.failure is not None for chapter in record.chapters))


if __name__ == "__main__":
    main()
