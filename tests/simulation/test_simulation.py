"""Worlds from seeds: hundreds of them hold all invariants, and a seed is one world wherever it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import takewhile

import pytest

from .mutants import MUTANTS, Mutant, Patch, caught
from .run import simulate
from .schedule import Steps

SEEDS = 300
CHUNK = 25
PRINT = "from tests.simulation.run import simulate; print(*(simulate(seed).digest for seed in range(8)))"


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_all_invariants_hold(start: int) -> None:
    """If not: the command that shows it again, with `--shrink` for the smallest world."""
    for seed in range(start, start + CHUNK):
        result = simulate(seed)
        assert result.passed, f"{result.violations[0]}\n  replay: {result.replay}"


@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_a_seed_gives_one_schedule_and_one_trace(seed: int) -> None:
    """Down to every step of every task."""
    runs = []
    for _ in range(2):
        steps = Steps()
        runs.append((simulate(seed, instruments=(steps,)).digest, steps.digest, steps.count))
    assert runs[0] == runs[1]


def test_a_seed_gives_the_same_trace_in_another_process() -> None:
    """Whatever the hashes of strings are there."""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.split() == [simulate(seed).digest for seed in range(8)]


def test_fewer_steps_are_the_beginning_of_the_same_world() -> None:
    """That is what makes shrinking work."""
    whole, part = simulate(3, keep=True), simulate(3, steps=10, keep=True)
    common = list(takewhile(lambda lines: lines[0] == lines[1], zip(whole.trace, part.trace, strict=False)))
    assert len(common) > 10
    assert whole.digest != part.digest


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_caught(mutant: Mutant | Patch) -> None:
    """A simulation that finds nothing proves nothing, unless it would have found something."""
    assert caught(mutant, range(1000)) is not None
