"""Durations as Go and ToolHive write them: `30s`, `5m`, `1h30m`, `1.5s`, `500ms`."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_SECONDS = 2**63 / 1e9
"""The longest duration that Go can hold, about 292 years; longer ones are mistakes."""

_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """The seconds in a duration: one or more of a decimal number and a unit (h, m, s, ms, us, ns), summed.

    Raises:
        ValueError: it is not a duration, has a sign, or is longer than `MAX_SECONDS`. The text of the error does not
            repeat the value.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError("not a duration")
    seconds = float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
    if seconds > MAX_SECONDS:
        raise ValueError("too long a duration")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest usual way to write a duration that is not negative: `90.0` is `1m30s`.

    `parse_duration` gives the same number back, but for rounding beyond the nanosecond.
    """
    if seconds < 1:
        return _below_a_second(round(seconds * 1_000_000_000))
    whole, nanoseconds = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    parts = [(f"{hours}", "h"), (f"{minutes}", "m"), (f"{rest}{fraction}", "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number != "0")


def _below_a_second(nanoseconds: int) -> str:
    for unit, size in (("ms", 1_000_000), ("us", 1_000)):
        if nanoseconds >= size and nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"
