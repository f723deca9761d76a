"""`status`: the tree of a running gateway, and clear words about everything else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mcp
import pytest
import trio

from ..e2e.harness import gateway
from .conftest import Run

STATUS = """{
  "name": "team", "version": "1", "backends": ["a"],
  "health": [{"backend": "a", "status": "degraded", "circuit": "closed", "last_failure": "slow"}],
  "supervisor": {"sessions": 1, "started": 2, "draining": true},
  "sessions": [{"name": "session 0", "tools": 3, "running_calls": 1, "idle": null, "backends": [
    {"backend": "a", "state": "waiting", "tools": 3, "handled_calls": 4, "reason": "%s"}
  ]}]
}"""


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers one request with these bytes, whatever they are; the value is its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


@pytest.mark.e2e
async def test_the_tree_of_a_running_gateway(run: Run) -> None:
    """Gateway, supervisor, session and backend connections, each with what it is doing."""
    async with gateway() as served, mcp.Client(served.url, mode="legacy") as client:
        await client.call_tool("notes_list", {})
        result = await trio.to_thread.run_sync(run, "status", "--url", served.url)

    assert result.exit_code == 0, result.stderr
    name, *health, supervisor, session, one, two = result.stdout.splitlines()
    connections = [one, two]
    assert name.startswith("vmcp ")
    assert health == ["├── clock: healthy, circuit closed", "├── notes: healthy, circuit closed"]
    assert supervisor == "└── supervisor: 1 sessions, 1 started"
    assert "8 tools, 0 calls running" in session
    assert any(line.endswith("notes: ready, 5 tools, 1 calls") for line in connections)


def test_one_line_for_each_node(run: Run) -> None:
    """However long a reason is, and whatever is in it."""
    with answering(http(STATUS % ("x" * 300 + "\\n\\u001b[2J"))) as url:
        result = run("status", "--url", url)

    assert result.exit_code == 0, result.stderr
    assert [line.lstrip(" ├└─") for line in result.stdout.splitlines()] == [
        "team 1",
        "a: degraded, circuit closed (slow)",
        "supervisor: 1 sessions, 2 started, draining",
        "session 0: 3 tools, 1 calls running, in use",
        "a: waiting, 3 tools, 4 calls (" + "x" * 300 + "  [2J)",
    ]


def test_nobody_there(run: Run) -> None:
    """Exit 1 and one line that names the URL and the reason. The scheme may be left out."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        result = run("status", "--url", address)

    assert result.exit_code == 1
    assert result.output == f"error: no status from {address}: Connection refused\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("hello"), "what answers there is not a vmcp-actors gateway"),
        (http("{}"), "what answers there is not a vmcp-actors gateway"),
        (http("[1]"), "what answers there is not a vmcp-actors gateway"),
        (http('{"supervisor": 3}'), "what answers there is not a vmcp-actors gateway of this version"),
        (http("", "404 Not Found"), "it answers with HTTP status 404"),
        (b"SSH-2.0-OpenSSH\r\n", "what answers there is not a vmcp-actors gateway"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", "what answers there is not a vmcp-actors gateway"),
    ],
    ids=["text", "empty", "list", "shape", "404", "ssh", "bytes"],
)
def test_something_else_there(run: Run, answer: bytes, reason: str) -> None:
    with answering(answer) as url:
        result = run("status", "--url", url)

    assert result.exit_code == 1
    assert result.output == f"error: no status from {url}: {reason}\n"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:port", "http://a b"])
def test_something_that_is_no_url(run: Run, url: str) -> None:
    """One line, no traceback."""
    result = run("status", "--url", url)

    assert result.exit_code == 1
    assert result.output.startswith(f"error: no status from {url}: ")
    assert result.output.count("\n") == 1
