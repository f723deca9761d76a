"""Objects whose payload stays JSON text: what only passes through is neither decoded nor encoded again.

A folded object is a dict like any other, but for the members that hold what clients and tools say to each other: those
are `msgspec.Raw`, exactly as they came. Everything that a gateway reads is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import RequestError
from ..model import JsonObject

PAYLOAD: Final = frozenset({"arguments", "content", "structuredContent", "contents", "messages"})
"""Members of requests and results that may be large, and in which nothing is for us."""
_CONTAINERS: Final = b"{["

_decode = msgspec.json.Decoder().decode


def decode_member(text: msgspec.Raw) -> Any:
    """One member. Raises `RequestError` when it cannot be read after all: numbers out of range, too deep."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"Not a JSON-RPC message: {error}") from error


def folded(members: Mapping[str, msgspec.Raw]) -> JsonObject:
    """An object with its payload folded. Raises `RequestError`."""
    return {
        name: text if name in PAYLOAD and memoryview(text)[0] in _CONTAINERS else decode_member(text)
        for name, text in members.items()
    }


def decoded(members: Mapping[str, msgspec.Raw]) -> JsonObject:
    """An object with all that is in it. Raises `RequestError`."""
    return {name: decode_member(text) for name, text in members.items()}


def unfolded(message: JsonObject) -> JsonObject:
    """A folded object with all that is in it; the same object if nothing is folded. Raises `RequestError`."""
    if not any(isinstance(value, msgspec.Raw) for value in message.values()):
        return message
    return {name: decode_member(value) if isinstance(value, msgspec.Raw) else value for name, value in message.items()}


def is_object(value: Any) -> bool:
    """Whether a member, folded or not, is an object."""
    return memoryview(value)[0] == _CONTAINERS[0] if isinstance(value, msgspec.Raw) else isinstance(value, dict)
