"""What a session costs stays what it is, however many there are: memory, start, and the CPU of a call.

Claim: with five HTTP backends an idle session holds at most 400 KiB, and a call costs the same CPU with a thousand
sessions as with ten. Falsified by more memory, or by a cost that grows with the number of sessions. When all have been
deleted, descriptors and tasks are what they were: otherwise the run fails.
"""

from __future__ import annotations

import time
from typing import Any

import trio

from .client import INITIALIZE, McpClient, connect, encode
from .processes import Running, backend_and_gateway
from .soak.measure import left_behind, settled, take

BACKENDS = 5
WAVE = 50
CALLS = 1000
CALL = encode("tools/call", {"name": "b0_echo", "arguments": {}})


async def run(quick: bool) -> dict[str, Any]:
    """Measure. Returns raw samples by figure."""
    figures: dict[str, list[float]] = {}
    for sessions in (10, 100) if quick else (10, 100, 1000):
        async with backend_and_gateway(copies=BACKENDS) as (_, gateway):
            for name, value in (await _hold(gateway, sessions)).items():
                figures.setdefault(f"{name}, {sessions} sessions", []).append(value)
    return {"figures": figures, "backends": BACKENDS, "calls": CALLS}


async def _hold(gateway: Running, sessions: int) -> dict[str, float]:
    """Start so many sessions, use each of them, then end them."""
    async with connect(gateway.url) as first:
        await _use(first, 100)  # warm up
        before = await trio.to_thread.run_sync(lambda: take(gateway, seconds=0, operations=0))
        clients = [first.another() for _ in range(sessions)]
        began = time.perf_counter()
        for start in range(0, sessions, WAVE):
            async with trio.open_nursery() as nursery:
                for client in clients[start : start + WAVE]:
                    nursery.start_soon(client.post, INITIALIZE)
        seconds = time.perf_counter() - began
        await trio.sleep(1.0)  # until the streams that sessions open after their start are open
        held = gateway.resident_bytes() - before.resident
        for client in clients:
            await client.post(CALL)
        cpu = gateway.cpu_seconds()
        for number in range(CALLS):
            await clients[number % sessions].post(CALL)
        cpu = (gateway.cpu_seconds() - cpu) / CALLS
        for start in range(0, sessions, WAVE):
            async with trio.open_nursery() as nursery:
                for client in clients[start : start + WAVE]:
                    nursery.start_soon(client.delete)
    after = await settled(gateway, before, 30.0)
    # The connections of this client are gone, too.
    if left := left_behind(before, after):
        raise RuntimeError(f"after {sessions} sessions {', '.join(left)}")
    return {
        "starts/s": sessions / seconds,
        "KiB per idle session": held / sessions / 1024,
        "gateway CPU ms per call": cpu * 1000,
    }


async def _use(client: McpClient, calls: int) -> None:
    await client.post(INITIALIZE)
    for _ in range(calls):
        await client.post(CALL)
    await client.delete()
