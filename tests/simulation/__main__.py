"""`python -m tests.simulation`: run seeds, and replay and shrink those that fail."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .run import Result, simulate

CHUNK = 20
"""Seeds that a process takes at a time."""


def main() -> int:
    """Run what the command line asks for. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed, and print its trace")
    parser.add_argument("--steps", type=int, help="end its world after so many steps")
    parser.add_argument("--shrink", action="store_true", help="find the fewest steps with which the seed fails")
    parser.add_argument("--seeds", type=int, default=1000, help="run so many seeds (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first seed that fails")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed, options.steps, shrinking=options.shrink)
    return _many(range(options.start, options.start + options.seeds), jobs=options.jobs, keep_going=options.keep_going)


def _replay(seed: int, steps: int | None, *, shrinking: bool) -> int:
    result = simulate(seed, steps, keep=not shrinking)
    if shrinking and not result.passed:
        result = simulate(seed, shrink(result).steps, keep=True)
    for line in result.trace:
        _print(line)
    _print(f"seed {seed}: {len(result.violations)} violations, trace {result.digest[:16]}")
    for violation in result.violations:
        _print(f"  {violation}")
    return 0 if result.passed else 1


def _many(seeds: range, *, jobs: int, keep_going: bool) -> int:
    began, failed = time.perf_counter(), 0
    counts: Counter[str] = Counter()
    with _processes(jobs, seeds) as results:
        for done, result in enumerate(results, 1):
            counts.update(result.counts)
            if not result.passed:
                failed += 1
                smallest = shrink(result)
                _print(f"\rseed {result.seed} fails: {result.violations[0]}\n  replay: {smallest.replay}")
                if not keep_going:
                    return 1
            if done % 50 == 0 or done == len(seeds):
                seconds = time.perf_counter() - began
                sys.stderr.write(f"\r{done} of {len(seeds)} seeds, {failed} failed, {seconds:.0f} s ")
                sys.stderr.flush()
    sys.stderr.write("\n")
    for name, count in sorted(counts.items()):
        _print(f"{count:9} {name}")
    return 1 if failed else 0


@contextmanager
def _processes(jobs: int, seeds: range) -> Iterator[Iterator[Result]]:
    """The results of the seeds, in any order, by so many processes; those that still run are ended with the body."""
    if jobs == 1:
        yield map(simulate, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool.imap_unordered(simulate, seeds, chunksize=CHUNK)


def shrink(failing: Result) -> Result:
    """The run of the same seed with the fewest steps that violates the same invariant.

    A world with fewer steps is the same up to its last one, so it is looked for by halves, and then one by one.
    """
    invariant = failing.violations[0].invariant

    def fails(steps: int) -> Result | None:
        result = simulate(failing.seed, steps)
        return result if any(violation.invariant is invariant for violation in result.violations) else None

    best = failing
    low = 0
    while low < best.steps:
        middle = (low + best.steps) // 2
        result = fails(middle)
        if result is not None:
            best = result
        else:
            low = middle + 1
    for steps in range(best.steps - 1, max(0, best.steps - 6), -1):
        best = fails(steps) or best
    return best


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
