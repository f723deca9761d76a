"""The HTTP edge: one ASGI application, with the MCP endpoint on its hot path."""

from .app import Asgi, create_app

__all__ = ["Asgi", "create_app"]
