"""Fixtures that every test gets: a deadline for hangs, and a check that nothing is left behind."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator

import pytest

HANG_AFTER = 120


@pytest.fixture(autouse=True)
def dump_stacks_on_hang() -> Iterator[None]:
    """A test that hangs says where, instead of being killed from outside."""
    faulthandler.dump_traceback_later(HANG_AFTER, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
