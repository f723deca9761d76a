"""Answers a constant to anything: what the load generator does against it is the most that it can do."""

from __future__ import annotations

from .tcp_server import Connection, Request, Server

BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%b"}]}}' % (b"x" * 100)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def answer(connection: Connection, _: Request) -> None:
    """The constant."""
    connection.send(ANSWER)


def main() -> None:
    """Serve until the process is ended."""
    server = Server(answer)
    print(f"ready {server.url}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
