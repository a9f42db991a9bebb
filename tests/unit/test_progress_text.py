"""Foreign text as a terminal shows it, and figures in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_manifest.reporting.progress import live_line, log_line
from pytest_manifest.reporting.progress_meter import ProgressStats
from pytest_manifest.text import cells

HOSTILE = "<script>\x1b[2J\x1b]0;title\x07\r\n\x00\u202egnp\u2069\ud800\u200d\u2028"


def plain(text: str, **_markup: bool) -> str:
    return text


def coloured(text: str, **markup: bool) -> str:
    return f"\x1b[31m{text}\x1b[0m" if markup else text


def figures(**changes: object) -> ProgressStats:
    """In the middle of a run of 10,000."""
    known: dict[str, object] = {
        "total": 10_000,
        "done": 642,
        "sent": 1642,
        "running": 8,
        "passed": 637,
        "failed": 2,
        "lost": 1,
        "unknown": 1,
        "skipped": 1,
        "elapsed": 15.5,
        "rate": 41.32,
        "eta": 227.9,
        "slowest": ("rag-0042", 12.4),
    }
    return ProgressStats(**(known | changes))  # type: ignore[arg-type]  # fields by their names


def test_a_wide_line_has_everything() -> None:
    """Where there is room, no figure is left out."""
    assert live_line(figures(), 200, plain) == (
        "manifest \xb7 642/10000 \xb7 sent 1642 \xb7 running 8 \xb7 passed 637 \xb7 failed 2 \xb7 "
        "lost 1 \xb7 unknown 1 \xb7 skipped 1 \xb7 41.3/s \xb7 ETA 3:47 \xb7 slowest rag-0042 12 s"
    )


def test_the_page_about_the_terminal_shows_such_a_line() -> None:
    line = live_line(figures(retrying=2, next_try=30.0), 200, plain)
    page = Path(__file__).parents[2] / "docs" / "how-to" / "read-a-report.md"
    assert f"\n{line}\n" in page.read_text("utf-8")


@pytest.mark.parametrize("width", range(9, 140))
def test_a_line_of_any_width_fits_and_says_how_far_it_is(width: int) -> None:
    """What matters least goes first; what went wrong goes last."""
    line = live_line(figures(slowest=("映画" * 40, 99.0), unknown=0, skipped=0), width, plain)
    assert cells(line) <= width
    assert "642/10000" in line
    if width >= 39:
        assert "failed 2" in line
        assert "lost 1" in line
        assert "ETA" in line or "running" in line


def test_none_failed_is_told_before_none_was_lost() -> None:
    """In eighty columns there is room for one of the two."""
    line = live_line(figures(failed=0, lost=0, unknown=0, skipped=0), 80, plain)
    assert "failed 0" in line
    assert "lost" not in line


def test_what_is_nearly_done_is_not_done() -> None:
    assert "ETA 1 s" in live_line(figures(eta=0.2), 200, plain)


def test_colours_take_no_columns() -> None:
    """A line with colours has the words of one without."""
    line = live_line(figures(), 60, coloured)
    assert line.replace("\x1b[31m", "").replace("\x1b[0m", "") == live_line(figures(), 60, plain)


def test_a_terminal_of_ascii_gets_ascii() -> None:
    """Separators and names keep to what the terminal can show."""
    line = live_line(figures(slowest=("映画-1", 3.0)), 200, plain, "ascii")
    assert line.isascii()
    assert "manifest | 642/10000" in line
    assert r"slowest \u6620\u753b-1 3 s" in line


def test_a_log_line_has_every_figure_in_ascii() -> None:
    """A log is read by machines, and by people who cannot see what came before."""
    assert log_line(figures(slowest=(HOSTILE, 12.4))).isascii()
    assert log_line(figures()) == (
        "manifest after 15 s: 642/10000, sent 1642, running 8, passed 637, failed 2, "
        "lost 1, unknown 1, skipped 1, 41.3/s, ETA 3:47, slowest rag-0042 12 s"
    )
    bare = figures(rate=None, eta=None, slowest=None, unknown=0, skipped=0)
    assert log_line(bare).endswith("failed 2, lost 1")


@pytest.mark.parametrize(
    ("next_try", "live"), [(262.0, "retry 1 in 4:22"), (-3.0, "retry 1"), (None, "retry 1")]
)
def test_what_waits_for_its_next_try_is_named(next_try: float | None, live: str) -> None:
    """A session that waits minutes for a task's countdown says what it waits for, and how long."""
    known = figures(running=0, retrying=1, next_try=next_try, slowest=None)
    assert f" \xb7 running 0 \xb7 {live} \xb7 passed" in live_line(known, 200, plain)
    assert f"running 0, {live}, passed" in log_line(known)


def test_that_no_worker_is_there_is_said_in_every_line() -> None:
    """It is what matters then, also where there is little room."""
    alone = figures(unattended=65.0, running=0, rate=None, eta=None, slowest=None)
    assert "no worker for 65 s" in live_line(alone, 80, plain)
    assert "no worker for 65 s" in log_line(alone)
