"""Floods of one backend leave the others their turns."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from vmcp_actors.model import BackendSpec, HttpEndpoint
from vmcp_actors.transports.http import open_http


async def test_thousands_of_messages_in_one_read_leave_others_their_turns(autojump_clock: MockClock) -> None:
    spec = BackendSpec("flood", HttpEndpoint("http://127.0.0.1:1/mcp"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_http(spec) as dispatcher, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(1600):
            await dispatcher.incoming('{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}', None)
        nursery.cancel_scope.cancel("all are in")
    assert turns >= 90
