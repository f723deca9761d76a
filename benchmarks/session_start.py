"""Sessions start at 60 a second or more with two backends, and an idle one with five holds at most 400 KiB.

Claim: backends are connected in parallel and clients share one TLS context, so a session costs little.
Falsified by a lower rate or more memory. The rate is of bursts of sessions started at the same time.
"""

from __future__ import annotations

import time
from typing import Any

import trio

from .client import INITIALIZE, connect
from .processes import Running, backend_and_gateway

BURST = 50
SETTLE = 0.5
"""Seconds until the streams that a session opens after its start are open too."""


async def run(quick: bool) -> dict[str, Any]:
    """Measure. Returns raw samples by figure."""
    rounds = 2 if quick else 5
    figures: dict[str, list[float]] = {"session starts/s, 2 backends": [], "KiB per idle session, 5 backends": []}
    async with backend_and_gateway(copies=2) as (_, gateway):
        await _burst(gateway, BURST)  # warm up
        for _ in range(rounds):
            seconds, _ = await _burst(gateway, BURST)
            figures["session starts/s, 2 backends"].append(BURST / seconds)
    for _ in range(rounds):
        # A new gateway each time: one that has freed memory would not grow again.
        async with backend_and_gateway(copies=5) as (_, gateway):
            await _burst(gateway, 1)
            _, held = await _burst(gateway, BURST)
            figures["KiB per idle session, 5 backends"].append(held / BURST / 1024)
    return {"figures": figures, "burst": BURST}


async def _burst(gateway: Running, sessions: int) -> tuple[float, int]:
    """Start many sessions at once, then end them; the seconds it took, and the bytes that they held."""
    before = gateway.resident_bytes()
    async with connect(gateway.url) as first:
        clients = [first.another() for _ in range(sessions)]
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.post, INITIALIZE)
        seconds = time.perf_counter() - began
        await trio.sleep(SETTLE)
        held = gateway.resident_bytes() - before
        for client in clients:
            await client.delete()
    return seconds, held
