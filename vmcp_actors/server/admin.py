"""`/healthz`, `/readyz` and `/status`: for load balancers and people. Off the hot path, so Starlette serves them."""

from __future__ import annotations

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import __version__
from ..model import JsonObject
from ..sessions import SessionSupervisor
from ..wire.messages import encode_json


def admin_app(supervisor: SessionSupervisor, *, name: str) -> Starlette:
    """The application behind everything that is not the MCP endpoint."""

    async def healthz(_: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(_: Request) -> Response:
        if supervisor.draining:
            return _json({"status": "draining"}, 503)
        return _json({"status": "ready"})

    async def status(_: Request) -> Response:
        return _json(describe(supervisor, name=name))

    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/status", status, methods=["GET"]),
        ]
    )


def describe(supervisor: SessionSupervisor, *, name: str) -> JsonObject:
    """The tree with counts, from the public statistics: no ids, no credentials, no arguments (mission X4)."""
    return {
        "name": name,
        "version": __version__,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "backends": [spec.name for spec in supervisor.backends],
        "health": [attrs.asdict(health) for health in supervisor.health],
        "supervisor": attrs.asdict(supervisor.statistics()),
        "sessions": [attrs.asdict(session) for session in supervisor.sessions()],
    }


def _json(value: JsonObject, status: int = 200) -> Response:
    return Response(encode_json(value), status, media_type="application/json", headers={"cache-control": "no-store"})
