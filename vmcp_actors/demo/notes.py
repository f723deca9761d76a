"""A demo backend with state: notes, and a transaction around them.

`python -m vmcp_actors.demo.notes` serves MCP over stdio. The notes live in the process, so they belong to the
connection that started it: whoever sees their own notes after a second call has kept the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from vmcp_actors.demo._program import (
    Arguments,
    Context,
    Tool,
    Toolbox,
    ToolFailedError,
    done,
    object_schema,
    serve,
    text_argument,
)

ALL_NOTES = "notes://all"


class Notebook:
    """Committed notes, and at most one open transaction with pending ones.

    `begin` needs that none is open, `commit` and `rollback` that one is; otherwise they raise ToolFailedError and
    change nothing.
    """

    def __init__(self) -> None:
        self.committed: list[str] = []
        self.pending: list[str] | None = None

    def begin(self) -> None:
        if self.pending is not None:
            raise ToolFailedError("a transaction is open already: commit it or roll it back first")
        self.pending = []

    def add(self, text: str) -> None:
        (self.committed if self.pending is None else self.pending).append(text)

    def commit(self) -> int:
        """Keep the pending notes; how many there were."""
        pending = self._close("commit")
        self.committed += pending
        return len(pending)

    def rollback(self) -> int:
        """Drop the pending notes; how many there were."""
        return len(self._close("roll back"))

    def _close(self, what: str) -> list[str]:
        if self.pending is None:
            raise ToolFailedError(f"no transaction is open: nothing to {what}")
        pending, self.pending = self.pending, None
        return pending

    def as_text(self) -> str:
        lines = [f"- {text}" for text in self.committed] + [f"- {text} (pending)" for text in self.pending or ()]
        return "\n".join(lines) or "no notes"

    def as_object(self) -> dict[str, Any]:
        notes = [{"text": text, "pending": False} for text in self.committed]
        notes += [{"text": text, "pending": True} for text in self.pending or ()]
        return {"notes": notes, "transaction": self.pending is not None}


_NOTE = object_schema(("text", "pending"), text={"type": "string"}, pending={"type": "boolean"})
_NOTES = object_schema(
    ("notes", "transaction"), notes={"type": "array", "items": _NOTE}, transaction={"type": "boolean"}
)


def make_server(book: Notebook | None = None) -> Server[dict[str, Any]]:
    """An MCP server over one notebook: five tools, the resource `notes://all`, the prompt `summarize`."""
    book = book or Notebook()

    def tool(
        name: str,
        description: str,
        act: Callable[[Arguments], str],
        schema: dict[str, Any] | None = None,
        *,
        read_only: bool = False,
    ) -> Tool:
        async def run(_ctx: Context, arguments: Arguments) -> types.CallToolResult:
            text = act(arguments)
            return done(text, book.as_object())

        return Tool(
            types.Tool(
                name=name,
                description=description,
                input_schema=schema or object_schema(),
                output_schema=_NOTES,
                annotations=types.ToolAnnotations(open_world_hint=False, read_only_hint=read_only),
            ),
            run,
        )

    def begin(_arguments: Arguments) -> str:
        book.begin()
        return "transaction started"

    def add(arguments: Arguments) -> str:
        book.add(text_argument(arguments, "text"))
        return "added" if book.pending is None else "added to the open transaction"

    toolbox = Toolbox(
        [
            tool("begin", "Start a transaction.", begin),
            tool(
                "add",
                "Add a note: to the open transaction, or directly if none is open.",
                add,
                object_schema(("text",), text={"type": "string", "minLength": 1}),
            ),
            tool("rollback", "Drop the notes of the open transaction.", lambda _: f"{book.rollback()} dropped"),
            tool("commit", "Keep the notes of the open transaction.", lambda _: f"{book.commit()} committed"),
            tool(
                "list",
                "List the notes; those of an open transaction are marked.",
                lambda _: book.as_text(),
                read_only=True,
            ),
        ]
    )

    async def list_resources(_ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        everything = types.Resource(uri=ALL_NOTES, name="all", title="All notes", mime_type="text/plain")
        return types.ListResourcesResult(resources=[everything])

    async def read_resource(_ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        if str(params.uri) != ALL_NOTES:
            raise MCPError(types.INVALID_PARAMS, f"unknown resource: {params.uri}")
        text = types.TextResourceContents(uri=ALL_NOTES, mime_type="text/plain", text=book.as_text())
        return types.ReadResourceResult(contents=[text])

    async def list_prompts(_ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(name="summarize", description="Summarize the notes.")])

    async def get_prompt(_ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != "summarize":
            raise MCPError(types.INVALID_PARAMS, f"unknown prompt: {params.name}")
        text = types.TextContent(text=f"Summarize these notes in one sentence:\n\n{book.as_text()}")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=text)])

    return Server(
        "notes",
        version="1",
        instructions="Notes that last as long as the connection. `begin`, `add`, then `commit` or `rollback`.",
        on_list_tools=toolbox.list,
        on_call_tool=toolbox.call,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


if __name__ == "__main__":
    serve(make_server(), keeps_state=True)
