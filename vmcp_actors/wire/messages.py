"""JSON-RPC 2.0 messages as MCP uses them: one decoder, one encoder, no models of what is inside.

`params` and `result` are plain dicts, so that unknown fields pass through (mission A3).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..errors import ParseError, RequestError
from ..model import JsonObject

RequestId = int | str


class Message(msgspec.Struct, frozen=True, gc=False):
    """Any JSON-RPC message. Which one it is follows from the members that are present."""

    jsonrpc: Literal["2.0"]
    id: RequestId | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    result: Any = msgspec.UNSET
    error: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_request(self) -> bool:
        """A method with an id."""
        return self.method is not msgspec.UNSET and self.id is not msgspec.UNSET

    @property
    def is_notification(self) -> bool:
        """A method without an id."""
        return self.method is not msgspec.UNSET and self.id is msgspec.UNSET

    @property
    def is_response(self) -> bool:
        """A result or an error."""
        return self.method is msgspec.UNSET

    @property
    def arguments(self) -> JsonObject:
        """The params, as a dict that may be empty."""
        return self.params if isinstance(self.params, dict) else {}


_decoder = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()


def decode_message(data: bytes | str) -> Message:
    """Decode one message.

    Raises:
        ParseError: it is not JSON, or nested too deeply.
        RequestError: it is JSON but not one JSON-RPC message (batches are not part of MCP since 2025-06-18).
    """
    try:
        message = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise RequestError(f"Not a JSON-RPC message: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"Parse error: {error}") from error
    _check_shape(message)
    return message


def _check_shape(message: Message) -> None:
    if message.method is not msgspec.UNSET:
        if message.id is None:
            raise RequestError("Not a JSON-RPC message: a request id must be a string or an integer, not null")
        return
    if message.id is msgspec.UNSET or (message.result is msgspec.UNSET) == (message.error is msgspec.UNSET):
        raise RequestError("Not a JSON-RPC message: it has neither a method nor exactly one of result and error")


def _encode(value: Any) -> bytes:
    """Any JSON value. Raises `RequestError` when it is nested too deeply: what could just be decoded may be."""
    try:
        return _encoder.encode(value)
    except RecursionError as error:
        raise RequestError("nested too deeply to be sent") from error


def encode_request(request_id: RequestId, method: str, params: JsonObject | None) -> bytes:
    """A request. Empty params are left out: some servers refuse `"params": null`."""
    message: JsonObject = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if params:
        message["params"] = params
    return _encode(message)


def encode_notification(method: str, params: JsonObject | None) -> bytes:
    """A notification."""
    message: JsonObject = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return _encode(message)


def encode_result(request_id: RequestId, result: Any) -> bytes:
    """The answer to a request."""
    return _encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def encode_error(request_id: RequestId | None, error: JsonObject) -> bytes:
    """An error answer; the id is null when the request could not be read."""
    return _encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def encode_json(value: Any) -> bytes:
    """Any JSON value, for `/status` and logs."""
    return _encode(value)


def canonical_json(value: Any) -> bytes:
    """The same bytes for the same value, whatever the order of members. Raises `RequestError` as the others do."""
    try:
        return msgspec.json.encode(value, order="sorted")
    except RecursionError as error:
        raise RequestError("nested too deeply") from error
