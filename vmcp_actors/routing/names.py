"""Advertised names: within what model APIs accept, and never two alike (mission A1, A2)."""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 64
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")


def safe_name(name: str) -> str:
    """The name itself if it is within `[A-Za-z0-9_-]{1,64}`, else a readable form of it with a hash of the whole.

    Deterministic. Longer names and other characters make some model APIs refuse the whole list of tools.
    """
    return name if _SAFE.fullmatch(name) else with_suffix(name, _digest(name))


def distinct_name(name: str, backend: str, original: str) -> str:
    """Another name for a tool whose advertised name is taken; it depends on whose tool it is, not on who came first."""
    return with_suffix(name, _digest(f"{len(backend)}:{backend}:{original}"))


def with_suffix(name: str, suffix: str) -> str:
    """A safe name that ends with the suffix, shortened before it."""
    readable = _UNSAFE_CHARACTER.sub("_", name)[: MAX_LENGTH - len(suffix) - 1]
    return f"{readable}_{suffix}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
