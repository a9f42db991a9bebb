"""The summary's lines for a terminal: what they say, and that they fit."""

from __future__ import annotations

import pytest

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.reporting.figures import Sheet, statistics_lines
from pytest_manifest.schema import Mismatch
from pytest_manifest.text import cells
from tests.unit.analysis_support import INFO, attempt, error, record


def lines_of(*records: EntryRecord, width: int = 80) -> list[str]:
    sheet = Sheet(width=width, all=True)
    return [line.text for line in statistics_lines(statistics(records, INFO), sheet)]


def causes_of(*records: EntryRecord, width: int = 80) -> list[str]:
    lines = lines_of(*records, width=width)
    return lines[lines.index("  failures by cause") + 1 :]


def unmet(name: str, expected: str, actual: str) -> EntryRecord:
    found = [Mismatch(path="result.title", expected=expected, actual=actual)]
    return record(name, "failed", mismatches=found)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_expected_and_actual_are_told_in_any_window(width: int) -> None:
    """Where both have no room in a line, each has one of its own."""
    long = [unmet(f"e-{n}", "'" + "x" * 78 + "'", "'" + "y" * 78 + "'") for n in range(4)]
    lines = causes_of(*long, width=width)
    assert max(map(len, lines[:4])) <= width
    assert lines[1].strip().startswith("'yyy")
    assert lines[1].endswith("yyy'")
    assert lines[2].strip().startswith("where 'xx")
    assert lines[2].endswith("xx' was expected")

    short = causes_of(*(unmet(f"e-{n}", "2", "1") for n in range(4)), width=width)
    assert short[1].strip() == "1 where 2 was expected"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_long_message_has_two_lines(width: int) -> None:
    """Its beginning says what happened, and its end what to do; wide characters fit as well."""
    for word in ("word ", "x" * 70, "映画"):
        message = f"begin {word * 30} end"
        records = [record(f"e-{n}", "failed", error=error("E", message)) for n in range(4)]
        told = causes_of(*records, width=width)[1:3]
        assert told[0].strip().startswith("begin ")
        assert told[1].endswith(" end")
        assert max(map(cells, told)) <= width


@pytest.mark.parametrize("text", ["two words " * 30, "映画" * 100, "x" * 300, "映 " * 99, "", "a"])
@pytest.mark.parametrize("width", [40, 61])
def test_a_wrapped_sentence_fits_and_is_whole(text: str, width: int) -> None:
    lines = list(Sheet(width=width).wrapped(text, indent=2, hanging=4))
    assert max(map(cells, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(line.startswith("      ") for line in lines[1:])
    if text.startswith("two"):
        assert all(line.endswith(("two", "words")) for line in lines)


def block(*records: EntryRecord, sheet: Sheet) -> list[str]:
    return [line.text for line in statistics_lines(statistics(records, INFO), sheet)]


def test_many_tasks_and_causes_are_cut_short_unless_all_is_wanted() -> None:
    records = [
        record(f"e-{n}", "failed", task=f"jobs.t{n:02}", error=error(message=f"{n}"), place=f"{n}")
        for n in range(25)
    ]
    short = block(*records, sheet=Sheet())
    assert "  and 5 more tasks (-v shows all)" in short
    assert "    and 15 more causes (-v shows all)" in short
    whole = block(*records, sheet=Sheet(all=True))
    assert sum(line.startswith("  jobs.t") for line in whole) == 2 * 25, "counts, and times"
    assert sum("ValueError at" in line for line in whole) == 25
    assert "-v" not in "\n".join(whole)


def test_a_small_run_has_no_statistics_unless_all_is_wanted() -> None:
    records = [record(f"e-{n}") for n in range(19)]
    assert block(*records, sheet=Sheet()) == []
    assert block(*records, record("e-19"), sheet=Sheet()) != []
    assert block(*records, sheet=Sheet(all=True)) != []


def test_retries_are_counted() -> None:
    again = record("a", "passed", attempt(retries=2))
    lines = block(again, *(record(f"e-{n}") for n in range(19)), sheet=Sheet())
    assert "  2 retries" in lines


@pytest.mark.parametrize("width", [60, 72])
def test_all_of_it_fits_a_narrow_window(width: int) -> None:
    """Long ids, tasks, messages and rare columns."""
    failed = [
        record(f"{'x' * 150}{n}", "failed", error=error("KeyError", "w" * 300), task="jobs.wrong")
        for n in range(8)
    ]
    good = [record(f"d-{n}", task="jobs.double") for n in range(12)]
    waiting = [record("w", None), record("s", "skipped"), record("u", "unknown")]
    lines = block(*failed, *good, *waiting, sheet=Sheet(width=width))
    assert [line for line in lines if cells(line) > width] == []
    assert any("KeyError" in line for line in lines)
