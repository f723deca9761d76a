"""Draws what was held over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from .measure import Sample, slope


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Draw what was held over time."""
    series = {"resident": 1 / 2**20, "files": 1, "tasks": 1, "sessions": 1, "children": 1}
    figure = Figure(figsize=(9, 10))
    axes = figure.subplots(len(series), 1, sharex=True)
    for axis, (name, scale) in zip(axes, series.items(), strict=True):
        axis.plot([sample.seconds for sample in samples], [getattr(sample, name) * scale for sample in samples])
        axis.set_ylabel("resident MiB" if name == "resident" else name)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(f"soak: {samples[-1].operations} operations, {slope(samples):.1f} bytes each")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
