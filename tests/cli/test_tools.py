"""`tools`: what a session would offer, and what did not come up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vmcp_actors.cli import tools
from vmcp_actors.config import backends_only
from vmcp_actors.gateway import open_gateway
from vmcp_actors.testing import MemoryBackend, MemorySession, backends

from .conftest import Run

DEMO_TOOLS = [
    "clock_now",
    "clock_countdown",
    "clock_sleep",
    "notes_begin",
    "notes_add",
    "notes_rollback",
    "notes_commit",
    "notes_list",
]
NOTES = f'transport: stdio, command: "{sys.executable}", args: [-m, vmcp_actors.demo.notes]'
TWICE_THE_SAME = f"""\
backends:
  - {{name: one, {NOTES}}}
  - {{name: two, {NOTES}}}
aggregation: {{conflictResolution: manual}}
"""


async def nothing(_: MemorySession, __: dict[str, Any]) -> str:
    return ""


async def printed(
    doubles: Sequence[MemoryBackend], monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False
) -> tuple[bool, str, str]:
    """What `print_tools` returns, and what it writes to stdout and stderr."""
    monkeypatch.setattr(tools, "open_gateway", partial(open_gateway, transport=backends(doubles)))
    out, err = (Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None) for _ in range(2))
    result = await tools.print_tools(backends_only([double.spec for double in doubles]), out, err)
    return result, out.file.getvalue(), err.file.getvalue()  # type: ignore[attr-defined]


async def test_a_line_for_each_tool_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    """Name, tab, first line of the description; names are never cut or wrapped."""
    name = "t" * 60
    double = MemoryBackend("b", {name: nothing, "plain": nothing})
    double.definitions[name] = {"description": f"  First {'very ' * 30}long line.\nSecond line."}

    result, out, err = await printed([double], monkeypatch)

    assert result
    assert out.splitlines() == [f"b_{name}\tFirst {'very ' * 30}long line.", "b_plain\t"]
    assert err == "connecting b\n"


async def test_a_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    """With a spinner on stderr while it connects."""
    double = MemoryBackend("b", {"echo": nothing}, connect_delay=1.0)
    double.definitions["echo"] = {"description": "Says it again."}

    result, out, err = await printed([double], monkeypatch, terminal=True)

    assert result
    assert "│ b_echo │ Says it again. │" in out
    assert "connecting b" in err


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_description_is_text(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any, *, terminal: bool) -> None:
    """A backend's words are neither markup of ours nor commands to the terminal."""
    double = MemoryBackend("b", {"see": nothing})
    double.definitions["see"] = {"description": "see [/docs] and [red]this\x1b]0;title\x07"}

    result, out, _ = await printed([double], monkeypatch, terminal=terminal)

    assert result
    assert "see [/docs] and [red]this ]0;title" in out
    assert "\x1b]0" not in out


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_backend_that_is_down(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any, *, terminal: bool) -> None:
    """It is named with its reason; the tools of the others are there."""
    up, down = MemoryBackend("up", {"echo": nothing}), MemoryBackend("down", down="not today")

    result, out, err = await printed([up, down], monkeypatch, terminal=terminal)

    assert not result
    assert "up_echo" in out
    assert "backend down: not today\n" in err


async def test_a_backend_that_never_answers(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    """It is waited for until its own connect timeout, not for ever."""
    result, _, err = await printed([MemoryBackend("mute", silent=True)], monkeypatch)

    assert not result
    assert err.splitlines()[-1].startswith("backend mute: ")


@pytest.mark.e2e
def test_the_demo_backends_without_a_configuration(run: Run) -> None:
    result = run("tools")

    assert result.exit_code == 0, result.stderr
    assert sorted(line.partition("\t")[0] for line in result.stdout.splitlines()) == sorted(DEMO_TOOLS)


@pytest.mark.e2e
def test_a_command_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """Exit 1 and the reason; the demo backend beside it is listed."""
    config = tmp_path / "vmcp.yaml"
    config.write_text(
        "backends:\n"
        f"  - {{name: notes, {NOTES}}}\n"
        "  - {name: gone, transport: stdio, command: /no/such/program}\n"
        "  - {name: nobody, transport: streamable-http, url: 'http://127.0.0.1:1/mcp'}\n"
    )

    result = run("tools", "--config", config)

    assert result.exit_code == 1
    assert "notes_begin\tStart a transaction.\n" in result.stdout
    assert "backend gone: cannot start '/no/such/program'" in result.stderr
    assert "backend nobody: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.e2e
def test_names_that_clash(run: Run, tmp_path: Path) -> None:
    """Strategy `manual` without overrides: one line that names the clashes, no traceback."""
    config = tmp_path / "vmcp.yaml"
    config.write_text(TWICE_THE_SAME)

    result = run("tools", "--config", config)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error: conflictResolution is manual and these names are offered by several backends" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_configuration(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "vmcp.yaml"
    config.write_text("backends: []\n")

    result = run("tools", "--config", config)

    assert result.exit_code == 1
    assert result.stderr == "error: backends: at least one backend is needed (in vmcp.yaml)\n"
