"""Bounds on connections that an ASGI application cannot set itself."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator


def bound_unacknowledged(listener: socket.socket, seconds: float) -> None:
    """Break connections whose peer acknowledges nothing for so long (RFC 5482). Accepted sockets inherit it. Linux.

    hypercorn shields its writes: without this bound, a client that no longer reads holds its task for ever.
    """
    if sys.platform == "linux" and listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def bound_own_listeners(seconds: float) -> int:
    """`bound_unacknowledged` for every listening socket of this process; returns how many there were.

    For when a server that we did not configure has opened them. Finds none on systems without /proc.
    """
    found = 0
    for candidate in _own_sockets():
        if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            bound_unacknowledged(candidate, seconds)
            found += 1
    return found


def hang_up(port: int) -> int:
    """Break every connection of this process on a local port, now; returns how many there were.

    The last step of a shutdown: it wakes writers that wait, shielded, for clients that do not read.
    """
    broken = 0
    for candidate in _own_sockets():
        try:
            name, _ = candidate.getsockname(), candidate.getpeername()
            if name[1] == port:
                candidate.shutdown(socket.SHUT_RDWR)
                broken += 1
        except (OSError, IndexError):
            continue  # not connected, or not an Internet socket
    return broken


def _own_sockets() -> Iterator[socket.socket]:
    """Every socket of this process, as a duplicate that is closed again."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return  # no /proc, or no descriptor left to read it with
    for name in names:
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            candidate = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # closed meanwhile
        with candidate:
            yield candidate
