"""What the echo backends answer, over HTTP and over stdio, in both kinds of revisions. Pure; answers are ready-made."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

STATEFUL: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
TOOLS: Final = ("echo", "stuck", "flood")
"""`echo` answers with as many bytes as it is asked for; `stuck` never answers; `flood` notifies for some seconds."""

_INFO: Final = {"name": "echo", "version": "1"}
_SERVER: Final = {"_meta": {"io.modelcontextprotocol/serverInfo": _INFO}}
_CACHING: Final = {"ttlMs": 60_000, "cacheScope": "public"}


class Message(msgspec.Struct):
    """A message of a client, as far as it matters here. The id stays as it was written."""

    method: str = ""
    id: msgspec.Raw = msgspec.Raw()
    params: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Message)


def decode(data: bytes) -> Message:
    """Read a message."""
    return _decoder.decode(data)


def answer(message: Message, *, size: int, stateless: bool) -> bytes:
    """The response to a request: its result, or that there is no such method in this kind of revisions."""
    if message.method == "tools/call":
        arguments = message.params.get("arguments") or {}
        outcome = called(arguments.get("bytes", size), stateless)
    else:
        outcome = _other(message.method, stateless)
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (bytes(message.id), outcome)


@functools.lru_cache
def called(size: int, stateless: bool) -> bytes:
    """The result of a call, as a member of a response."""
    return _result({"content": [{"type": "text", "text": "x" * size}]}, stateless)


@functools.lru_cache
def _other(method: str, stateless: bool) -> bytes:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
    match method, stateless:
        case "initialize", False:
            return _result({"protocolVersion": STATEFUL, "capabilities": {"tools": {}}, "serverInfo": _INFO}, False)
        case "ping", False:
            return _result({}, False)
        case "tools/list", _:
            return _result({"tools": tools, **(_CACHING if stateless else {})}, stateless)
        case "server/discover", True:
            return _result({"supportedVersions": [STATELESS], "capabilities": {"tools": {}}, **_CACHING}, True)
        case "initialize", True:
            data = {"supported": [STATELESS], "requested": STATEFUL}
            return _error({"code": UNSUPPORTED_VERSION, "message": "Unsupported protocol version", "data": data})
    return _error({"code": METHOD_NOT_FOUND, "message": "Method not found"})


def _result(result: dict[str, Any], stateless: bool) -> bytes:
    if stateless:
        result = {"resultType": "complete", **result, **_SERVER}
    return b'"result":' + msgspec.json.encode(result)


def _error(error: dict[str, Any]) -> bytes:
    return b'"error":' + msgspec.json.encode(error)
