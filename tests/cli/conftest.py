"""Running commands inside the test's own process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from vmcp_actors.cli import main

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Invoke a command in this process, with none of the user's configuration."""
    monkeypatch.delenv("VMCP_CONFIG", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
