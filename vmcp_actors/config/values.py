"""What each kind of value must look like: functions from what the file has to the value; they raise `Wrong`.

Nothing is coerced, with one exception: text that came out of the environment may be a number or a boolean, since a
variable cannot be anything but text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any, get_args
from urllib.parse import urlsplit

from ..model import Secret
from .durations import format_duration, parse_duration
from .problems import Expanded, Wrong, did_you_mean, kind, show, show_url

RESERVED_PATHS = ("/healthz", "/readyz", "/status")
LONGEST_NAME = 64

_BACKEND_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_HOST_NAME = re.compile(r"[\w~-][\w.~-]*")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


def text(value: object) -> str:
    """Text."""
    if not isinstance(value, str):
        raise Wrong(f"expected text, got {show(value)}{_quotes(value)}")
    if "\0" in value:
        raise Wrong("must not have a NUL character in it")
    return str(value)


def non_empty(value: object) -> str:
    """Text that is not empty or blank."""
    result = text(value)
    if not result.strip():
        raise Wrong("must not be empty")
    return result


def argument(value: object) -> str:
    """Text that is never shown in messages, not even when it is something else: it may be a credential."""
    if not isinstance(value, str):
        raise Wrong(f"expected text, got {kind(value)}{_quotes(value)}")
    return text(value)


def variable_value(value: object) -> Secret[str]:
    """The secret value of an environment variable."""
    return Secret(argument(value))


def header_value(value: object) -> Secret[str]:
    """The secret value of a header, RFC 9110 §5.5."""
    result = argument(value)
    if _UNPRINTABLE.search(result) or not result.isascii():
        raise Wrong("a header value must be printable ASCII")
    return Secret(result.strip())


def header_name(value: object) -> str:
    """The name of a header, RFC 9110 §5.1."""
    result = text(value)
    if not _HEADER_NAME.fullmatch(result):
        raise Wrong("not the name of a header")
    return result


def variable_name(value: object) -> str:
    """The name of an environment variable."""
    result = text(value)
    if not result or "=" in result:
        raise Wrong("not the name of an environment variable")
    return result


def boolean(value: object) -> bool:
    """Whether it is true."""
    if isinstance(value, Expanded) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false, got {show(value)}")
    return value


def count(value: object) -> int:
    """A whole number above zero."""
    number = _integer(value)
    if number is None or number < 1:
        raise Wrong(f"expected a whole number above 0, got {show(value)}{_hint(value)}")
    return number


def port(value: object) -> int:
    """A TCP port; 0 lets the system choose."""
    number = _integer(value)
    if number is None or not 0 <= number <= 65535:
        raise Wrong(f"expected a port from 0 to 65535, got {show(value)}{_hint(value)}")
    return number


def seconds(value: object) -> float:
    """A duration above zero, in seconds."""
    result = seconds_or_zero(value)
    if not result:
        raise Wrong("must be longer than 0s")
    return result


def seconds_or_zero(value: object) -> float:
    """A duration, in seconds."""
    expected = "expected a duration such as 30s, 5m or 1h30m"
    if isinstance(value, int | float) and not isinstance(value, bool):
        hint = f" (did you mean {format_duration(value)}?)" if 0 < value < 1e9 else ""
        raise Wrong(f"{expected}, got {show(value)}{hint}")
    if isinstance(value, str) and value.startswith("-"):
        raise Wrong(f"must not be negative, got {show(value)}")
    try:
        return parse_duration(text(value))
    except ValueError:
        raise Wrong(f"{expected}, got {show(value)}") from None


def backend_name(value: object) -> str:
    """The name of a backend: it becomes part of the names of tools."""
    if not _BACKEND_NAME.fullmatch(non_empty(value)):
        raise Wrong(f"must be 1 to {LONGEST_NAME} of the characters A-Z, a-z, 0-9, _ and -, got {show(value)}")
    return text(value)


def workload(value: object, backends: Collection[str] | None) -> str:
    """The name of a backend that there is. None for `backends` means that they are not known."""
    name = text(value)
    if backends is not None and name not in backends:
        raise Wrong(f"there is no backend {show(value)}{did_you_mean(value, backends)}")
    return name


def choice(value: object, literal: Any) -> str:
    """One of the words of a `Literal`."""
    *others, last = words = get_args(literal)
    if not isinstance(value, str) or value not in words:
        raise Wrong(f"expected {', '.join(others)} or {last}, got {show(value)}{did_you_mean(value, words)}")
    return str(value)


def prefix_format(value: object) -> str:
    """A prefix, in which only `{workload}` is replaced."""
    result = text(value)
    rest = result.replace("{workload}", "")
    if "{" in rest or "}" in rest:
        raise Wrong(f"{{workload}} is the only placeholder here, got {show(value)}")
    return result


def url(value: object) -> str:
    """An absolute http or https URL without user name and password, which belong in a header."""
    if not isinstance(value, str):
        raise Wrong(f"expected a URL, got {show(value)}")
    if _BLANK.search(value):
        raise Wrong("expected a URL, which has no white space in it")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and _is_host(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Wrong(f"expected a URL such as https://example.com/mcp, got {show_url(value)}")
    if "@" in parts.netloc:
        raise Wrong("a URL must not have a user name or password in it; use headers")
    return str(value)


def endpoint_path(value: object) -> str:
    """The path of our own endpoint."""
    path = text(value)
    if not path.startswith("/") or _BLANK.search(path) or "?" in path or "#" in path:
        raise Wrong(f"expected a path such as /mcp, got {show(value)}")
    if path in RESERVED_PATHS:
        raise Wrong(f"{', '.join(RESERVED_PATHS)} are the pages for operators, got {show(value)}")
    return path


def origin(value: object) -> str:
    """A web origin, or `*` for all."""
    result = text(value)
    try:
        parts = urlsplit(result)
        usable = parts.scheme in ("http", "https") and _is_host(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if result != "*" and (not usable or parts.path not in ("", "/") or re.search(r"[?#@]", result)):
        raise Wrong(f"expected an origin such as https://example.com, or *, got {show_url(value)}")
    return result


def host(value: object) -> str:
    """A value of the Host header, with or without a port, or `*` for all."""
    result = text(value)
    try:
        parts = urlsplit(f"//{result}")
        usable = _is_host(parts.hostname) and parts.port != 0 and not re.search(r"[/?#@]", result)
    except ValueError:
        usable = False
    if result != "*" and not usable:
        raise Wrong(f"expected a host such as example.com or example.com:8080, or *, got {show_url(value)}")
    return result


def anything(value: object) -> object:
    """Any value, with plain text in it."""
    if isinstance(value, dict):
        return {key: anything(item) for key, item in value.items()}
    if isinstance(value, list):
        return [anything(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _integer(value: object) -> int | None:
    if isinstance(value, Expanded) and _INTEGER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_host(name: str | None) -> bool:
    if not name or ":" not in name:
        return bool(name and _HOST_NAME.fullmatch(name))
    ipaddress.IPv6Address(name)
    return True


def _quotes(value: object) -> str:
    return " (write it in quotes)" if isinstance(value, bool | int | float) else ""


def _hint(value: object) -> str:
    return " (write it without quotes)" if isinstance(value, str) and _INTEGER.fullmatch(value) else ""
