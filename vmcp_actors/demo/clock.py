"""A demo backend that takes its time: it tells the time, counts down with progress, and sleeps.

`python -m vmcp_actors.demo.clock` serves MCP over stdio. All calls run concurrently and end at once when they are
cancelled.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import mcp_types as types
import trio
from mcp.server.lowlevel.server import Server

from vmcp_actors.demo._program import (
    Arguments,
    Context,
    Tool,
    Toolbox,
    ToolFailedError,
    done,
    number_argument,
    object_schema,
    serve,
    text_argument,
)

LONGEST = 3600.0
_LEVELS: tuple[types.LoggingLevel, ...] = (
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"
)  # fmt: skip


def make_server() -> Server[dict[str, Any]]:
    """An MCP server with the tools `now`, `countdown` and `sleep`; `countdown` logs at level `info`."""
    least_level: types.LoggingLevel = "debug"

    async def set_level(_ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        nonlocal least_level
        least_level = params.level
        return types.EmptyResult()

    async def log(ctx: Context, text: str) -> None:
        if _LEVELS.index("info") >= _LEVELS.index(least_level):
            await ctx.session.send_log_message("info", text, logger="clock", related_request_id=ctx.request_id)

    async def now(_ctx: Context, arguments: Arguments) -> types.CallToolResult:
        name = text_argument(arguments, "timezone", "UTC")
        time = datetime.now(_zone(name)).isoformat(timespec="milliseconds")
        return done(time, {"timezone": name, "time": time})

    async def countdown(ctx: Context, arguments: Arguments) -> types.CallToolResult:
        seconds = number_argument(arguments, "seconds", above=0, most=LONGEST, default=None)
        step = number_argument(arguments, "step", above=0, most=LONGEST, default=1)
        await log(ctx, f"counting down {seconds:g} s")
        start, elapsed, steps = trio.current_time(), 0.0, 0
        while elapsed < seconds:
            steps += 1
            elapsed = min(seconds, steps * step)
            await trio.sleep_until(start + elapsed)
            await ctx.session.report_progress(elapsed, seconds, f"{seconds - elapsed:g} s left")
        await log(ctx, "done")
        return done(f"counted down {seconds:g} s", {"seconds": seconds, "steps": steps})

    async def sleep(_ctx: Context, arguments: Arguments) -> types.CallToolResult:
        seconds = number_argument(arguments, "seconds", above=-1e-9, most=LONGEST, default=None)
        await trio.sleep(seconds)
        return done(f"slept {seconds:g} s", {"seconds": seconds})

    number = {"type": "number"}
    text = {"type": "string"}
    seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST}
    tools = [
        Tool(
            types.Tool(
                name="now",
                description="The time now, as ISO 8601, in UTC or in a time zone of the IANA database.",
                input_schema=object_schema(timezone={"type": "string", "examples": ["Europe/Berlin"]}),
                output_schema=object_schema(("timezone", "time"), timezone=text, time=text),
                annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
            ),
            now,
        ),
        Tool(
            types.Tool(
                name="countdown",
                description="Count down, with a progress notification every `step` seconds (default 1).",
                input_schema=object_schema(("seconds",), seconds=seconds, step=seconds),
                output_schema=object_schema(("seconds", "steps"), seconds=number, steps={"type": "integer"}),
                annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
            ),
            countdown,
        ),
        Tool(
            types.Tool(
                name="sleep",
                description="Answer after so many seconds.",
                input_schema=object_schema(("seconds",), seconds={"type": "number", "minimum": 0, "maximum": LONGEST}),
                output_schema=object_schema(("seconds",), seconds=number),
                annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
            ),
            sleep,
        ),
    ]
    toolbox = Toolbox(tools)
    server = Server("clock", version="1", on_list_tools=toolbox.list, on_call_tool=toolbox.call)
    # Not by the constructor's parameter: that one warns, since the newest revision has no such method.
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)
    return server


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; the name of a directory
        raise ToolFailedError(f"unknown time zone: {name}") from None


if __name__ == "__main__":
    serve(make_server())
