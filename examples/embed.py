"""Embeds the supervisor in a trio program: sessions without any HTTP.

Two "users" work at the same time. Each has a session of its own, and with it its own transaction in the notes backend.

    python examples/embed.py
"""

from __future__ import annotations

import trio

from vmcp_actors.gateway import demo_config, open_gateway
from vmcp_actors.model import Identity
from vmcp_actors.sessions import SessionSupervisor


async def user(name: str, supervisor: SessionSupervisor) -> None:
    """Write two notes in a transaction, and commit it."""
    session = await supervisor.start_session(Identity("example", name))
    await session.call_tool("notes_begin")
    for number in (1, 2):
        await session.call_tool("notes_add", {"text": f"{name} writes {number}"})
    await session.call_tool("notes_commit")
    listing = await session.call_tool("notes_list")
    texts = [note["text"] for note in listing["structuredContent"]["notes"]]
    print(f"{name} sees {texts}")
    await session.close()


async def main() -> None:
    """Run a gateway inside this program; when the block ends, everything it started has ended."""
    async with open_gateway(demo_config()) as gateway:
        async with trio.open_nursery() as nursery:
            for name in ("ada", "grace"):
                nursery.start_soon(user, name, gateway.supervisor)
        print(f"{gateway.supervisor.statistics().started} sessions were started")


if __name__ == "__main__":
    trio.run(main)
