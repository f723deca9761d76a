"""Towards the backends: streamable HTTP, child processes, and the old HTTP with SSE. Each is an SDK `Dispatcher`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from ..model import BackendSpec, HttpEndpoint
from .base import OpenTransport, Transport
from .http import open_http
from .sse import open_sse
from .stdio import open_stdio

__all__ = ["OpenTransport", "Transport", "open_transport"]


def open_transport(spec: BackendSpec) -> AbstractAsyncContextManager[Transport]:
    """Open the transport that the backend's endpoint asks for, in the calling task. Raises `BackendError`."""
    if not isinstance(spec.endpoint, HttpEndpoint):
        return open_stdio(spec)
    return open_sse(spec) if spec.endpoint.kind == "sse" else open_http(spec)
