"""Every file in `files/broken` fails with exactly the lines that follow its `#--`: all of them, at once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmcp_actors.config import load_config, parse_config
from vmcp_actors.errors import ConfigError

BROKEN = sorted(Path(__file__).parent.joinpath("files", "broken").iterdir())
ENVIRON = {"SECRET": "hunter2{", "PORT": "8080", "OVERRIDE": "hunter2"}


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
def test_a_broken_file_gives_exactly_its_lines(file: Path) -> None:
    text, expected = file.read_text().split("#--\n")
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source=f"/etc/{file.name}", environ=ENVIRON)
    assert list(caught.value.problems) == [f"{line} (in {file.name})" for line in expected.splitlines()]
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top level: cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "vmcp.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)


def test_a_control_character_is_named_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("name: x\nbackends: \x01\n", source="vmcp.yaml")
    assert caught.value.problems == ("line 2: special characters are not allowed (in vmcp.yaml)",)


@pytest.mark.parametrize(
    ("text", "source"),
    [("[" * 20000, "a.yaml"), ("[" * 200000, "a.json"), ("[" * 600 + "]" * 600, "b.json"), ("a: &a [*a]", "vmcp.yaml")],
)
def test_nesting_without_end_is_refused(text: str, source: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_config(text, source=source)


def test_aliases_of_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(ConfigError, match="too many values"):
        parse_config("\n".join(lines), source="vmcp.yaml")


def test_two_documents_in_one_file() -> None:
    with pytest.raises(ConfigError, match="line 2, column 1: but found another document"):
        parse_config("name: x\n---\nname: y\n", source="vmcp.yaml")
