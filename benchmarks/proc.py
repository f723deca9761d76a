"""What processes have cost so far, and what they hold, as /proc says. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
_RESET_PEAK = "5"


def children_of(pid: int) -> list[int]:
    """The child processes of a process, whichever of its threads has started them. Raises OSError if there is none."""
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile; its children pass to another
            children += map(int, (thread / "children").read_text().split())
    return children


def family_of(pid: int) -> Iterator[int]:
    """A process, its children, and theirs. Those that end meanwhile are left out."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in children_of(pid):
            yield from family_of(child)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children so far, to the nanosecond: ticks are too coarse for a short round.

    Only what still lives counts: a thread or child that has ended takes its time with it.
    """
    nanoseconds = 0
    for member in family_of(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{thread}/schedstat", "rb") as file:
                    nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now, without its children."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def reset_peak(pid: int) -> None:
    """Have `peak_bytes` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process had since `reset_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
