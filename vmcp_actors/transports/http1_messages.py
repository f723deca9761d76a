"""Messages of HTTP/1.1, as a client needs them: requests into bytes, bytes into responses, and what can go wrong. Pure.

RFC 9112. Responses are parsed by llhttp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httptools

MAX_HEADER_BYTES = 64 * 1024

_REQUEST_LINE = re.compile(r"(?!HEAD |CONNECT )[A-Z]+ [\x21-\x7e]+")
_HEADER = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\0]*\r\n"
_ONE_HEADER = re.compile(_HEADER)
_HEADERS = re.compile(rb"(?:%b)*" % _HEADER)
_OURS = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class HttpError(Exception):
    """Base of what can go wrong with an exchange. The text is short and names no address."""


class ConnectFailed(HttpError):
    """There was no connection to send the request on: nothing of it was sent."""


class ConnectionBroken(HttpError):
    """The connection ended before the response did.

    `request_sent` is False only if the operating system accepted not a single byte of the request, so that the
    backend cannot have seen it. True means: perhaps.
    """

    def __init__(self, message: str, *, request_sent: bool) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class BadResponse(HttpError):
    """The request was sent, and what came back is not HTTP/1.1 or exceeds a limit."""


def encode_request(
    host: bytes, method: str, target: str, headers: Iterable[tuple[bytes, bytes]], body: bytes | None
) -> bytes:
    """Head and body of a request in one piece. A `host` among the headers wins over `host`. Raises as `encode_head`."""
    return finish_request(encode_head(host, method, target, headers), method, body)


def encode_head(host: bytes, method: str, target: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request, but for what depends on its body; the same for many requests.

    Raises:
        ValueError: the method, the target or a header could be read as something else by the backend (line breaks,
            NUL, white space), or a header is one that this client sets itself. The text never repeats a value.
    """
    line = f"{method} {target}"
    if not _REQUEST_LINE.fullmatch(line):
        raise ValueError(f"not a method and a target that can be sent: {method!r} and {len(target)} characters")
    pairs = tuple(headers)
    names = {name.lower() for name, _ in pairs}
    if not _OURS.isdisjoint(names):
        raise ValueError(f"headers set by the client itself: {b', '.join(sorted(_OURS & names)).decode('ascii')}")
    lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
    # One scan for all of them; the count finds a value that brings a whole line of its own.
    if not _HEADERS.fullmatch(lines) or lines.count(b"\n") != len(pairs):
        bad = next(name for name, value in pairs if not _ONE_HEADER.fullmatch(b"%b: %b\r\n" % (name, value)))
        raise ValueError(f"header with characters that may not be in it: {bad!r}")
    host_line = b"" if b"host" in names else b"host: %b\r\n" % host
    return b"%b HTTP/1.1\r\n%b%baccept-encoding: identity\r\n" % (line.encode("ascii"), host_line, lines)


def finish_request(head: bytes, method: str, body: bytes | None) -> bytes:
    """A whole request. A POST without a body says so (RFC 9110 §8.6)."""
    if body is not None:
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
    return b"%bcontent-length: 0\r\n\r\n" % head if method in ("POST", "PUT") else b"%b\r\n" % head


class ResponseParser:
    """One response as llhttp reads it: bytes in, parts out. The `on_` methods are called by the parser."""

    __slots__ = (
        "_header_bytes",
        "_parser",
        "_silent_bytes",
        "body",
        "complete",
        "headers",
        "headers_complete",
        "keep_alive",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.headers_complete = False
        self.complete = False
        self.keep_alive = False
        self._header_bytes = 0
        self._silent_bytes = 0
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse what came in. Raises BadResponse."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.status == 101:
                raise BadResponse("it switched protocols without being asked") from error
            if not self.complete:
                raise BadResponse(f"not an HTTP response: {error}") from error
            # Something follows that nobody asked for; the response itself is whole.
            self.keep_alive = False
        # Headers, interim responses, chunk extensions and trailers are all bytes that bring no body forward. Bounding
        # them together also bounds what llhttp keeps of a line without an end.
        self._silent_bytes = 0 if self.body else self._silent_bytes + len(data)
        if self._header_bytes > MAX_HEADER_BYTES or (self._silent_bytes > MAX_HEADER_BYTES and not self.complete):
            raise BadResponse(f"more than {MAX_HEADER_BYTES} bytes of headers")
        if self.complete:
            # Ends the cycle between the parser and its callbacks, so that no garbage collection is needed.
            self._parser = None

    def feed_eof(self) -> None:
        """The peer sends no more: the end of a close-delimited body, and a broken connection otherwise."""
        if not self.headers_complete:
            raise ConnectionBroken(
                "closed in the middle of its answer" if self._silent_bytes else "closed without an answer",
                request_sent=True,
            )
        coding = self.headers.get("transfer-encoding")
        chunked = coding is not None and coding.lower().rstrip().endswith("chunked")
        if chunked or (coding is None and "content-length" in self.headers):
            raise ConnectionBroken("closed in the middle of its answer", request_sent=True)
        self.complete = True
        self._parser = None

    def break_off(self) -> None:
        """Nothing more will be fed. Idempotent."""
        self._parser = None

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a response that nobody asked for")
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self.headers_complete:
            return  # a trailer: nobody here has a use for it
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.headers_complete = True
            self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        # Interim responses (1xx) are messages of their own; the next one starts with on_message_begin.
        self.complete = self.headers_complete
