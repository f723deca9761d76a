"""The report of a run, as Markdown with plots beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .record import Chapter, Record
from .scenario import Figure
from .tables import cell, grouped, matrix, row, verdict

CAVEATS = (
    "The machine may have been shared with other work. Each scenario is one run in which the candidates alternate "
    "round by round; ratios are computed within a round, so they say more than the values do.",
    "Everything is on loopback: a network adds its own latency to each, and hides what a gateway adds.",
    "The load generator is a Python program with one thread. Its own limit is measured; a figure that comes within "
    "70 % of it says more about the generator, and is marked.",
    "Clients, gateway and backend share the processors, so throughput is that of all three together; processor time is "
    "that of the measured process alone, with its children.",
    "Values are medians of rounds, with the least and the greatest; there is nothing between the rounds but the order.",
)


def write_report(record: Record, path: Path) -> None:
    """Write the Markdown, and the plots into a folder of its name beside it."""
    from .plots import draw  # noqa: PLC0415  # slow to import, and only needed here

    folder = path.with_suffix("")
    plots = [plot for chapter in record.chapters for plot in chapter.result.plots]
    if plots:
        folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        draw(plot, folder / f"{plot.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(record, folder.name))


def markdown(record: Record, folder: str) -> str:
    """The report. Plots are taken to be in a folder beside it."""
    parts = ["# Benchmarks", *_preface(record), "## Verdicts", *_verdicts(record)]
    for chapter in record.chapters:
        parts += _chapter(chapter, folder)
    return "\n\n".join(parts) + "\n"


def _preface(record: Record) -> Iterable[str]:
    machine = record.machine
    yield "Made by `python -m benchmarks`; each section says what is claimed, and what would falsify it."
    if record.quick:
        yield "**This was a quick run: it shows that the benchmarks work, and is nothing to quote.**"
    yield _table(
        ("", ""),
        [
            ("date", record.began),
            ("processor", f"{machine.processor}, {machine.processors} usable"),
            ("memory", f"{machine.memory_gib:g} GiB"),
            ("system", machine.system),
            ("Python", machine.python),
            *machine.versions.items(),
        ],
    )
    yield "\n".join(f"- {caveat}" for caveat in CAVEATS)
    if record.missing:
        yield "Not measured:"
        yield "\n".join(f"- {name}: {why}" for name, why in sorted(record.missing.items()))


def _verdicts(record: Record) -> Iterable[str]:
    bounded = [
        (chapter.name, figure)
        for chapter in record.chapters
        for figure in chapter.result.figures
        if figure.bound is not None
    ]
    rows = [(name, figure.label, *row(figure)[1:3], verdict(figure)) for name, figure in bounded]
    yield _table(("scenario", "figure", "median", "range", "bound"), rows)


def _chapter(chapter: Chapter, folder: str) -> Iterable[str]:
    yield f"## {chapter.name}"
    yield chapter.claim
    if chapter.failure is not None:
        yield f"**Failed:** {chapter.failure}"
    for group, figures in grouped(chapter.result.figures):
        if group:
            yield f"### {group}"
        yield from figure_tables(figures)
    for plot in chapter.result.plots:
        yield f"![{plot.title}]({folder}/{plot.name}.png)"
    if chapter.result.notes:
        yield "\n".join(f"- {note}" for note in chapter.result.notes)
    yield f"It took {chapter.seconds:.0f} s."


def figure_tables(figures: Sequence[Figure]) -> Iterable[str]:
    """Candidates side by side where they have the same quantities, and the other figures one by one."""
    found, others = matrix(figures)
    if found is not None:
        rows = [(name, *(cell(row.get(quantity)) for quantity in found.quantities)) for name, row in found.rows.items()]
        yield _table(("median (range)", *found.quantities), rows)
    if others:
        yield _table(("figure", "median", "range", ""), [row(figure) for figure in others])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
