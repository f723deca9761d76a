"""Compares two runs: medians, their ratio, and whether the difference is more than what rounds differ by."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from .record import Record
from .scenario import Figure

MIN_SAMPLES = 2
Verdict = Literal["better", "worse", "different", "within the ranges", "no range"]


@frozen
class Change:
    """One figure in two runs."""

    scenario: str
    old: Figure
    new: Figure

    @property
    def ratio(self) -> float | None:
        """New by old; None where there was nothing."""
        return self.new.median / self.old.median if self.old.median else None

    @property
    def verdict(self) -> Verdict:
        """Better or worse only when the ranges do not even touch."""
        if min(len(self.old.samples), len(self.new.samples)) < MIN_SAMPLES:
            return "no range"
        (old_least, old_most), (new_least, new_most) = self.old.range, self.new.range
        if new_least <= old_most and old_least <= new_most:
            return "within the ranges"
        if self.new.better is None:
            return "different"
        lower = new_most < old_least
        return "better" if lower == (self.new.better == "lower") else "worse"


def changes(old: Record, new: Record) -> list[Change]:
    """The figures that both runs have, in the order of the new one."""
    before = old.figures()
    return [Change(key[0], before[key], figure) for key, figure in new.figures().items() if key in before]


def reservations(old: Record, new: Record) -> list[str]:
    """What makes the comparison worth less."""
    found = ["The runs were not interleaved: what has changed on the machine between them shows as a difference."]
    if old.machine.processor != new.machine.processor or old.machine.processors != new.machine.processors:
        found.append("They are of different machines.")
    if old.machine.python != new.machine.python:
        found.append(f"They are of different Pythons: {old.machine.python}, {new.machine.python}.")
    if old.quick or new.quick:
        found.append("At least one of them was quick, which is nothing to quote.")
    return found
