"""Figures as text, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from attrs import evolve, frozen

from .compare import Change
from .scenario import Figure

RATIO = "×"
LIMITED = "limited by the load generator"
_COMPARED = {"lower": "≤", "higher": "≥", None: "≤"}


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(figure: Figure) -> str:
    """The range; nothing for one sample."""
    least, most = figure.range
    return f"{number(least)} … {number(most)}" if len(figure.samples) > 1 else "one sample"


def quantity(value: str, unit: str) -> str:
    """A value with its unit."""
    return f"{value} {unit}".strip()


def verdict(figure: Figure) -> str:
    """Whether a bound holds; nothing where there is none."""
    if figure.bound is None:
        return ""
    word = "holds" if figure.holds else "does not hold"
    if figure.holds != _holds_for(figure, figure.range[0]) or figure.holds != _holds_for(figure, figure.range[1]):
        word += ", but not in every round" if figure.holds else ", but in some rounds"
    return f"{word} ({_COMPARED[figure.better]} {quantity(number(figure.bound), figure.unit)})"


def _holds_for(figure: Figure, sample: float) -> bool | None:
    return evolve(figure, samples=[sample]).holds


def remarks(figure: Figure) -> str:
    """All that is to be said of a figure besides its values."""
    return ", ".join(text for text in (verdict(figure), LIMITED if figure.limited else "") if text)


def grouped(figures: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    """Figures that are shown together."""
    return [(group, list(members)) for group, members in groupby(figures, key=lambda figure: figure.group)]


def row(figure: Figure) -> tuple[str, str, str, str]:
    """Name, median, range, remarks."""
    return figure.name, quantity(number(figure.median), figure.unit), spread(figure), remarks(figure)


def change_row(change: Change) -> tuple[str, str, str, str, str]:
    """Label, old and new median, ratio, verdict."""
    ratio = "" if change.ratio is None else f"{change.ratio:.2f}"
    old, new = (quantity(number(figure.median), figure.unit) for figure in (change.old, change.new))
    return f"{change.scenario}: {change.new.label}", old, new, ratio, change.verdict


@frozen
class Matrix:
    """Figures of the same quantities of several candidates, named "quantity, candidate"."""

    quantities: list[str]
    rows: dict[str, dict[str, Figure]]


def matrix(figures: Sequence[Figure]) -> tuple[Matrix | None, list[Figure]]:
    """Those figures that make up a matrix, if there are any, and the others."""
    rows: dict[str, dict[str, Figure]] = {}
    others = []
    for figure in figures:
        quantity, comma, candidate = figure.name.partition(", ")
        if comma and figure.unit != RATIO:
            rows.setdefault(candidate, {})[f"{quantity} ({figure.unit})"] = figure
        else:
            others.append(figure)
    quantities = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(rows) < 2 or len(quantities) < 2:
        return None, list(figures)
    return Matrix(quantities, rows), others


def cell(figure: Figure | None) -> str:
    """A figure in a matrix, whose column says the unit."""
    if figure is None:
        return ""
    text = f"{number(figure.median)} ({spread(figure)})"
    return f"{text}, {remarks(figure)}" if remarks(figure) else text
