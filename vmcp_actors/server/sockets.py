"""Bounds on connections that an ASGI application cannot set itself."""

from __future__ import annotations

import os
import socket
import sys


def bound_unacknowledged(listener: socket.socket, seconds: float) -> None:
    """Break connections whose peer acknowledges nothing for so long (RFC 5482). Accepted sockets inherit it. Linux.

    hypercorn shields its writes: without this bound, a client that no longer reads holds its task for ever.
    """
    if sys.platform == "linux" and listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def bound_own_listeners(seconds: float) -> int:
    """`bound_unacknowledged` for every listening socket of this process; returns how many there were.

    For when a server that we did not configure has opened them. Reads /proc, so it finds none elsewhere than on Linux.
    """
    found = 0
    for descriptor in _descriptors():
        try:
            with socket.socket(fileno=os.dup(descriptor)) as candidate:
                if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    bound_unacknowledged(candidate, seconds)
                    found += 1
        except OSError:
            continue  # not a socket, or closed meanwhile
    return found


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except FileNotFoundError:
        return []
