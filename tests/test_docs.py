"""Examples and documentation are programs that somebody will paste: they are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[pytest.param]:  # type: ignore[valid-type]
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text())):
            if match[1] == language:
                found.append(pytest.param(page, match[2], id=f"{page.relative_to(ROOT)}-{number}"))
    return found


def run_python(path: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, path], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_example_embed_keeps_the_users_apart() -> None:
    """Each user sees its own notes, and the program ends by itself."""
    output = run_python(str(ROOT / "examples" / "embed.py"), ROOT)

    assert "ada sees ['ada writes 1', 'ada writes 2']" in output
    assert "grace sees ['grace writes 1', 'grace writes 2']" in output
    assert output.endswith("2 sessions were started\n")


@pytest.mark.e2e
@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_blocks_run(page: Path, code: str, tmp_path: Path) -> None:
    """A block that a reader pastes into a file does what it says, without an error."""
    (tmp_path / "block.py").write_text(code)

    run_python("block.py", tmp_path)


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_blocks_are_valid_configurations(page: Path, text: str) -> None:
    """Every configuration in the documentation is one that the gateway accepts."""
    from vmcp_actors.config import parse_config

    named = {name: f"value of {name}" for name in re.findall(r"\$\{(?:env:)?(\w+)", text)}
    config = parse_config(text, source=str(page), environ=named)

    assert config.backends


def test_links_between_pages_lead_somewhere() -> None:
    """No page links to a file that is not there."""
    broken = [
        f"{page.relative_to(ROOT)} → {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_make_targets_that_the_readme_names_exist() -> None:
    """The two commands are really there."""
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^make ([\w-]+)$", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert named == ["run", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_every_cell_of_the_protocol_matrix_is_a_test() -> None:
    """The table has all tests of the bridges, each in its place, and names no test that is not there."""
    page = (ROOT / "docs" / "explain" / "protocol-matrix.md").read_text()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/server/test_bridges.py", "tests/e2e"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    collected = {line for line in done.stdout.splitlines() if "::" in line}
    cells = re.findall(r"`(test_\w+\[\w+-\w+\])`", page)
    bridges = {node for node in collected if node.startswith("tests/server/test_bridges.py")}
    assert {f"tests/server/test_bridges.py::{cell}" for cell in cells} == bridges
    real = re.findall(r"`(tests/e2e/\S+::\w+)`", page)
    assert len(real) == 7
    assert set(real) <= {node.partition("[")[0] for node in collected}
    for row in re.findall(r"^\| [\w ]+ \| `test_.*$", page, re.MULTILINE):
        ids = re.findall(r"\[(\w+-\w+)\]", row)
        assert ids == ["stateful-stateful", "stateful-stateless", "stateless-stateful", "stateless-stateless"]
