"""What the stateless revision adds to messages: an envelope in `_meta`, headers that mirror it, fields of results.

Pure. MCP 2026-07-28: basic §_meta, basic/transports §Standard Headers and §Custom Headers, server/utilities/caching.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)

from ..model import JsonObject
from .folding import unfolded
from .revisions import LATEST_STATELESS

SUBSCRIPTION_ID: Final = SUBSCRIPTION_ID_META_KEY
PROTOCOL_VERSION: Final = PROTOCOL_VERSION_META_KEY
SERVER_INFO: Final = SERVER_INFO_META_KEY

CACHEABLE: Final = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
"""Methods whose complete results say how long they may be kept."""
INTERACTIVE: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose result may be that the client is to be asked something first."""

_ENVELOPE: Final = (PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, LOG_LEVEL_META_KEY)
_RESULT_FIELDS: Final = ("resultType", "ttlMs", "cacheScope")


@frozen
class Envelope:
    """What a request of the stateless revision says of its sender."""

    protocol_version: str
    capabilities: JsonObject
    info: JsonObject
    log_level: str | None


def stamped(params: JsonObject, envelope: Envelope) -> JsonObject:
    """The params with an envelope in their `_meta`, instead of whatever one there was."""
    meta: JsonObject = {
        **_without(_meta(params), _ENVELOPE),
        PROTOCOL_VERSION_META_KEY: envelope.protocol_version,
        CLIENT_CAPABILITIES_META_KEY: envelope.capabilities,
        CLIENT_INFO_META_KEY: envelope.info,
    }
    if envelope.log_level is not None:
        meta[LOG_LEVEL_META_KEY] = envelope.log_level
    return {**params, "_meta": meta}


def opened(params: JsonObject) -> tuple[JsonObject, Envelope]:
    """The params without their envelope, and the envelope. What is missing or misshapen in it reads as empty."""
    meta = _meta(params)
    version, level = meta.get(PROTOCOL_VERSION_META_KEY), meta.get(LOG_LEVEL_META_KEY)
    envelope = Envelope(
        version if isinstance(version, str) else "",
        _object(meta.get(CLIENT_CAPABILITIES_META_KEY)),
        _object(meta.get(CLIENT_INFO_META_KEY)),
        level if isinstance(level, str) else None,
    )
    return _with_meta(params, _without(meta, _ENVELOPE)), envelope


def mirrored_headers(method: str, params: Mapping[str, Any], tool: JsonObject | None = None) -> dict[str, str]:
    """The headers that repeat what is in the body of a request, for those who route without reading bodies.

    Args:
        tool: the definition of the tool that is called; its `x-mcp-header` annotations name arguments to repeat.
    """
    headers = {MCP_PROTOCOL_VERSION_HEADER: LATEST_STATELESS, MCP_METHOD_HEADER: method}
    name = params.get(NAME_BEARING_METHODS.get(method, ""))
    if isinstance(name, str):
        headers[MCP_NAME_HEADER] = encode_header_value(name)
    arguments = unfolded(params).get("arguments") if tool is not None and isinstance(params, dict) else None
    if tool is not None and isinstance(arguments, Mapping):
        headers |= mcp_param_headers(x_mcp_header_map(tool.get("inputSchema")), arguments)
    return headers


def unusable_headers(tool: JsonObject) -> str | None:
    """Why the `x-mcp-header` annotations of a tool are invalid; an HTTP client must not use such a tool."""
    return find_invalid_x_mcp_header(tool.get("inputSchema"))


def for_stateful(result: JsonObject) -> JsonObject:
    """A result without what only the stateless revision knows."""
    plain = _without(result, _RESULT_FIELDS)
    return _with_meta(plain, _without(_meta(plain), (SERVER_INFO_META_KEY,)))


def for_stateless(result: JsonObject, server_info: JsonObject) -> JsonObject:
    """A result with the members that the stateless revision requires: its kind, unless it says so, and who sends it."""
    return {"resultType": "complete", **result, "_meta": {**_meta(result), SERVER_INFO_META_KEY: server_info}}


def needs_input(result: JsonObject) -> bool:
    """Whether a result says that the client is to be asked something, and the request sent again."""
    return result.get("resultType") == "input_required"


def subscription_of(params: Mapping[str, Any]) -> Any:
    """The id of the `subscriptions/listen` request that a notification is for; None when it has none."""
    return _meta(params).get(SUBSCRIPTION_ID_META_KEY)


def tagged(params: JsonObject | None, subscription: str | int) -> JsonObject:
    """A notification's params with the id of the `subscriptions/listen` request that it is for."""
    return {**(params or {}), "_meta": {**_meta(params or {}), SUBSCRIPTION_ID_META_KEY: subscription}}


def untagged(params: JsonObject) -> JsonObject:
    """A notification's params without the id of a subscription."""
    return _with_meta(params, _without(_meta(params), (SUBSCRIPTION_ID_META_KEY,)))


def _meta(message: Mapping[str, Any]) -> JsonObject:
    return _object(message.get("_meta"))


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _without(mapping: JsonObject, keys: tuple[str, ...]) -> JsonObject:
    return {key: value for key, value in mapping.items() if key not in keys}


def _with_meta(message: JsonObject, meta: JsonObject) -> JsonObject:
    """A message with this `_meta`; without any if there is nothing in it and it was not there empty."""
    if meta == message.get("_meta"):
        return message
    rest = _without(message, ("_meta",))
    return {**rest, "_meta": meta} if meta else rest
