"""Requests of HTTP/1.1, out of bytes: llhttp in strict mode, and what RFC 9112 asks for besides. Pure."""

from __future__ import annotations

from collections import deque
from http import HTTPStatus
from typing import Final

import httptools
from attrs import define, field

MAX_HEAD: Final = 64 * 1024
"""Bytes that a request may have besides its body: its head, the framing of chunks, and trailers."""
MAX_HEADERS: Final = 100
MAX_AHEAD: Final = 256 * 1024
"""Bytes of further requests that are taken before the present one is answered."""
VERSIONS: Final = frozenset({"1.0", "1.1"})


class BadRequest(Exception):
    """What came is no request that we take. Becomes an answer of this status, and the end of the connection."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@define(eq=False)
class Request:
    """One request. Its body grows while it arrives.

    Attributes:
        target: the path and the query, as they came.
        headers: names in lower case, in the order in which they came.
        body: the pieces that nobody has taken yet.
        told_complete: whoever takes the body knows that it has all of it.
    """

    method: str = ""
    version: str = ""
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(factory=list)
    body: deque[bytes] = field(factory=deque)
    complete: bool = False
    told_complete: bool = False
    keep_alive: bool = False
    expects_continue: bool = False


class RequestParser:
    """Takes bytes, gives requests, in their order.

    Attributes:
        error: why no further request can be read; None while that is not so.
        over: no further request can follow on this connection.
    """

    def __init__(self) -> None:
        self.error: BadRequest | None = None
        self.over = False
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        self._arriving = Request()
        self._begun = False
        self._head_done = False
        self._head_bytes = 0
        self._overhead = 0
        self._body_bytes = 0
        self._ahead = 0

    def close(self) -> None:
        """Nothing more will be fed. Ends the cycles with the callbacks and the traceback of the error."""
        self.over = True
        self.error = None
        del self._parser

    def feed(self, data: bytes) -> None:
        """Take some bytes. What is wrong with them is in `error` then."""
        if self.error is not None or self.over:
            return
        self._overhead += len(data)
        if self._requests and self._requests[0].complete:
            self._ahead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.over = True  # what follows is for a protocol that is not spoken here
        except httptools.HttpParserInvalidMethodError:
            self._fail(HTTPStatus.NOT_IMPLEMENTED, "this is not HTTP/1.1, or a method that is not known")
        except httptools.HttpParserError as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"this is not HTTP/1.1: {error.__context__ or error}")
        if self._overhead > MAX_HEAD + self._body_bytes:
            status = HTTPStatus.BAD_REQUEST if self._head_done else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._fail(status, f"the request has more than {MAX_HEAD} bytes besides its body")

    @property
    def begun(self) -> bool:
        """Whether a request has begun to arrive that `next_request` has not given yet."""
        return self._begun or bool(self._requests)

    @property
    def is_full(self) -> bool:
        """Whether so much came ahead of the next request that no more should be read."""
        return self._ahead > MAX_AHEAD

    def next_request(self) -> Request | None:
        """The next request whose head is complete; its body may still grow. None if there is none yet.

        Raises:
            BadRequest: there will be none, and why.
        """
        if self._requests and (self._requests[0].complete or self.error is None):
            return self._requests[0]
        if self.error is not None:
            raise self.error
        return None

    def is_last(self, request: Request) -> bool:
        """Whether nothing can follow this request on the connection, not even a refusal."""
        return self.over and self.error is None and self._requests[-1] is request

    def forget_request(self) -> None:
        """The first request has been answered."""
        if self._requests:
            self._requests.popleft()
        if not self._requests:
            self._ahead = 0

    def _fail(self, status: HTTPStatus, reason: str) -> None:
        if self.error is None:
            self.error = BadRequest(status, reason)

    # --- for llhttp ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._arriving = Request()
        self._begun, self._head_done = True, False
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._arriving.target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer: nobody reads those
        self._arriving.headers.append((name.lower(), value.rstrip(b" \t")))
        self._count(len(name) + len(value))
        if len(self._arriving.headers) > MAX_HEADERS:
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request has more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        request = self._arriving
        request.method = self._parser.get_method().decode("ascii")
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        self._head_done = True
        self._check_head(request)
        if self.error is None:
            self._begun = False
            self._requests.append(request)

    def on_body(self, data: bytes) -> None:
        self._arriving.body.append(data)
        self._overhead -= len(data)
        self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        self._arriving.complete = True
        self._overhead = self._body_bytes = 0

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._fail(status, f"the head of the request has more than {MAX_HEAD} bytes")

    def _check_head(self, request: Request) -> None:
        """What llhttp leaves to its users: RFC 9112 §3.2 (Host, target), §2.3 (version), RFC 9110 §10.1.1 (Expect)."""
        if request.version not in VERSIONS:
            self._fail(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            return
        hosts = [value for name, value in request.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and request.version == "1.1"):
            self._fail(HTTPStatus.BAD_REQUEST, "the request must have one Host header")
        expected = [value.lower() for name, value in request.headers if name == b"expect"]
        if expected and expected != [b"100-continue"]:
            self._fail(HTTPStatus.EXPECTATION_FAILED, "only 100-continue can be expected")
        request.expects_continue = bool(expected) and request.version == "1.1"
        if request.target.startswith((b"http://", b"https://")):
            url = httptools.parse_url(request.target)
            request.target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        elif not request.target.startswith(b"/") and request.target != b"*":
            self._fail(HTTPStatus.BAD_REQUEST, "the target of the request is not a path")

    def __repr__(self) -> str:
        return f"<RequestParser: {len(self._requests)} requests, {self.error or 'no error'}>"
