"""Where an HTTP backend lives and how to get a stream to it: URLs, TCP, TLS, and words for what went wrong."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Literal, cast

import trio
from attrs import field, frozen

from .tcp import TcpStream

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")
_UNKNOWN_NAME = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
}


@frozen
class Origin:
    """Scheme, host and port: what connections may be shared for. `host` has no brackets."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    host_header: bytes = field(init=False, eq=False, repr=False)

    @host_header.default
    def _make_host_header(self) -> bytes:
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header.decode('ascii')}"


def parse_url(url: str) -> tuple[Origin, str]:
    """The origin of an absolute http(s) URL, and the request target (path and query, percent-encoded, no fragment).

    Raises:
        ValueError: it is not such a URL, or has a user name or password in it. The text never repeats the URL, whose
            query may be a credential.
    """
    # urlsplit drops line breaks silently, so they have to be found before.
    if _FORBIDDEN_IN_URL.search(url):
        raise ValueError("the URL has white space or control characters in it")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the URL must start with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials belong in a header, not in the URL")
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("the URL has port 0")
    target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    scheme = cast(Literal["http", "https"], parts.scheme)
    return Origin(scheme, _checked_host(parts.hostname or ""), port), target


def _checked_host(host: str) -> str:
    if ":" in host:
        ipaddress.IPv6Address(host)
        return host
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("the URL has no valid host")
    return host


@functools.cache
def shared_ssl_context() -> ssl.SSLContext:
    """The one client context of this process, with the system's trusted certificates.

    Loading those takes 20 ms and almost a megabyte, so nobody should make a second one for the same trust.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def open_stream(origin: Origin, ssl_context: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """A fresh TCP connection with TCP_NODELAY, inside TLS for https.

    If cancelled, or if the handshake fails, nothing stays open. There is no timeout of its own.

    Raises:
        OSError: no connection; `trio.BrokenResourceError`: no handshake. `describe` has words for both.
    """
    tcp = TcpStream.of(await trio.open_tcp_stream(origin.host, origin.port))
    if not origin.tls:
        return tcp
    tls = trio.SSLStream(
        tcp,
        ssl_context or shared_ssl_context(),
        server_hostname=origin.host,
        # HTTP frames its own messages, and hardly any server sends close_notify.
        https_compatible=True,
    )
    try:
        await tls.do_handshake()
    except BaseException:
        close_stream(tls)
        raise
    return tls


def tcp_under(stream: trio.abc.Stream) -> TcpStream | None:
    """The TCP connection that a stream is, or that is under its TLS; None for any other stream."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, TcpStream) else None


def close_stream(stream: trio.abc.Stream) -> None:
    """Close at once, without awaiting, so that it can be done in a cancelled task. Idempotent.

    Knows TCP, TLS, and stapled streams of halves with a sync `close()`, such as `trio.testing.memory_stream_pair`;
    any other stream must have a sync `close()` itself. TLS says no goodbye: HTTP does not need one.
    """
    if (tcp := tcp_under(stream)) is not None:
        tcp.close()
    elif isinstance(stream, trio.StapledStream):
        _sync_close(stream.send_stream)
        _sync_close(stream.receive_stream)
    else:
        _sync_close(stream)


def _sync_close(closeable: object) -> None:
    cast(Callable[[], None], closeable.close)()  # type: ignore[attr-defined]  # the contract of close_stream


def describe(error: BaseException) -> str:
    """A short phrase for a failed connection, without addresses: the caller knows whom it wanted to reach."""
    if isinstance(error, BaseExceptionGroup):
        # One error per address of the name that was tried; mostly they are all the same.
        return "; ".join(dict.fromkeys(describe(leaf) for leaf in error.exceptions))
    cause = error.__cause__
    if cause is not None and (isinstance(error, trio.BrokenResourceError) or _is_bare_os_error(error)):
        return describe(cause)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return "name not known" if error.errno in _UNKNOWN_NAME else "name lookup failed"
    if isinstance(error, trio.ClosedResourceError):
        return "closed on our side"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or "connection broken"


def _is_bare_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno is None
