"""Tests that are known to fail by chance are named, run again, counted, and borne until a day."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from tests import flaky

ENTRY = """
[[test]]
id = "test_it.py::test_chance"
cause = "the second look comes before the first"
until = 2026-03-04
"""
DAY = date(2026, 3, 4)
TESTS = """
import pytest

tries = []

@pytest.mark.parametrize("n", [1])
def test_chance(n):
    tries.append(n)
    assert len(tries) == 3

def test_other():
    assert len(tries) == 0
"""


def session(pytester: pytest.Pytester, day: date) -> pytest.RunResult:
    """Run a test that passes the third time, and one that nobody has named, on a day."""
    path = pytester.path / "flaky.toml"
    path.write_text(ENTRY, "utf-8")
    pytester.makepyfile(test_it=TESTS)
    pytester.makeconftest(f"""
        from datetime import date
        from pathlib import Path
        from tests import flaky

        def pytest_collection_modifyitems(items):
            flaky.mark(items, flaky.read(Path({str(path)!r})), date.fromisoformat("{day}"))
    """)
    return pytester.runpytest_inprocess()


def test_one_that_is_named_is_tried_three_times_and_counted(pytester: pytest.Pytester) -> None:
    """The other one, which fails the first time, is not."""
    counts = session(pytester, DAY).parseoutcomes()
    assert counts == {"passed": 1, "failed": 1, "rerun": 2}


def test_past_its_day_it_fails_for_good(pytester: pytest.Pytester) -> None:
    assert session(pytester, DAY + timedelta(days=1)).parseoutcomes() == {"failed": 2}


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace("cause", "because"),
        ENTRY.replace("the second look comes before the first", " "),
        ENTRY.replace("2026-03-04", '"soon"'),
        ENTRY.replace("until", "#"),
        ENTRY.replace('"the second look comes before the first"', "3"),
        "test = [3]",
    ],
)
def test_one_without_cause_or_day_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "flaky.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(pytest.UsageError, match="give id, cause and until"):
        flaky.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[test]", "flaky.toml: .*at line 1"),
        ("test = 3", r"nothing but \[\[test\]\]"),
        (ENTRY.replace("[[test]]", "[[tset]]"), r"nothing but \[\[test\]\]"),
    ],
)
def test_what_is_no_list_of_tests_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """A misspelled table would have its test fail by chance, and nobody would know why."""
    path = tmp_path / "flaky.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(pytest.UsageError, match=said):
        flaky.read(path)


def test_those_that_are_named_exist_and_their_day_is_not_past() -> None:
    """It fails on the day after, whether or not the test itself does."""
    for one in flaky.read():
        path, _, name = one.id.partition("::")
        text = Path(flaky.FILE.parent.parent, path).read_text("utf-8")
        assert f"def {name.rpartition('::')[2]}(" in text, one.id
        assert flaky.today() <= one.until, f"{one.id}: {one.cause}"
