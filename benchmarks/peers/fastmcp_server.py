# mypy: ignore-errors
"""FastMCP in front of a backend, in its own virtual environment: `fastmcp_server.py URL PORT proxy|stateful`."""

import sys

from fastmcp import FastMCP
from fastmcp.server import create_proxy
from fastmcp.server.providers.proxy import FastMCPProxy, StatefulProxyClient


def server(url: str, kind: str) -> FastMCP:
    """The server."""
    if kind == "stateful":
        client = StatefulProxyClient(url)
        return FastMCPProxy(client_factory=client.new_stateful, name="stateful")
    outer = FastMCP("proxy")
    outer.mount(create_proxy(url))
    return outer


if __name__ == "__main__":
    server(sys.argv[1], sys.argv[3]).run(
        transport="http", host="127.0.0.1", port=int(sys.argv[2]), show_banner=False, log_level="error"
    )
