"""One run of the benchmarks, as it is written to a file and read again."""

from __future__ import annotations

from pathlib import Path

import msgspec
from attrs import field, frozen

from .machine import Machine
from .scenario import Figure, Result


@frozen
class Chapter:
    """One scenario of a run: what it claimed then, and what it found.

    Attributes:
        seconds: how long it took.
        failure: why it found nothing.
    """

    name: str
    claim: str
    seconds: float
    result: Result
    failure: str | None = None


@frozen
class Record:
    """A run.

    Attributes:
        began: when, as a date and time with its zone.
        missing: by the name of a peer that was not measured, why.
    """

    began: str
    quick: bool
    machine: Machine
    chapters: list[Chapter]
    missing: dict[str, str] = field(factory=dict)

    def write(self, path: Path) -> None:
        """Write it, for `read`, and for people."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what was written. Raises msgspec.ValidationError for anything else."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def figures(self) -> dict[tuple[str, str], Figure]:
        """Every figure, by scenario and label."""
        return {(chapter.name, figure.label): figure for chapter in self.chapters for figure in chapter.result.figures}
