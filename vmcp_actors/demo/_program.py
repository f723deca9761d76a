"""What the demo backends have in common: a set of tools, checked arguments, and the life of the process."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Never

import anyio
import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

Context = ServerRequestContext[dict[str, Any], Any]
Arguments = dict[str, Any]


class ToolFailedError(Exception):
    """A tool could not do what it was asked for; its text is for the caller, who sees a result with `isError`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: what is listed, and the coroutine that runs it. `run` may raise ToolFailedError."""

    description: types.Tool
    run: Callable[[Context, Arguments], Awaitable[types.CallToolResult]]


class Toolbox:
    """Serves `tools/list` and `tools/call` for a fixed set of tools; an unknown name is a protocol error (-32602)."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.description.name: tool for tool in tools}

    async def list(self, _ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.description for tool in self._tools.values()])

    async def call(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool: {params.name}")
        try:
            return await tool.run(ctx, params.arguments or {})
        except ToolFailedError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)


def done(text: str, structured: dict[str, Any] | None = None) -> types.CallToolResult:
    """The result of a tool that succeeded."""
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def text_argument(arguments: Arguments, name: str, default: str | None = None) -> str:
    """The text argument `name`. Raises ToolFailedError if it is empty, not a text, or missing without a default."""
    value = arguments.get(name, default)
    if not isinstance(value, str) or not value:
        raise ToolFailedError(f"`{name}` must be a text that is not empty")
    return value


def number_argument(arguments: Arguments, name: str, *, above: float, most: float, default: float | None) -> float:
    """The number argument `name` with above < number <= most. Raises ToolFailedError as `text_argument` does."""
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
        raise ToolFailedError(f"`{name}` must be a number above {above:g} and at most {most:g}")
    return float(value)


def object_schema(required: Sequence[str] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def serve(server: Server[dict[str, Any]], *, keeps_state: bool = False) -> Never:
    """Serve MCP on stdin and stdout until stdin closes, then end the process with status 0.

    A server that keeps something for its client between calls speaks the stateful revisions only: in the stateless one
    a server must not rely on earlier requests (MCP 2026-07-28, basic §Statelessness).

    Calls in flight are cancelled then. SIGTERM and SIGINT end it at once, also with status 0. Nothing is written to
    stderr in any of these cases.
    """
    # The SDK reads stdin in a thread that cannot be interrupted, so unwinding on a signal would wait for a line that
    # may never come. All state is in memory: leaving at once loses nothing that a clean end would have kept.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda _signum, _frame: os._exit(0))
    # Logging is deprecated in the newest revision and is here on purpose: clients of older revisions use it.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    try:
        trio.run(_serve, server, keeps_state)
    except* (BrokenPipeError, anyio.BrokenResourceError):
        pass  # the client is gone: nobody to answer
    # Every message was flushed as it was written. Taking the interpreter down in good order would cost whoever waits
    # for us another 0.2 s, and would complain about the rest of a message that a client did not want to read.
    os._exit(0)


async def _serve(server: Server[dict[str, Any]], keeps_state: bool) -> None:
    options = server.create_initialization_options()
    async with stdio_server() as (read_stream, write_stream):
        if not keeps_state:
            await server.run(read_stream, write_stream, options)
            return
        async with server.lifespan(server) as state:
            await serve_loop(server, read_stream, write_stream, lifespan_state=state, init_options=options)
