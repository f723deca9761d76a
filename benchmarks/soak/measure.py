"""Samples of what a gateway holds, and what they say about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit
from urllib.request import urlopen

import trio
from attrs import frozen

from ..proc import children_of
from ..processes import Running

MAX_GROWTH = 0.05
"""Of the resident memory, from the second quarter of a run to its last."""


@frozen
class Sample:
    """What the gateway holds at one moment."""

    seconds: float
    operations: int
    resident: int
    files: int
    children: int
    tasks: int
    sessions: int


def take(gateway: Running, *, seconds: float, operations: int) -> Sample:
    """Look at the gateway. Raises OSError when it does not answer."""
    address = urlsplit(gateway.url)
    with urlopen(f"http://{address.netloc}/status", timeout=30) as response:
        status = json.load(response)
    return Sample(
        seconds=seconds,
        operations=operations,
        resident=gateway.resident_bytes(),
        files=len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())),
        children=len(children_of(gateway.pid)),
        tasks=status["tasks"],
        sessions=status["supervisor"]["sessions"],
    )


async def settled(gateway: Running, before: Sample, within: float) -> Sample:
    """The sample when all that was taken has been given back, or the last one before patience ends."""
    sample = before
    with trio.move_on_after(within):
        while True:
            sample = await trio.to_thread.run_sync(lambda: take(gateway, seconds=0.0, operations=0))
            if not left_behind(before, sample):
                break
            await trio.sleep(0.5)
    return sample


def left_behind(before: Sample, after: Sample) -> list[str]:
    """What there is more of than before anything began."""
    # One connection more or less: that over which it was looked.
    slack = {"files": 1, "tasks": 3, "children": 0, "sessions": 0}
    found = []
    for name, tolerated in slack.items():
        more = getattr(after, name) - getattr(before, name)
        if more > tolerated:
            found.append(f"{more} {name} are left")
    return found


def growth(samples: Sequence[Sample]) -> float:
    """How much more memory is used in the last quarter of the run than in the second, as a part of it.

    The first quarter is left out: what is loaded once, and how the heap settles, is no leak.
    """
    quarter = len(samples) // 4
    early = median(sample.resident for sample in samples[quarter : 2 * quarter])
    late = median(sample.resident for sample in samples[3 * quarter :])
    return late / early - 1


def slope(samples: Sequence[Sample]) -> float:
    """Bytes of resident memory for each operation, from the second quarter to the end: the median of the slopes
    between pairs of samples half of that apart (Theil and Sen), which single bursts do not bend.
    """
    later = samples[len(samples) // 4 :]
    half = len(later) // 2
    pairs = zip(later[:half], later[half:], strict=False)
    slopes = [
        (late.resident - early.resident) / (late.operations - early.operations)
        for early, late in pairs
        if late.operations > early.operations
    ]
    return median(slopes) if slopes else 0.0


def verdict(samples: Sequence[Sample], wrong: Sequence[str], left: Sequence[str]) -> list[str]:
    """What speaks against the gateway; empty when it has passed."""
    found = [*wrong[:10], *left]
    if len(wrong) > 10:
        found.append(f"and {len(wrong) - 10} more that went wrong")
    grown = growth(samples)
    if grown > MAX_GROWTH:
        found.append(f"memory grew by {grown:.1%} from the second quarter to the last (allowed: {MAX_GROWTH:.0%})")
    return found
