"""`python -m tests.e2e.backends.modern`: a backend of the stateless revision only, made with the SDK, over HTTP.

With `KEY_FILE` in the environment it asks for what is in that file, as `X-Api-Key`.

Prints the address to stderr, and there also what must be seen from outside: `slow started`, `slow cancelled`, and one
line for each POST with the method and how many TCP connections there have been.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, Resolve
from pydantic import BaseModel

server = MCPServer("modern")


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Who(BaseModel):
    name: str


def _ask() -> Elicit[Who]:
    return Elicit("Who are you?", Who)


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
async def greet(answer: Annotated[ElicitationResult[Who], Resolve(_ask)]) -> str:
    return f"{answer.action} {answer.data.name if answer.action == 'accept' else ''}"


@server.tool()
async def steps(context: Context) -> str:
    for step in range(3):
        await context.report_progress(step, 3)
        await context.info(f"step {step}")
    return "done"


@server.tool()
async def slow() -> str:
    say("slow started")
    try:
        await trio.sleep(60)
    except trio.Cancelled:
        say("slow cancelled")
        raise
    return "slept"


@server.tool()
async def grow(context: Context) -> str:
    server.add_tool(lambda: "new", name="new", description="new")
    await context.notify_tools_changed()
    return "grown"


@server.tool()
async def touch(context: Context) -> str:
    await context.notify_resource_updated("thing://one")
    return "touched"


@server.resource("thing://one")
def one() -> str:
    return "the one thing"


@server.prompt()
def hello(name: str) -> str:
    return f"Hello, {name}"


inner = server.streamable_http_app()
clients: set[tuple[str, int]] = set()


async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Nothing but the stateless revision."""
    headers = {name.lower(): value for name, value in scope.get("headers", ())}
    if scope["type"] == "http":
        clients.add(tuple(scope["client"]))
        method = headers.get(b"mcp-method", b"-").decode()
        say(f"{scope['method']} {method} {len(clients)}")
        if "KEY_FILE" in os.environ and headers.get(b"x-api-key") != Path(os.environ["KEY_FILE"]).read_bytes():
            say("refused")
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if headers.get(b"mcp-protocol-version") != b"2026-07-28":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"only 2026-07-28 is spoken here"})
            return
    await inner(scope, receive, send)


if __name__ == "__main__":
    config = Config()
    config.bind = ["127.0.0.1:0"]
    trio.run(hypercorn.trio.serve, app, config)
