"""Shows in the terminal how far the benchmarks are, and what they have found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .compare import Change
from .record import Chapter
from .scenario import Scenario
from .tables import change_row, grouped, row

_STYLES = {"better": "green", "worse": "red", "different": "yellow"}


class ScenarioProgress:
    """One line: the scenario, its step, which of how many, and the time. Implements `scenario.Display`."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self._name = name
        self._expected = 0
        self._begun = 0

    def expect(self, steps: int) -> None:
        """There will be so many more steps."""
        self._expected += steps
        self._progress.update(self._task, total=self._expected)

    def step(self, text: str) -> None:
        """The next step begins."""
        self._begun += 1
        self._progress.update(self._task, completed=self._begun, description=f"{self._name}  {text}")


@contextmanager
def progress_of(console: Console, scenario: Scenario) -> Iterator[ScenarioProgress]:
    """A display for one scenario; it vanishes at its end."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("step"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(scenario.name, total=None)
        yield ScenarioProgress(progress, task, scenario.name)


def show_chapter(console: Console, chapter: Chapter) -> None:
    """Print what a scenario has found."""
    console.print(f"[bold]{chapter.name}[/bold] ({chapter.seconds:.0f} s)\n{chapter.claim}", highlight=False)
    if chapter.failure is not None:
        console.print(f"failed: {chapter.failure}", style="red", markup=False)
    table = Table("figure", "median", "range", "")
    for group, figures in grouped(chapter.result.figures):
        if group:
            table.add_section()
            table.add_row(group, style="bold")
        for figure in figures:
            table.add_row(*row(figure), style="red" if figure.holds is False else "")
    if table.rows:
        console.print(table)
    for note in chapter.result.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def show_changes(console: Console, changes: Sequence[Change], reservations: Sequence[str]) -> None:
    """Print how two runs differ."""
    table = Table("figure", "old", "new", "ratio", "")
    for change in changes:
        table.add_row(*change_row(change), style=_STYLES.get(change.verdict, ""))
    console.print(table)
    for reservation in reservations:
        console.print(f"- {reservation}", highlight=False)
