"""JSON-RPC 2.0 messages as MCP uses them: one decoder, one encoder, no models of what is inside.

`params` and `result` are plain dicts, so that unknown fields pass through (mission A3); or folded, which saves decoding
what only passes through (`folding.py`).
"""

from __future__ import annotations

import codecs
from typing import Any, Final, Literal

import msgspec

from ..errors import ParseError, RequestError
from ..model import JsonObject
from .folding import decode_member, decoded, folded, is_object

RequestId = int | str
CHECKED_AT_ONCE: Final = 64 * 1024


class Message(msgspec.Struct, frozen=True, gc=False):
    """Any JSON-RPC message. Which one it is follows from the members that are present."""

    jsonrpc: Literal["2.0"]
    id: RequestId | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
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
        """The params, as a dict that may be empty. Raises `RequestError`."""
        return decoded(self.params) if isinstance(self.params, dict) else {}

    @property
    def folded_arguments(self) -> JsonObject:
        """The params with their payload folded. Raises `RequestError`."""
        return folded(self.params) if isinstance(self.params, dict) else {}

    @property
    def meta(self) -> JsonObject:
        """The `_meta` of the params; empty if there is none, or it is no object. Raises `RequestError`."""
        text = self.params.get("_meta") if isinstance(self.params, dict) else None
        meta = decode_member(text) if text is not None else None
        return meta if isinstance(meta, dict) else {}

    @property
    def object_result(self) -> JsonObject | None:
        """The result; None if there is none, or it is no object. Raises `RequestError`."""
        members = self._result_members()
        return None if members is None else decoded(members)

    @property
    def folded_result(self) -> JsonObject | None:
        """The result with its payload folded; None if there is none, or it is no object. Raises `RequestError`."""
        members = self._result_members()
        return None if members is None else folded(members)

    def _result_members(self) -> dict[str, msgspec.Raw] | None:
        return _members.decode(self.result) if isinstance(self.result, msgspec.Raw) and is_object(self.result) else None


_decoder = msgspec.json.Decoder(Message)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def decode_message(data: bytes | str) -> Message:
    """Decode one message.

    Raises:
        ParseError: it is not JSON, or nested too deeply.
        RequestError: it is JSON but not one JSON-RPC message (batches are not part of MCP since 2025-06-18).
    """
    try:
        message = _decoder.decode(data)
        if isinstance(data, bytes) and not data.isascii():
            _check_utf8(data)  # the decoder passes over what it does not decode
    except msgspec.ValidationError as error:
        raise RequestError(f"Not a JSON-RPC message: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"Parse error: {error}") from error
    _check_shape(message)
    return message


def _check_utf8(data: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with memoryview(data) as view:
        for start in range(0, len(view), CHECKED_AT_ONCE):
            decoder.decode(view[start : start + CHECKED_AT_ONCE])
    decoder.decode(b"", final=True)


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
