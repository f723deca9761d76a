"""`vmcp-actors status`: ask a running gateway."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

TIMEOUT = 5.0


def fetch_status(url: str) -> dict[str, Any]:
    """The gateway's `/status`. Raises OSError when it cannot be reached, ValueError when it is no gateway."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("expected a URL like http://127.0.0.1:4483")
    with urlopen(f"{parts.scheme}://{parts.netloc}/status", timeout=TIMEOUT) as response:  # noqa: S310  # scheme checked
        answer = json.load(response)
    if not isinstance(answer, dict) or "supervisor" not in answer:
        raise ValueError("what answers there is not a vmcp-actors gateway")
    return answer
