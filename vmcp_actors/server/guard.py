"""Who may talk to the server at all: Host and Origin (DNS rebinding; MCP 2025-11-25 transports §Security Warning)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from ..errors import BadHost, BadOrigin
from ..settings import ServerSettings
from .http import Headers, Scope


class Guard:
    """Checks Host and Origin of every request.

    On a loopback address only loopback names are taken for Host, unless `allowedHosts` says otherwise: a page of a
    foreign site that has its name point to 127.0.0.1 is refused. An Origin must be listed in `allowedOrigins`, or be
    the server itself.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allowed_origins)

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raises `BadHost` (421) or `BadOrigin` (403)."""
        host = headers.get("host", "").lower()
        if not self._host_allowed(host, scope):
            raise BadHost(f"Host {host!r} is not served here")
        origin = headers.get("origin")
        if origin is not None and not self._origin_allowed(origin.lower().rstrip("/"), host):
            raise BadOrigin(f"Origin {origin!r} is not allowed here")

    def _host_allowed(self, host: str, scope: Scope) -> bool:
        name = _host_name(host)
        if self._hosts:
            return host in self._hosts or name in self._hosts or "*" in self._hosts
        server = scope.get("server")
        if server is None or not _is_loopback(str(server[0])):
            return bool(host) or scope.get("http_version") == "1.0"
        return name is not None and _is_loopback(name)

    def _origin_allowed(self, origin: str, host: str) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or name is None:
            return False
        host_name = _host_name(host)
        if host_name is not None and _is_loopback(host_name) and _is_loopback(name):
            return True
        return parts.netloc == host


@lru_cache(maxsize=256)
def _host_name(host: str) -> str | None:
    """The name in a Host value, without the port; None when it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
        mapped = getattr(address, "ipv4_mapped", None)  # where a socket of both families is bound to `::`
        return bool((mapped or address).is_loopback)
    except ValueError:
        return False
