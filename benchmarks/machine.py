"""What the figures were measured on, and with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from attrs import frozen

PACKAGES: Final = ("vmcp-actors", "trio", "hypercorn", "mcp", "httptools", "msgspec")


@frozen
class Machine:
    """A machine, and the versions of what ran on it."""

    processor: str
    processors: int
    memory_gib: float
    system: str
    python: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Machine:
        """The machine that this runs on."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(
            processor=_processor(),
            processors=len(os.sched_getaffinity(0)),
            memory_gib=round(pages / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            versions={name: found for name in PACKAGES if (found := _version(name)) is not None},
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
