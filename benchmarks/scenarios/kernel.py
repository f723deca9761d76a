"""What an actor costs: a call through its mailbox, and its whole life.

Claim: asking an actor and waiting for its reply, with a task and a cancel scope of its own, takes at most 60 µs, so
that beside a network hop the actors do not matter. Falsified by more. It runs in a process of its own that uses
`vmcp_actors.actors` and nothing else of the gateway.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import trio

from ..kernel_load import Kernel, decode
from ..scenario import Bench, Figures, Result

ROUNDS: Final = 7
MAX_CALL: Final = 60.0


async def run(bench: Bench) -> Result:
    """Measure."""
    rounds = bench.rounds(ROUNDS)
    bench.expect(rounds)
    figures = Figures()
    for number in range(rounds):
        bench.step(f"round {number + 1} of {rounds}")
        found = await _measured(bench.choose(20_000, 2_000))
        figures.add("call, one after the other", found.call, "µs", "lower", bound=MAX_CALL)
        figures.add("call, 100 at the same time", found.call_concurrent, "µs", "lower", bound=MAX_CALL)
        figures.add("start and stop of an actor", found.life, "µs", "lower")
        figures.add("task started and ended by a nursery", found.task, "µs")
    figures.relate("call / task", "call, one after the other", "task started and ended by a nursery", "lower")
    return Result(figures.all(), ["A task that does nothing is there to compare with: the least that a call costs."])


async def _measured(calls: int) -> Kernel:
    command = [sys.executable, "-m", "benchmarks.kernel_load", str(calls)]
    process = await trio.run_process(command, capture_stdout=True, stdin=subprocess.DEVNULL)
    return decode(process.stdout)
