"""A warm tool call costs at most 0.25 ms of the gateway's CPU with its own HTTP server, 0.60 ms under hypercorn.

Claim: a call is one request on a kept connection, so what the gateway adds is HTTP twice and a few task switches.
Falsified by a CPU per call above the bound. Calls direct, and through a gateway of each kind, alternate round by round.
"""

from __future__ import annotations

import time
from typing import Any

import trio

from .client import INITIALIZE, connect, encode
from .processes import backend_and_gateway

CONCURRENT = 16


async def run(quick: bool) -> dict[str, Any]:
    """Measure. Returns raw samples by figure."""
    rounds, calls = (3, 500) if quick else (7, 4000)
    direct_call = encode("tools/call", {"name": "echo", "arguments": {}})
    gateway_call = encode("tools/call", {"name": "b0_echo", "arguments": {}})
    figures: dict[str, list[float]] = {"calls/s direct": []}
    async with backend_and_gateway(http="fast") as (backend, fast), backend_and_gateway(http="hypercorn") as (_, plain):
        gateways = {"fast": fast, "hypercorn": plain}
        for gateway in gateways.values():
            await _load(gateway.url, gateway_call, 200)  # warm up
        for _ in range(rounds):
            straight = await _load(backend.url, direct_call, calls)
            figures["calls/s direct"].append(calls / straight)
            for name, gateway in gateways.items():
                before = gateway.cpu_seconds()
                through = await _load(gateway.url, gateway_call, calls)
                cpu = (gateway.cpu_seconds() - before) / calls * 1000
                figures.setdefault(f"gateway CPU ms per call, {name}", []).append(cpu)
                figures.setdefault(f"calls/s through the gateway, {name}", []).append(calls / through)
                figures.setdefault(f"time of a call, {name} / direct", []).append(through / straight)
    return {"figures": figures, "calls": calls, "concurrent": CONCURRENT}


async def _load(url: str, body: bytes, calls: int) -> float:
    """Seconds for so many calls, from sessions of their own at the same time."""
    async with trio.open_nursery() as nursery:
        start, done = trio.Event(), trio.Event()
        working = CONCURRENT

        async def worker(*, task_status: trio.TaskStatus[None]) -> None:
            nonlocal working
            async with connect(url) as client:
                await client.post(INITIALIZE)
                task_status.started()
                await start.wait()
                for _ in range(calls // CONCURRENT):
                    await client.post(body)
                working -= 1
                if not working:
                    done.set()
                await done.wait()
                await client.delete()

        for _ in range(CONCURRENT):
            await nursery.start(worker)
        began = time.perf_counter()
        start.set()
        await done.wait()
        ended = time.perf_counter()
    return ended - began
