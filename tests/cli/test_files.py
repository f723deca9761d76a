"""`validate` and `init`: commands that read and write files, and nothing else."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.logging import RichHandler

import vmcp_actors
from vmcp_actors.config import load_config

from .conftest import Run

FILES = Path(__file__).parent.parent / "config" / "files"
BROKEN = sorted((FILES / "broken").iterdir())
COMMANDS = sys.modules["vmcp_actors.cli.main"]


# --- validate ---------------------------------------------------------------------------------------------------------


def test_validate_a_toolhive_file(run: Run) -> None:
    """It is valid; what has no effect is named on one line, which is not wrapped."""
    result = run("validate", "--config", FILES / "good" / "toolhive.yaml")

    assert result.exit_code == 0
    assert result.stdout == f"{FILES / 'good' / 'toolhive.yaml'} is valid: 2 backends\n"
    [warning] = result.stderr.splitlines()
    assert warning.startswith("warning: ignored, since nothing here reads them yet: ")
    assert "compositeTools" in warning
    assert "operational.failureHandling.statusReportingInterval" in warning


def test_validate_a_claude_desktop_file(run: Run) -> None:
    """The disabled server does not count; the renamed one is named."""
    result = run("validate", "--config", FILES / "good" / "claude_desktop_config.json")

    assert result.exit_code == 0
    assert result.stdout.endswith("is valid: 2 backends\n")
    assert 'mcpServers["My Notes"] is called My-Notes here' in result.stderr


def test_validate_one_backend_says_backend(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"a": {"command": "x"}}}')

    assert run("validate", "--config", path).output == f"{path} is valid: 1 backend\n"


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
def test_validate_lists_every_problem(run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, nothing on stdout, and on stderr a line for each problem, in order, none of them wrapped."""
    for name, value in {"SECRET": "hunter2{", "PORT": "8080", "OVERRIDE": "hunter2"}.items():
        monkeypatch.setenv(name, value)
    text, expected = file.read_text().split("#--\n")
    path = tmp_path / file.name
    path.write_text(text)

    result = run("validate", "--config", path)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"error: {line} (in {file.name})" for line in expected.splitlines()]


def test_validate_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("validate", "--config", tmp_path / "none.yaml")

    assert result.exit_code == 1
    assert result.stderr == f"error: top level: cannot be read: No such file or directory (in {tmp_path}/none.yaml)\n"


def test_validate_takes_the_file_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without = run("validate")
    monkeypatch.setenv("VMCP_CONFIG", str(FILES / "good" / "toolhive.yaml"))
    with_variable = run("validate")

    assert without.exit_code == 2
    assert "--config" in without.stderr
    assert with_variable.exit_code == 0


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_writes_a_valid_configuration(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = run("init")

    assert result.exit_code == 0
    assert result.stdout == "wrote vmcp.yaml\n"
    assert run("validate", "--config", "vmcp.yaml").exit_code == 0
    assert [spec.name for spec in load_config("vmcp.yaml").backends] == ["time"]


@pytest.mark.parametrize("name", ["claude_desktop_config.json", "cursor_mcp.json"])
def test_init_from_a_clients_file_means_the_same(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is the same gateway as the client's file itself; placeholders stay placeholders."""
    monkeypatch.setenv("LINEAR_TOKEN", "hunter2")
    source, output = FILES / "good" / name, tmp_path / "vmcp.yaml"

    result = run("init", "--from", source, "--output", output)

    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"wrote {output}\n"
    assert load_config(output).backends == load_config(source).backends
    assert "hunter2" not in output.read_text()


def test_init_from_a_file_with_a_byte_order_mark(run: Run, tmp_path: Path) -> None:
    """Editors on Windows write one; `serve --config` takes such a file, so `init` does."""
    source, output = tmp_path / "mcp.json", tmp_path / "vmcp.yaml"
    source.write_text('{"mcpServers": {"a": {"command": "größe"}}}', encoding="utf-8-sig")

    result = run("init", "--from", source, "--output", output)

    assert result.exit_code == 0, result.stderr
    assert load_config(output).backends == load_config(source).backends


def test_init_never_overwrites(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "vmcp.yaml"
    output.write_text("mine")

    result = run("init", "--output", output)

    assert result.exit_code == 1
    assert result.stderr == f"error: {output} exists already; name another file with --output\n"
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "error: {source}: No such file or directory"),
        (b"\xff\xfe\xfa", "error: {source}: not a text file"),
        (b'{"mcpServers": {"a" 1}}', "error: line 1, column 21: Expecting ':' delimiter (in mcp.json)"),
        (b'{"mcpServers": {"a": {}}}', "error: mcpServers.a: needs a command or a url (in mcp.json)"),
        (b'{"name": "x"}', "error: top level: expected mcpServers or servers (in mcp.json)"),
    ],
    ids=["missing", "binary", "syntax", "server", "other"],
)
def test_init_from_a_file_that_cannot_be_used(run: Run, content: bytes | None, line: str, tmp_path: Path) -> None:
    """One line, exit 1, and no output file."""
    source, output = tmp_path / "mcp.json", tmp_path / "vmcp.yaml"
    if content is not None:
        source.write_bytes(content)

    result = run("init", "--from", source, "--output", output)

    assert result.exit_code == 1
    assert result.stderr == line.format(source=source) + "\n"
    assert not output.exists()


def test_init_into_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("init", "--output", tmp_path / "none" / "vmcp.yaml")

    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path}/none/vmcp.yaml: No such file or directory\n"


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_version_of_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmcp_actors", "--version"], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == f"vmcp-actors, version {vmcp_actors.__version__}\n"


def test_every_command_has_help(run: Run) -> None:
    for command in ("serve", "validate", "init", "tools", "status"):
        result = run(command, "-h")
        assert result.exit_code == 0
        assert result.output.startswith(f"Usage: main {command} [OPTIONS]")


@pytest.mark.parametrize(
    ("flags", "level"),
    [((), logging.WARNING), (("-v",), logging.INFO), (("-vv",), logging.DEBUG), (("-vvv",), logging.DEBUG)],
    ids=["none", "v", "vv", "vvv"],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_verbosity(
    run: Run, flags: tuple[str, ...], level: int, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is logged, and that colours are for terminals only."""
    configured: dict[str, object] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **options: configured.update(options))
    monkeypatch.setattr(COMMANDS, "err", Console(file=StringIO(), force_terminal=terminal))

    run(*flags, "validate", "--config", FILES / "good" / "cursor_mcp.json")

    [handler] = configured["handlers"]  # type: ignore[misc]
    assert configured["level"] == level
    assert isinstance(handler, RichHandler) is terminal


def test_the_printed_client_configuration_is_json() -> None:
    """What `serve` asks the reader to paste can be parsed."""
    from vmcp_actors.cli.serve import _announce

    console = Console(file=StringIO(), width=40)
    _announce(console, load_config(FILES / "good" / "toolhive.yaml"), ["http://127.0.0.1:1"], demo=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    [pasted] = [json.loads(line) for line in lines if line.strip().startswith("{")]
    assert pasted == {"mcpServers": {"vmcp": {"type": "http", "url": "http://127.0.0.1:1/mcp"}}}
