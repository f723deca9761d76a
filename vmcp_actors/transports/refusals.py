"""What a backend's HTTP error means: its own JSON-RPC error, the end of our session, or only a status."""

from __future__ import annotations

from contextlib import suppress

import trio
from mcp.shared.exceptions import MCPError

from ..errors import INVALID_REQUEST, SERVER_ERROR, SESSION_NOT_FOUND, RequestError
from ..model import JsonObject
from ..wire.messages import Message, decode_message
from .http1 import Response
from .http1_messages import BadResponse, ConnectionBroken

MAX_ERROR_BYTES = 64 * 1024
ERROR_TIMEOUT = 5.0
"""Seconds for the body of an error to arrive."""
SESSION_ERRORS = frozenset({SERVER_ERROR, SESSION_NOT_FOUND, INVALID_REQUEST})


async def read_refusal(response: Response) -> Message | None:
    """The message in the body of an HTTP error; None when there is none, or it does not come in time."""
    with suppress(RequestError, ConnectionBroken, BadResponse), trio.move_on_after(ERROR_TIMEOUT):
        return decode_message(await response.read(MAX_ERROR_BYTES))
    return None


def says_session_lost(status: int, error: JsonObject) -> bool:
    """Whether a refusal is about our session. Many servers say so with 400 instead of 404, as the TypeScript SDK's
    examples do; a tool's own "session not found" comes with 200.
    """
    code, text = error.get("code"), error.get("message")
    return status == 400 and code in SESSION_ERRORS and isinstance(text, str) and "session" in text.lower()


def peer_error(error: JsonObject) -> MCPError:
    """The backend's own error, whatever it left out."""
    code, message = error.get("code"), error.get("message")
    return MCPError(
        code if isinstance(code, int) else -32603,
        message if isinstance(message, str) else "the backend gave no message",
        error.get("data"),
    )
