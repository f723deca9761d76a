"""Draws plots from their descriptions, all in one style."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .scenario import Plot
from .tables import number

COLOURS: Final = ("#1f5f8b", "#d1495b", "#66a182", "#edae49", "#7a5195", "#4d4d4d", "#00798c", "#a05d2d")
INCHES: Final = (7.0, 3.8)
DPI: Final = 110
BARS_WIDTH: Final = 0.8
MANY: Final = 4
"""Bars, beyond which their names would run into each other."""
MANY_POINTS: Final = 20
DECADES: Final = 10.0


def draw(plot: Plot, path: Path) -> None:
    """Draw a plot as PNG."""
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    (_bars if plot.kind == "bars" else _lines)(axes, plot)
    _scale(axes, plot)
    axes.set_title(plot.title, fontsize=11, loc="left")
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if any(plot.series):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)


def _bars(axes: Axes, plot: Plot) -> None:
    names = list(dict.fromkeys(str(x) for points in plot.series.values() for x, _ in points))
    width = BARS_WIDTH / max(1, len(plot.series))
    for place, (label, points) in enumerate(plot.series.items()):
        shift = (place - (len(plot.series) - 1) / 2) * width
        positions = [names.index(str(x)) + shift for x, _ in points]
        heights = [y for _, y in points]
        drawn = axes.bar(positions, heights, width * 0.95, color=COLOURS[place % len(COLOURS)], label=label)
        axes.bar_label(drawn, labels=[number(y) for y in heights], fontsize=8)
    slanted = len(names) > MANY
    axes.set_xticks(range(len(names)), names, rotation=20 if slanted else 0, ha="right" if slanted else "center")


def _lines(axes: Axes, plot: Plot) -> None:
    for place, (label, points) in enumerate(plot.series.items()):
        xs, ys = [float(x) for x, _ in points], [y for _, y in points]
        marker = "o" if len(points) < MANY_POINTS else None
        axes.plot(xs, ys, marker=marker, color=COLOURS[place % len(COLOURS)], label=label)
    if "x" in plot.logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(sorted({float(x) for points in plot.series.values() for x, _ in points}))
        _plain(axes, "x")


def _scale(axes: Axes, plot: Plot) -> None:
    """A logarithmic axis where it was asked for and the values span decades; otherwise it begins at zero."""
    ys = [y for points in plot.series.values() for _, y in points]
    if "y" in plot.logarithmic and min(ys) > 0 and max(ys) / min(ys) >= DECADES:
        axes.set_yscale("log")
        axes.set_ylim(10 ** math.floor(math.log10(min(ys)) - 0.3), max(ys) * 2)
        _plain(axes, "y")
    else:
        axes.set_ylim(0, max([*ys, 0.0]) * 1.15 or 1.0)


def _plain(axes: Axes, which: str) -> None:
    """Numbers as people write them, on a logarithmic axis too."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
