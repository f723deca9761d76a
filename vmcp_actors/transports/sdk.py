"""Our messages as the SDK's, and back, for its dispatcher: without its models' limits on nesting."""

from __future__ import annotations

from typing import Any

from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from ..wire.messages import Message, encode_error, encode_notification, encode_request, encode_result


def to_sdk(message: Message) -> JSONRPCMessage:
    """A message of ours as one of the SDK's. What is in it is not validated again.

    A result that is not an object becomes an error, so that the request which it answers ends.
    """
    if message.is_request:
        return JSONRPCRequest.model_construct(
            jsonrpc="2.0", id=message.id, method=message.method, params=message.arguments or None
        )
    if message.is_notification:
        return JSONRPCNotification.model_construct(
            jsonrpc="2.0", method=message.method, params=message.arguments or None
        )
    result = message.folded_result
    if result is not None:
        return JSONRPCResponse.model_construct(jsonrpc="2.0", id=message.id, result=result)
    error: dict[str, Any] = message.error if isinstance(message.error, dict) else {"message": "the result is no object"}
    code, text = error.get("code"), error.get("message")
    data = ErrorData.model_construct(
        code=code if isinstance(code, int) else INTERNAL_ERROR,
        message=text if isinstance(text, str) else "the backend gave no message",
        data=error.get("data"),
    )
    return JSONRPCError.model_construct(jsonrpc="2.0", id=message.id, error=data)


def from_sdk(message: JSONRPCMessage) -> bytes:
    """A message of the SDK's, as one line of bytes."""
    data = _encoded(message)
    # What is folded keeps its line ends, which in JSON are nothing but white space.
    return data if b"\n" not in data else data.replace(b"\n", b" ")


def _encoded(message: JSONRPCMessage) -> bytes:
    match message:
        case JSONRPCRequest():
            return encode_request(message.id, message.method, message.params)
        case JSONRPCNotification():
            return encode_notification(message.method, message.params)
        case JSONRPCResponse():
            return encode_result(message.id, message.result)
        case JSONRPCError():
            error: dict[str, Any] = {"code": message.error.code, "message": message.error.message}
            if message.error.data is not None:
                error["data"] = message.error.data
            return encode_error(message.id, error)
