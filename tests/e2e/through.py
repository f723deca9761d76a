"""`python -m tests.e2e.through CLIENT URL`: runs a client of the conformance suite against a gateway in front of URL.

The suite gives its server's URL to what it tests; this puts the gateway in between, so that our side towards backends
is tested as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from .harness import gateway, write_config
from .suite import without_prefix


async def main(client: str, url: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), without_prefix(f"transport: streamable-http, url: '{url}'"))
        async with gateway(config) as served:
            done = await trio.run_process([sys.executable, client, served.url], check=False, stdout=subprocess.DEVNULL)
            return done.returncode
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(trio.run(main, *sys.argv[1:]))
