"""One soak: a gateway, its backends, its clients, and what goes wrong."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import trio
from attrs import frozen

from ..processes import Running, server
from .faults import BackendProcess, Faults
from .measure import Sample, left_behind, settled, take, verdict
from .traffic import Traffic

SETTLE = 90.0
"""Seconds within which all must be given back after the last client has gone."""


@frozen
class Plan:
    """How long to soak, with what."""

    seconds: float
    operations: float
    workers: int
    seed: int
    faults: bool


async def soak(plan: Plan) -> dict[str, Any]:
    """Soak a gateway, and say what came of it."""
    a, b = BackendProcess(), BackendProcess()
    await a.start()
    await b.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "vmcp.yaml"
            config.write_text(_configuration(a, b))
            command = [sys.executable, "-m", "vmcp_actors", "serve", "--port", "0", "--config", str(config)]
            async with server(command) as gateway:
                faults = Faults(gateway.pid, config, a, b, plan.seed) if plan.faults else None
                return await _soaked(gateway, Traffic(gateway.url, plan.seed), faults, plan)
    finally:
        with trio.CancelScope(shield=True):
            await a.kill()
            await b.kill()


async def _soaked(gateway: Running, traffic: Traffic, faults: Faults | None, plan: Plan) -> dict[str, Any]:
    began = time.perf_counter()
    samples: list[Sample] = []

    async def sample() -> Sample:
        now = time.perf_counter() - began
        return await trio.to_thread.run_sync(lambda: take(gateway, seconds=now, operations=traffic.operations))

    before = await sample()
    async with trio.open_nursery() as working:
        working.start_soon(traffic.run, plan.workers)
        async with trio.open_nursery() as around:
            if faults is not None:
                around.start_soon(faults.run)
            while time.perf_counter() - began < plan.seconds and traffic.operations < plan.operations:
                await trio.sleep(1.0)
                samples.append(await sample())
            around.cancel_scope.cancel("it is over")
        traffic.stopping = True
    after = await settled(gateway, before, SETTLE)
    left = left_behind(before, after)
    return {
        "samples": samples,
        "outcomes": dict(traffic.outcomes),
        "faults": dict(faults.counts) if faults is not None else {},
        "before": attrs.asdict(before),
        "after": attrs.asdict(after),
        "wrong": [*traffic.wrong, *left],
        "verdict": verdict(samples, traffic.wrong, left),
    }


def _configuration(a: BackendProcess, b: BackendProcess) -> str:
    return f"""\
backends:
  - {{name: a, transport: streamable-http, url: "{a.url}"}}
  - {{name: b, transport: streamable-http, url: "{b.url}"}}
  - {{name: n, transport: stdio, command: {sys.executable}, args: ["-S", "{Path(__file__).parent / "child.py"}"]}}
sessions: {{maxPerClient: 1000, idleTimeout: 10s, readyTimeout: 2s}}
stateless: {{mode: lease, idleTimeout: 10s}}
operational:
  timeouts: {{default: 10s}}
"""
