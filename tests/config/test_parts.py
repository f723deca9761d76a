"""The parts below the files: durations, environment, documents, problems."""

from __future__ import annotations

from typing import Any

import pytest
from cattrs.errors import ClassValidationError
from hypothesis import given
from hypothesis import strategies as st

from vmcp_actors.config.documents import read_document, to_yaml
from vmcp_actors.config.durations import MAX_SECONDS, format_duration, parse_duration
from vmcp_actors.config.environment import expand
from vmcp_actors.config.problems import Expanded, Problem, flatten, in_lines, show, show_url

# --- durations --------------------------------------------------------------------------------------------------------

NANOSECONDS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "ns": 1,
}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(list(NANOSECONDS))), min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(n * NANOSECONDS[unit] for n, unit in parts) / 1e9, rel=1e-12)


@given(st.integers(0, 10**15))
def test_durations_round_trip(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1.5s", 1.5), (".5s", 0.5), ("1.m", 60.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "1d", "-1s", "+1s", "1 s", " 1s", "1S", "1s\n", "1.2.3s", "٣s"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_durations_end() -> None:
    assert parse_duration("2562047h") < MAX_SECONDS
    for text in ("2562048h", "9" * 400 + "s"):
        with pytest.raises(ValueError, match="too long"):
            parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "1m30s"), (3600, "1h"), (0, "0s"), (0.5, "500ms"), (2.5e-5, "25us"), (1e-9, "1ns"), (61.25, "1m1.25s")],
)
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


# --- the environment --------------------------------------------------------------------------------------------------

ENVIRON = {"A": "1", "EMPTY": "", "BRACES": "${A}"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("${env:A}-${A}", "1-1"),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${NONE:-}", ""),
        ("${env:NONE:-a:-b c}", "a:-b c"),
        ("$${A}", "${A}"),
        ("$A $ {A} $$", "$A $ {A} $$"),
        ("${BRACES}", "${A}"),
    ],
)
def test_expansion(text: str, value: str) -> None:
    assert expand({"k": [text]}, ENVIRON) == ({"k": [value]}, [])


@pytest.mark.parametrize("text", ["${NONE}", "${", "x${A", "${}", "${1}", "${A-b}", "${input:a}", "${workspaceFolder}"])
def test_what_cannot_be_expanded_is_a_problem_with_its_path(text: str) -> None:
    tree, problems = expand({"k": [1, text]}, ENVIRON)
    assert [problem.path for problem in problems] == [("k", 1)]
    assert tree == {"k": [1, text]}


@given(st.text(), st.text())
def test_what_is_expanded_is_never_shown(before: str, value: str) -> None:
    tree, problems = expand(before.replace("$", "") + "${A}", {"A": value})
    assert problems == []
    assert show(tree) == show_url(tree) == "the value of ${A}"


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_placeholders_stays(text: str) -> None:
    tree, problems = expand(text, {})
    assert (tree, problems) == (text, [])
    assert not isinstance(tree, Expanded)


# --- documents --------------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["on", "no", "1e3", "0o7", "1:30", "2026-11-23", "~", "", "<<", "0x1", ".5", "1_000", ".inf"])
)
KEYS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["on", "1", "null", "y"])
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10)


@given(st.dictionaries(KEYS, TREES))
def test_yaml_round_trips(document: dict[str, Any]) -> None:
    again = read_document(to_yaml(document, comments=["a comment"]), "vmcp.yaml")
    assert again == document
    assert repr(again) == repr(document)


def test_comment_marks_in_json_strings_are_text() -> None:
    text = '{"a": "http://x/*y*/", /* "b": 1, */ "c": "\\"//", } // end'
    assert read_document(text, "a.json") == {"a": "http://x/*y*/", "c": '"//'}


# --- problems ---------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="hunter2'\\")))
def test_credentials_in_urls_are_not_shown(noise: str) -> None:
    for url in (
        f"https://{noise}hunter2@host/",
        f"hunter2{noise}@host",
        f"http://h/?{noise}hunter2",
        f"h#{noise}hunter2",
    ):
        assert "hunter2" not in show_url(url)


def test_long_values_are_cut() -> None:
    assert len(show("x" * 1000)) < 70


def test_a_bug_in_a_hook_is_not_a_problem_of_the_file() -> None:
    with pytest.raises(ZeroDivisionError):
        list(flatten(ClassValidationError("", [ZeroDivisionError()], int)))


def test_lines_are_in_the_order_of_the_file_and_none_is_there_twice() -> None:
    tree = {"b": [1, {"x": 1, "a": 2}], "a": 3}
    paths: list[tuple[str | int, ...]] = [("a",), ("z",), ("b", 1, "a"), ("b", 1, "x"), ("b", 7, "q"), (), ("a",)]
    lines = in_lines([Problem(path, "t") for path in paths], tree, "f")
    assert lines == [f"{at}: t (in f)" for at in ("top level", "b[1].x", "b[1].a", "b[7].q", "a", "z")]
