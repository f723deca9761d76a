"""A backend of the first HTTP transport (MCP 2024-11-05, HTTP with SSE): the SDK's client, with our TLS context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.sse import sse_client
from mcp.shared.dispatcher import CallOptions

from ..errors import BackendError, BackendLost, BackendUnauthorized, CredentialsUnavailable
from ..model import BackendSpec, HttpEndpoint
from ..wire.folding import unfolded
from .base import describe, single_cause, transport_errors
from .origin import shared_ssl_context
from .stdio import StreamDispatcher


class SseDispatcher(StreamDispatcher):
    """The SDK's client writes what it sends with its own models, so nothing may be folded in it."""

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: int | str | None = None,
    ) -> dict[str, Any]:
        """As the SDK's."""
        decoded = None if params is None else unfolded(dict(params))
        return await super().send_raw_request(method, decoded, opts, _related_request_id=_related_request_id)


@asynccontextmanager
async def open_sse(spec: BackendSpec) -> AsyncIterator[SseDispatcher]:
    """Connect to the event stream of the backend and speak JSON-RPC over it.

    Raises:
        BackendUnavailable: it cannot be reached, or is no such server.
        BackendLost: the stream broke.
    """
    assert isinstance(spec.endpoint, HttpEndpoint)
    headers: dict[str, Any] = {name: value.reveal() for name, value in spec.endpoint.headers.items()}
    if spec.endpoint.authorizer is not None:
        try:
            credential = await spec.endpoint.authorizer.authorize()
        except CredentialsUnavailable as error:
            raise BackendUnauthorized(spec.name, f"no credentials: {error.message}") from error
        headers |= {name: value.reveal() for name, value in credential.headers.items()}
    connected = False
    with transport_errors(spec.name, "HTTP with SSE"):
        try:
            async with sse_client(
                spec.endpoint.url,
                headers=headers,
                timeout=spec.connect_timeout,
                sse_read_timeout=None,  # type: ignore[arg-type]  # None is httpx2's "no limit": a quiet backend is not gone
                httpx_client_factory=_client,
            ) as (read, write):
                connected = True
                yield SseDispatcher(read, write)
        except Exception as error:
            cause = single_cause(error)
            if not connected or isinstance(cause, BackendError):
                raise
            raise BackendLost(spec.name, f"HTTP with SSE: {describe(cause)}") from error


def _client(
    headers: dict[str, str] | None = None,
    timeout: httpx2.Timeout | None = None,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    # One TLS context for the process: a context per client costs 20 ms and 0.9 MB.
    return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, verify=shared_ssl_context())
