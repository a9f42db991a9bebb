"""When progress is shown: the pauses of a log, the period of a line, and who is asked how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from pytest_manifest.reporting.progress import LogView
from pytest_manifest.reporting.progress_meter import ProgressStats

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


class Log:
    """A reporter that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        terminal = SimpleNamespace(width_of_current_line=0)
        self.config = SimpleNamespace(get_terminal_writer=lambda: terminal)

    def ensure_newline(self) -> None: ...

    def flush(self) -> None: ...

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def at(elapsed: float, done: int = 0) -> ProgressStats:
    return ProgressStats(
        total=100,
        done=done,
        sent=100,
        running=2,
        passed=done,
        failed=0,
        lost=0,
        unknown=0,
        skipped=0,
        elapsed=elapsed,
    )


def moments(seconds: int, step: float = 1.0) -> list[str]:
    """When the lines of a run of so many seconds come."""
    log = Log()
    view = LogView(cast("TerminalReporter", log))
    for tick in range(int(seconds / step)):
        view.show(at(tick * step))
    view.show(at(float(seconds), done=100), last=True)
    return [line.partition(": ")[0] for line in log.lines]


def test_lines_of_a_log_become_sparse() -> None:
    """The first after 10 s, then the pause doubles up to a minute, and one comes at the end."""
    after = [text.removeprefix("manifest after ") for text in moments(300)]
    assert after == ["10 s", "30 s", "70 s", "2:10", "3:10", "4:10", "5:00"]


def test_a_short_run_tells_nothing() -> None:
    """What is over in ten seconds needs no progress."""
    assert moments(9) == []


def test_a_log_ends_once() -> None:
    """The last line is not repeated."""
    log = Log()
    view = LogView(cast("TerminalReporter", log))
    view.show(at(10, done=100))
    view.show(at(10.2, done=100), last=True)
    assert len(log.lines) == 1
