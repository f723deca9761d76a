"""Percentiles, and ratios round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "percentile", "ratios"]


def percentile(samples: Sequence[float], part: float) -> float:
    """The smallest sample that at least this part (0 to 1) of them do not exceed: one that was measured, not a mean."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def ratios(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each sample by that of the same round: what changed between rounds has changed both."""
    return [sample / other for sample, other in zip(samples, base, strict=True)]
