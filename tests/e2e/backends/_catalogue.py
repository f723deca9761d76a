"""What the counting backend offers, and the odd fields in it that a gateway must pass on untouched."""

from typing import Any

SERVER_INFO = {"name": "counting", "version": "1", "x-unknown": {"kept": True}}
INSTRUCTIONS = "Everything is counted."
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "logging": {},
    "completions": {},
}

ODD: dict[str, Any] = {
    "x-unknown": {"deep": [1, None, "ü"]},
    "_meta": {"example.org/colour": "green"},
    "icons": [{"src": "https://example.org/icon.png", "mimeType": "image/png", "sizes": ["16x16"]}],
}


def tool(name: str, description: str, **arguments: str) -> dict[str, Any]:
    """A tool whose arguments are `name="JSON schema type"`, all required, with odd fields everywhere."""
    return {
        "name": name,
        "description": description,
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {argument: {"type": kind, "x-unknown": argument} for argument, kind in arguments.items()},
            "required": list(arguments),
        },
        "annotations": {"title": name.title(), "readOnlyHint": True, "x-unknown-hint": 1},
        **ODD,
    }


TOOLS = [
    tool("echo", "The text and the `_meta` of the request.", text="string"),
    tool("counter", "1, 2, 3, … in each session."),
    tool("sleep", "Answers after so many seconds.", seconds="number"),
    tool("progress", "So many progress notifications and one log message before the answer.", steps="integer"),
    tool("fail", "A result with isError."),
    tool("error", "A JSON-RPC error, -32050 with data."),
    tool("grow", "One tool more in this session, and notifications/tools/list_changed."),
    tool("big", "A text of so many bytes.", bytes="integer"),
    tool("ping_me", "Pings the client on the GET stream; an error if no pong comes in 2 s."),
    tool("ask", "Asks the client by elicitation/create on the stream of the call."),
]
RESOURCES = [{"uri": "counting://one", "name": "one", "mimeType": "text/plain", **ODD}]
TEMPLATES = [{"uriTemplate": "counting://item/{id}", "name": "item", "mimeType": "text/plain", **ODD}]
PROMPTS = [
    {"name": "greet", "description": "A greeting.", "arguments": [{"name": "who", "required": True}], **ODD},
]
QUESTION = {
    "message": "Which colour?",
    "requestedSchema": {
        "type": "object",
        "properties": {"colour": {"type": "string"}},
        "required": ["colour"],
    },
}


def text_result(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


def error_result(text: str) -> dict[str, Any]:
    return text_result(text, isError=True)
