"""`vmcp-actors status`: ask a running gateway."""

from __future__ import annotations

import json
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

TIMEOUT = 5.0
NO_GATEWAY = "what answers there is not a vmcp-actors gateway"


def fetch_status(url: str) -> dict[str, Any]:
    """The gateway's `/status`. Raises OSError when it cannot be reached, ValueError when it is no gateway."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("expected a URL like http://127.0.0.1:4483")
    try:
        answer = _get_json(f"{parts.scheme}://{parts.netloc}/status")
    except HTTPError as error:
        error.close()
        raise OSError(f"it answers with HTTP status {error.code}") from error
    except URLError as error:
        raise OSError(getattr(error.reason, "strerror", None) or str(error.reason)) from error
    except InvalidURL as error:
        raise ValueError(str(error)) from error
    except (HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(NO_GATEWAY) from error
    if not isinstance(answer, dict) or "supervisor" not in answer:
        raise ValueError(NO_GATEWAY)
    return answer


def _get_json(url: str) -> Any:
    with urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310  # the caller checks the scheme
        return json.load(response)
