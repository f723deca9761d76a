"""The command line: `vmcp-actors serve | validate | init | tools | status`."""

from .main import main

__all__ = ["main"]
