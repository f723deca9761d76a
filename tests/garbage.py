"""Finds what only a garbage collection would free."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType, FrameType

from vmcp_actors.errors import VmcpError


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Counts what a collection finds of ours that the body has made, when the body is over."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(_describe(one) for one in gc.garbage if is_ours(one))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def is_ours(found: object) -> bool:
    """Whether an object belongs to the package: an instance of a class of it, or a frame of its code."""
    if isinstance(found, CoroutineType):
        found = found.cr_frame
    if isinstance(found, FrameType):
        return "/vmcp_actors/" in found.f_code.co_filename
    return type(found).__module__.startswith("vmcp_actors.") and not isinstance(found, VmcpError)


def _describe(found: object) -> str:
    return f"frame of {found.f_code.co_qualname}" if isinstance(found, FrameType) else type(found).__qualname__
