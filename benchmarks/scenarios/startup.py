"""How long it takes until the gateway serves.

Claim: a gateway listens within two seconds of its start, with the demo backends as with a configuration of one HTTP
backend, since backends are connected by sessions and not by the start. Importing the library takes a part of that.
Falsified by a longer start. Each is the time from the start of the process; that of a bare Python is measured beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from ..processes import backend, over_http, serve, server
from ..scenario import Bench, Figures, Result

ROUNDS: Final = 7
MAX_SECONDS: Final = 2.0
BARE: Final = "python -c pass"
IMPORTS: Final = {
    BARE: "pass",
    "import vmcp_actors": "import vmcp_actors",
    "import vmcp_actors.cli": "import vmcp_actors.cli",
}


async def run(bench: Bench) -> Result:
    """Measure."""
    rounds = bench.rounds(ROUNDS)
    bench.expect(rounds)
    figures = Figures()
    async with server(backend()) as echo:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "vmcp.json"
            config.write_text(json.dumps({"backends": over_http([echo.url])}))
            commands = {"demo configuration": serve(), "one HTTP backend": serve("--config", str(config))}
            for number in range(rounds):
                bench.step(f"round {number + 1} of {rounds}")
                for name, code in IMPORTS.items():
                    figures.add(name, await _run(code), "s", "lower")
                for name, command in commands.items():
                    figures.add(f"until it listens, {name}", await _ready(command), "s", "lower", bound=MAX_SECONDS)
    return Result(figures.all())


async def _run(code: str) -> float:
    began = time.perf_counter()
    await trio.run_process([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


async def _ready(command: Sequence[str]) -> float:
    began = time.perf_counter()
    async with server(command):
        return time.perf_counter() - began
