"""The few pieces of ASGI that the MCP endpoint needs: read a bounded body, send a response, send an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import trio

from ..errors import BodyTooLarge, RequestTimeout, VmcpError, WrongMethod
from ..wire.messages import RequestId, encode_error

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[str, str]

WHOLE_BODY = "vmcp.whole_body"
"""An extension of ASGI that our own server offers: a function that gives the body if nobody has to wait for it."""

JSON_TYPE = (b"content-type", b"application/json")
EVENT_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class ClientGone(Exception):
    """The client disconnected before its request was complete; there is nobody to answer."""


def headers_of(scope: Scope) -> Headers:
    """The request headers: names in lower case, repeated ones joined (RFC 9110 §5.3)."""
    headers: Headers = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def read_body(scope: Scope, headers: Headers, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """The request body, at most `limit` bytes, within so many seconds.

    Raises:
        BodyTooLarge: announced or actual length is over the limit.
        RequestTimeout: it did not arrive in time.
        ClientGone: the client left in the middle.
    """
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge(f"The request body of {announced} bytes is over the limit of {limit} bytes")
    take_whole = scope.get("extensions", {}).get(WHOLE_BODY)
    if take_whole is not None and (body := take_whole()) is not None:
        if len(body) > limit:
            raise BodyTooLarge(f"The request body is over the limit of {limit} bytes")
        return body  # type: ignore[no-any-return]
    with trio.move_on_after(seconds):
        return await _receive_body(receive, limit)
    raise RequestTimeout(f"The request body did not arrive within {seconds:g} s")


async def _receive_body(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(f"The request body is over the limit of {limit} bytes")
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def client_address(scope: Scope) -> str:
    """The address that the request came from; empty where the server does not say."""
    peer = scope.get("client")
    return str(peer[0]) if peer else ""


async def until_disconnect(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client disconnects. For requests whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel("the client disconnected")


async def send_response(
    send: Send, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = (JSON_TYPE,)
) -> None:
    """A whole response. Its length is given, so that the connection can be kept; 204 has none (RFC 9110 §8.6)."""
    fields = [*headers] if status == 204 else [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(
    send: Send, error: VmcpError, request_id: RequestId | None = None, *, status: int | None = None
) -> None:
    """Refuse a request: the error's HTTP status, unless another one is given, and its JSON-RPC form in the body."""
    headers = [JSON_TYPE]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, WrongMethod):
        headers.append((b"allow", error.allowed.encode()))
    await send_response(send, status or error.http_status, encode_error(request_id, error.to_jsonrpc()), headers)
