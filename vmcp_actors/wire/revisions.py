"""Which revisions of MCP are spoken, newest last."""

from __future__ import annotations

from typing import Final

STATEFUL_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with `initialize` and sessions. The first is spoken by old stdio servers and clients; same messages."""

LATEST_STATEFUL: Final = STATEFUL_REVISIONS[-1]
ASSUMED_REVISION: Final = "2025-03-26"
"""What a client that sends no MCP-Protocol-Version header speaks (MCP 2025-11-25, transports §Protocol Version)."""

STATELESS_REVISIONS: Final = ("2026-07-28",)
"""Revisions in which every request carries all that is needed to answer it."""

LATEST_STATELESS: Final = STATELESS_REVISIONS[-1]


def negotiate(requested: str) -> str:
    """The revision that a server answers in `initialize`: the requested one, else the newest stateful one."""
    return requested if requested in STATEFUL_REVISIONS else LATEST_STATEFUL
