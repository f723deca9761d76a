"""The echo backend as a child process: `python -m benchmarks.stdio_backend [--bytes N]`, a message a line."""

from __future__ import annotations

import argparse
import sys

from .echo_answers import answer, decode


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=100)
    size: int = parser.parse_args().bytes
    output = sys.stdout.buffer
    for line in sys.stdin.buffer:
        message = decode(line)
        if message.id and message.method:
            output.write(answer(message, size=size, stateless=False) + b"\n")
            output.flush()


if __name__ == "__main__":
    main()
