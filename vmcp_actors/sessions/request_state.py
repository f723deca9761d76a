"""Request states of backends, bound to whom they were given (MCP 2026-07-28, multi round-trip requests §Security)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from ..errors import InvalidParams

_TAG_CHARACTERS: Final = 43


class StateSeal:
    """Seals a backend's `requestState` for one principal and one backend, so that nobody else can send it back.

    Backends see all principals under the same credentials, so they cannot tell them apart themselves. The state stays
    readable behind its tag, as the backend gave it. One key for the process, made at its start: no sealed state
    outlives it.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def seal(self, principal: str, backend: str, state: str) -> str:
        """The state with its tag in front."""
        return self._tag(principal, backend, state) + state

    def open(self, principal: str, backend: str, sealed: str) -> str:
        """The state in a sealed one.

        Raises:
            InvalidParams: it was not sealed here, or for another principal or backend, or has been tampered with.
        """
        tag, state = sealed[:_TAG_CHARACTERS], sealed[_TAG_CHARACTERS:]
        if not hmac.compare_digest(_encode(tag), _encode(self._tag(principal, backend, state))):
            raise InvalidParams("requestState is not one that was given to you for this request")
        return state

    def _tag(self, principal: str, backend: str, state: str) -> str:
        message = b"".join(len(part).to_bytes(8, "big") + part for part in map(_encode, (principal, backend, state)))
        digest = hmac.digest(self._key, message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def __repr__(self) -> str:
        return "<StateSeal>"


def _encode(text: str) -> bytes:
    """Any string that JSON can bring: also half a surrogate pair."""
    return text.encode("utf-8", "surrogatepass")
