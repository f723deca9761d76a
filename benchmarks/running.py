"""Runs scenarios one after the other, and writes down what they find."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import trio
from rich.console import Console

from .candidates import sole_message
from .display import progress_of, show_chapter
from .machine import Machine
from .record import Chapter, Record
from .scenario import Bench, Result, Scenario


def run_all(scenarios: Sequence[Scenario], console: Console, *, quick: bool) -> Record:
    """Run them. One that fails says so in its chapter, and the next is run. Ctrl-C and SIGTERM
    leave nothing running, and raise KeyboardInterrupt.
    """
    from .peers import missing  # noqa: PLC0415  # they bring packages of their own

    began = datetime.now(UTC).isoformat(timespec="seconds")
    chapters = []
    for scenario in scenarios:
        chapter = _run(scenario, console, quick=quick)
        show_chapter(console, chapter)
        chapters.append(chapter)
    return Record(began, quick, Machine.here(), chapters, missing())


def _run(scenario: Scenario, console: Console, *, quick: bool) -> Chapter:
    began = time.monotonic()
    result, failure = None, None
    with progress_of(console, scenario) as display:
        try:
            result = trio.run(_until_signalled, scenario, Bench(quick, display))
        except Exception as error:
            failure = sole_message(error)
    if result is None and failure is None:
        raise KeyboardInterrupt
    return Chapter(scenario.name, scenario.claim, time.monotonic() - began, result or Result(), failure)


async def _until_signalled(scenario: Scenario, bench: Bench) -> Result | None:
    """Run a scenario. None when a signal has ended it; what it had started has ended then too."""
    result = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_signalled, nursery.cancel_scope)
        result = await scenario.run(bench)
        nursery.cancel_scope.cancel("the scenario has ended")
    return result


async def _cancel_when_signalled(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel("a signal")
