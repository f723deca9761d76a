"""What a broken or hostile peer may send: valid messages with something wrong in them, and plain nonsense."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VERSION = "io.modelcontextprotocol/protocolVersion"
ENVELOPE = {
    VERSION: "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "roots": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
    "progressToken": "t",
}
CALL = {"name": "a_echo", "arguments": {"text": "x"}}

VALID: list[dict[str, Any]] = [
    {"id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}}},
    {"id": 1, "method": "ping"},
    {"id": "two", "method": "tools/list", "params": {}},
    {"id": 3, "method": "tools/call", "params": CALL},
    {"id": 4, "method": "resources/read", "params": {"uri": "x://1"}},
    {"id": 5, "method": "resources/subscribe", "params": {"uri": "x://1"}},
    {"id": 6, "method": "prompts/get", "params": {"name": "a_p", "arguments": {}}},
    {
        "id": 7,
        "method": "completion/complete",
        "params": {"ref": {"type": "ref/prompt", "name": "a_p"}, "argument": {}},
    },
    {"id": 8, "method": "logging/setLevel", "params": {"level": "info"}},
    {"method": "notifications/initialized"},
    {"method": "notifications/cancelled", "params": {"requestId": 3, "reason": "why not"}},
    {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}},
    {"method": "notifications/roots/list_changed"},
    {"id": 1, "result": {"roots": []}},
    {"id": 1, "error": {"code": -1, "message": "no"}},
    {"id": 9, "method": "server/discover", "params": {"_meta": ENVELOPE}},
    {"id": 10, "method": "tools/list", "params": {"_meta": ENVELOPE}},
    {"id": 11, "method": "tools/call", "params": {**CALL, "_meta": ENVELOPE}},
    {
        "id": 12,
        "method": "tools/call",
        "params": {**CALL, "_meta": ENVELOPE, "inputResponses": {"x": {}}, "requestState": "vmcp-parked.x"},
    },
    {"id": 13, "method": "resources/read", "params": {"uri": "x://1", "_meta": ENVELOPE}},
]

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**53, -(2**63), 2**64, 10**400, 0.5, 1e308, "", "x", "\x00", "ü", "\ud7ff",
    "a" * 5000,
    [], {}, [[]], {"": {}}, ["a", 1, None], {"type": "ref/prompt"}, -32022, "2026-07-28", "tools/call", "../../etc",
]  # fmt: skip
RAW: list[bytes] = [
    b"", b" ", b"null", b"[]", b"[{}]", b"{}", b"3", b'"x"', b"{", b"}", b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN", b"-",
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}garbage', b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', b'{"jsonrpc":"2.0","method":"\\ud800"}',
    b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', b"[" * 20000, b'{"a":' * 20000, b'{"jsonrpc":"2.0"}' * 1000,
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
]  # fmt: skip


def message(rng: random.Random) -> Any:
    """A message, mostly with one or two things wrong."""
    found: Any = {"jsonrpc": "2.0", **copy.deepcopy(rng.choice(VALID))}
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        _spoil(found, rng)
    return found


def body(rng: random.Random) -> bytes:
    """The bytes of a message, some of which are missing, twice there, or others."""
    if rng.random() < 0.04:
        return rng.choice(RAW)
    data = json.dumps(message(rng)).encode()
    match rng.randrange(25):
        case 0:
            return data[: rng.randrange(len(data) + 1)]
        case 1:
            place = rng.randrange(len(data))
            return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        case 2:
            place = rng.randrange(len(data))
            return data[:place] + data[place : place + 9] + data[place:]
    return data


def _spoil(value: Any, rng: random.Random) -> None:
    """Replace, remove or add something, somewhere."""
    while isinstance(value, dict) and value:
        key = rng.choice(list(value))
        inner = value[key]
        if isinstance(inner, dict) and inner and rng.random() < 0.7:
            value = inner
            continue
        match rng.randrange(4):
            case 0:
                del value[key]
            case 1:
                value[rng.choice(("id", "method", "params", "result", "error", "_meta", "cursor", "x"))] = rng.choice(
                    ODD
                )
            case _:
                value[key] = rng.choice(ODD)
        return


HEADERS: dict[str, list[str | None]] = {
    "accept": [
        None,
        "",
        "*/*",
        "text/event-stream, application/json",
        "application/json",
        "text/html",
        ";;,,",
        "a" * 99,
    ],
    "content-type": [None, "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", "application/json-rpc"],
    "mcp-protocol-version": [None, "2025-11-25", "2025-03-26", "2026-07-28", "2099-01-01", "x", ""],
    "mcp-session-id": [None, "x", "", "\u00ff", "a" * 5000, "'; drop table"],
    "mcp-method": [None, "tools/call", "tools/list", "TOOLS/CALL", "", "=?base64?eA==?="],
    "mcp-name": [None, "a_echo", "=?base64?YV9lY2hv?=", "=?base64?%%%?=", "x://1", ""],
    "mcp-param-text": [None, "x", "=?base64?eA==?=", "y"],
    "last-event-id": [None, "g1-0", "p1-99999999999999999999", "-", "g1-x", "p" * 999],
    "origin": [None, "http://localhost:1", "null", "http://evil.example", "://", "http://[::1"],
    "host": ["127.0.0.1:4483", "localhost", "evil.example", "", "[::1", "127.0.0.1:4483, x"],
    "content-length": [None, "0", "5", "99999999999999999999", "-1", "x"],
}


def headers(rng: random.Random, session: str | None) -> dict[str, str | None]:
    """Those of a good client, with a few others."""
    chosen: dict[str, str | None] = {"mcp-session-id": session} if session and rng.random() < 0.9 else {}
    for name in rng.sample(sorted(HEADERS), rng.choice((0, 0, 0, 0, 0, 1, 1, 2))):
        chosen[name] = rng.choice(HEADERS[name])
    return chosen


def with_envelope_headers(data: bytes, rng: random.Random) -> dict[str, str | None]:
    """The headers that a stateless message should have, most of the time."""
    try:
        found = json.loads(data)
        is_stateless = VERSION in found["params"]["_meta"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    if not is_stateless or rng.random() < 0.2:
        return {}
    name = found["params"].get("name") or found["params"].get("uri")
    method = found.get("method")
    return {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method if isinstance(method, str) and method.isascii() and method.isprintable() else None,
        "mcp-name": name if isinstance(name, str) and name.isascii() and name.isprintable() else None,
    }
