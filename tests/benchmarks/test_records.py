"""What becomes of results: JSON and back, a report, a comparison."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.compare import Change, changes, reservations
from benchmarks.machine import Machine
from benchmarks.record import Chapter, Record
from benchmarks.report import markdown
from benchmarks.scenario import Figure, Plot, Result
from benchmarks.tables import cell, matrix, number

MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "CPython 3.11", {"trio": "0.34"})


def record(samples: list[float], *, quick: bool = False, failure: str | None = None) -> Record:
    figures = [
        Figure("CPU per call", "ms", samples, "lower", 0.25, "base"),
        Figure("throughput", "calls/s", [4000.0], "higher", None, "base", limited=True),
    ]
    plots = [
        Plot("cpu", "bars", "CPU", "", "ms", {"": [("fast", 0.2), ("hypercorn", 0.6)]}, "y"),
        Plot("growth", "lines", "Growth", "clients", "ms", {"direct": [(1.0, 0.2), (100.0, 0.6)]}, "x"),
    ]
    result = Result(figures, ["A note."], plots)
    chapter = Chapter("per_call", "A call is cheap.\n\nClaim: it is.", 12.0, result, failure)
    return Record("2026-01-02T03:04:05+00:00", quick, MACHINE, [chapter], {"another gateway": "not installed"})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record([0.2, 0.3, 0.1])

    written.write(tmp_path / "results.json")

    assert Record.read(tmp_path / "results.json") == written


def test_something_else_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"chapters": []}')

    with pytest.raises(msgspec.ValidationError, match="began"):
        Record.read(tmp_path / "results.json")


def test_a_report_says_what_holds_what_was_limited_and_who_is_missing() -> None:
    text = markdown(record([0.2, 0.3, 0.1]), "plots")

    assert "| CPU per call | 0.2 ms | 0.1 … 0.3 | holds, but not in every round (≤ 0.25 ms) |" in text
    assert "| throughput | 4,000 calls/s | one sample | limited by the load generator |" in text
    assert "- another gateway: not installed" in text
    assert "- A note." in text
    assert "Claim: it is." in text
    assert "quick run" not in text


def test_a_report_says_what_does_not_hold_what_failed_and_that_it_was_quick() -> None:
    text = markdown(record([0.4], quick=True, failure="it broke"), "plots")

    assert "does not hold (≤ 0.25 ms)" in text
    assert "**Failed:** it broke" in text
    assert "nothing to quote" in text


def test_candidates_of_the_same_quantities_are_shown_side_by_side() -> None:
    figures = [
        Figure(f"{quantity}, {who}", "ms", [1.0, 2.0, 3.0]) for who in ("direct", "fast") for quantity in ("p50", "p99")
    ]
    alone = Figure("p50, fast / direct", "×", [1.0])

    found, others = matrix([*figures, alone])

    assert found is not None
    assert found.quantities == ["p50 (ms)", "p99 (ms)"]
    assert list(found.rows) == ["direct", "fast"]
    assert cell(found.rows["fast"]["p99 (ms)"]) == "2 (1 … 3)"
    assert others == [alone]


def test_a_report_is_made_of_a_file_without_measuring_and_its_links_are_relative(tmp_path: Path) -> None:
    record([0.2]).write(tmp_path / "results.json")
    page = tmp_path / "docs" / "benchmarks.md"

    done = CliRunner().invoke(main, ["--from", str(tmp_path / "results.json"), "--report", str(page)])

    assert done.exit_code == 0, done.output
    links = re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
    assert links == ["benchmarks/cpu.png", "benchmarks/growth.png"]
    assert all((page.parent / link).read_bytes().startswith(b"\x89PNG") for link in links)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([1.0, 2.0, 3.0], [3.0, 4.0, 5.0], "within the ranges"),
        ([1.0, 2.0, 3.0], [3.1, 4.0, 5.0], "worse"),
        ([4.0, 5.0], [1.0, 2.0], "better"),
        ([4.0], [1.0], "no range"),
    ],
)
def test_a_change_counts_when_the_ranges_do_not_touch(old: list[float], new: list[float], verdict: str) -> None:
    before, after = (Figure("x", "ms", samples, "lower") for samples in (old, new))

    assert Change("per_call", before, after).verdict == verdict


def test_what_is_better_when_it_is_higher_is_compared_the_other_way_round() -> None:
    before, after = (Figure("x", "calls/s", [sample, sample], "higher") for sample in (1.0, 2.0))

    assert Change("per_call", before, after).verdict == "better"


def test_only_what_both_runs_have_is_compared() -> None:
    old, new = record([0.2]), record([0.3])
    old.chapters[0].result.figures.pop()

    found = changes(old, new)

    assert [(change.new.label, change.ratio) for change in found] == [("base: CPU per call", pytest.approx(1.5))]


def test_comparing_a_quick_run_is_said_to_be_worth_little() -> None:
    assert any("quick" in text for text in reservations(record([0.2]), record([0.2], quick=True)))


def test_the_command_compares_two_files(tmp_path: Path) -> None:
    for name, samples in (("old", [1.0, 1.1]), ("new", [2.0, 2.2])):
        record(samples).write(tmp_path / name)

    done = CliRunner().invoke(main, ["--from", str(tmp_path / "new"), "--compare", str(tmp_path / "old")])

    assert done.exit_code == 0, done.output
    assert "2.00" in done.output
    assert "worse" in done.output


def test_an_unknown_scenario_is_refused() -> None:
    done = CliRunner().invoke(main, ["--only", "per_call,nothing", "--list"])

    assert done.exit_code == 2
    assert "nothing" in done.output


def test_scenarios_are_listed_with_their_claims() -> None:
    done = CliRunner().invoke(main, ["--list", "--only", "kernel"])

    assert done.exit_code == 0
    assert done.output.startswith("kernel\n")
    assert "Falsified by" in done.output


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.01234, "0.0123"), (12.34, "12.3"), (1234.5, "1,234"), (99.99, "100")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text
