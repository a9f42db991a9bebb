"""Show live progress while jobs run: one line that is rewritten, or a few lines in a log.

pytest's main thread writes everything, while it waits or is between two tests:
:meth:`Progress.tick` is called there by the loop, by the xdist controller and by hooks.

Show progress as one line below everything on a terminal, or as lines of a log.

pytest leaves its cursor behind the last character that it wrote, often within a line. The footer is
drawn on the line below, and the cursor returns to where it was. The footer is removed by clearing
everything behind the cursor, wherever that is, so a wrong guess of a column, a resized window or a
foreign write cannot make that clear anything else.

Put progress into words: a line for a terminal, one for a log.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TextIO

import pytest

from pytest_manifest.console import begin_line, is_terminal_reporter, terminal_file
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.progress_meter import Meter, ProgressStats
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.text import cells, clock, cut, short_rate, terminal_line

Mode = Literal["line", "log", "off"]

SHARE: Final = 0.005
"""Share of the time that reading the ledgers may take; slow readings become less frequent."""


class Progress:
    """Show how far a session's runs are, until they are over."""

    def __init__(
        self, reporter: pytest.TerminalReporter, meter: Meter, view: LineView | LogView
    ) -> None:
        self._reporter = reporter
        self._meter = meter
        self._view = view
        # With capture=fd a test's prints do not reach the terminal.
        self._unseen = reporter.config.getoption("capture", "no") != "fd"
        self._next = 0.0
        self._ended = False

    def tick(self) -> float:
        """Show what is due; return the seconds until something is due again."""
        now = time.monotonic()
        with self._given_up_on_faults():
            if not self._ended and now >= self._next:
                self._read(now)
            if not self._ended:
                return max(min(self._next, self._view.redraw(now)) - now, 0.0)
        return math.inf

    def _read(self, now: float) -> None:
        over = self._meter.over  # asked before the reading, so that the last verdicts are read
        stats = self._meter.read()
        for warning in self._meter.new_warnings():
            begin_line(self._reporter)
            self._reporter.write_line(f"note: {warning}", yellow=True)
            self._reporter.flush()
        took = time.monotonic() - now
        if over:
            self._end(stats)
        else:
            self._next = now + max(self._view.period, took / SHARE)
            self._view.show(stats)

    def _end(self, stats: ProgressStats) -> None:
        self._view.show(stats, last=True)
        self._ended = True
        self._meter.close()
        self._view.close()

    @contextlib.contextmanager
    def _given_up_on_faults(self) -> Iterator[None]:
        """Stop showing progress after a fault of ledger or terminal; the run goes on."""
        try:
            yield
        except (ManifestToolError, OSError):
            self._ended = True
            self._meter.close()
            with contextlib.suppress(OSError):
                self._view.close()

    # Hooks between two tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        if self._unseen and not self._ended:
            self._view.wipe()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        self.tick()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        if not self._ended:
            self._view.wipe()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Show the last numbers, and stop."""
        with self._given_up_on_faults():
            if not self._ended:
                self._end(self._meter.read())


def begin_progress(config: pytest.Config, report: RunReport) -> None:
    """Show how far the session's runs are from now on, as the terminal allows."""
    name = "manifest-progress"
    if config.pluginmanager.hasplugin(name):
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    mode = mode_for(reporter, report)
    if mode == "off" or all(run.ended.is_set() for run in report.runs):
        return
    view: LineView | LogView = LogView(reporter)
    with contextlib.suppress(AttributeError, TypeError):  # a file that cannot be watched
        view = LineView(reporter) if mode == "line" else view
    with contextlib.suppress(ManifestToolError):
        meter = Meter(report.runs, anew=not (report.options.resume or report.options.audit))
        progress = Progress(reporter, meter, view)
        config.pluginmanager.register(progress, name)
        report.poll = progress.tick


def mode_for(reporter: object, report: RunReport) -> Mode:
    """Return the mode that the user asked for, or the one that suits the terminal.

    A reporter of another plugin draws its own lines by moving the cursor, which other writes would
    disturb: with one, nothing is shown on a terminal.
    """
    wanted = report.options.progress
    if wanted == "off" or not is_terminal_reporter(reporter):
        return "off"
    if reporter.verbosity < 0 or report.role == "worker":
        return "off"
    on_terminal = terminal_file(reporter.config).isatty()
    if wanted != "auto":
        return wanted if on_terminal else "log"
    if not on_terminal or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return "log"
    if not is_terminal_reporter(reporter, itself=True):
        return "off"
    # Workers of xdist that do not capture write to the terminal at any moment.
    unsteady = report.role == "controller" and reporter.config.getoption("capture", "no") == "no"
    return "log" if unsteady or sys.platform == "win32" else "line"


MOST_NAME: Final = 24
"""Columns for the name of an entry."""
ROOMY: Final = 60
"""Columns of a terminal from which a separator stands between the numbers."""
NOTEWORTHY: Final = 1.0
"""Seconds that an entry must have been running to be named as the slowest."""
ALWAYS, NEEDED, WANTED, GOOD, EXTRA, LAST = range(6)


Markup = Callable[..., str]
"""pytest's function that colours a text, or returns it as it is where colours are off."""


class _Part(NamedTuple):
    """A part of the line, with how much it matters."""

    text: str
    rank: int
    color: str | None = None

    def shown(self, markup: Markup) -> str:
        return markup(self.text, **{self.color: True}) if self.color else self.text


def live_line(stats: ProgressStats, width: int, markup: Markup, encoding: str = "utf-8") -> str:
    """Return the numbers in at most ``width`` columns, without the less important in a narrow one.

    The number of entries that are done is always there.
    """
    dot = " \xb7 " if terminal_line("\xb7", encoding) == "\xb7" else " | "
    between = dot if width >= ROOMY else "  "
    parts = list(_parts(stats, encoding))
    chosen: set[int] = set()
    left = width + len(between)
    for index in sorted(range(len(parts)), key=lambda i: (parts[i].rank, i)):
        needed = cells(parts[index].text) + len(between)
        if parts[index].rank == ALWAYS or needed <= left:
            chosen.add(index)
            left -= needed
    return between.join(part.shown(markup) for at, part in enumerate(parts) if at in chosen)


def _parts(stats: ProgressStats, encoding: str) -> Iterator[_Part]:
    yield _Part("manifest", LAST)
    yield _Part(f"{stats.done}/{stats.total}", ALWAYS)
    yield _Part(f"sent {stats.sent}", EXTRA if stats.sent < stats.total else LAST)
    yield _Part(f"running {stats.running}", WANTED)
    if stats.retrying:
        due = f" in {clock(stats.next_try)}" if stats.next_try and stats.next_try >= 1 else ""
        yield _Part(f"retry {stats.retrying}{due}", WANTED)
    if stats.stranded:
        yield _Part(f"held {stats.stranded}", NEEDED, "yellow")
    if stats.unattended is not None:
        yield _Part(f"no worker for {clock(stats.unattended)}", NEEDED, "yellow")
    yield _Part(f"passed {stats.passed}", GOOD, "green" if stats.passed else None)
    # A zero is shown too; that none failed matters more than that none was lost.
    for name, count, rank in (("failed", stats.failed, GOOD), ("lost", stats.lost, EXTRA)):
        yield _Part(f"{name} {count}", NEEDED if count else rank, "red" if count else None)
    if stats.unknown:
        yield _Part(f"unknown {stats.unknown}", NEEDED, "red")
    if stats.skipped:
        yield _Part(f"skipped {stats.skipped}", GOOD, "yellow")
    if stats.rate is not None:
        yield _Part(short_rate(stats.rate), GOOD)
    if stats.eta is not None:
        yield _Part(f"ETA {clock(max(stats.eta, 1))}", WANTED)
    if stats.slowest is not None and stats.slowest[1] >= NOTEWORTHY:
        entry, seconds = stats.slowest
        name = cut(terminal_line(entry, encoding), MOST_NAME)
        yield _Part(f"slowest {name} {clock(seconds)}", GOOD)


def log_line(stats: ProgressStats) -> str:
    """Return all numbers on one line of ASCII, for a log."""
    numbers = [part.text for part in _parts(stats, "ascii")]
    return f"manifest after {clock(stats.elapsed)}: {', '.join(numbers[1:])}"


PERIOD: Final = 0.2
"""Seconds from one reading of the ledgers to the next, for a line that is rewritten."""
LOG_PERIOD: Final = 1.0
REDRAW: Final = 0.05
"""Seconds before a line that was wiped is drawn again."""
FIRST: Final = 10.0
LONGEST: Final = 60.0
"""Seconds to the first line of a log; the pause doubles from line to line, up to the longest."""


class LogView:
    """Write lines of a log after 10 s, after 20 s more, and so on, and at a long run's end."""

    period = LOG_PERIOD

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._pause = FIRST
        self._next = FIRST
        self._logged: ProgressStats | None = None

    def show(self, stats: ProgressStats, *, last: bool = False) -> None:
        if stats.elapsed < (FIRST if last else self._next):
            return
        if last and self._logged is not None and self._logged.done == stats.done:
            return
        self._pause = min(2 * self._pause, LONGEST)
        self._next = stats.elapsed + self._pause
        self._logged = stats
        begin_line(self._reporter)
        self._reporter.write_line(log_line(stats))
        self._reporter.flush()

    def redraw(self, now: float) -> float:  # noqa: ARG002 - the other view's
        return math.inf

    def wipe(self) -> None:
        """Do nothing: whole lines stay."""

    close = wipe


# The line on a terminal

CLEAR: Final = "\x1b[J"
"""Clears everything behind the cursor, and below."""
MAKE_ROOM: Final = "\x1bD\x1b[A"
"""Moves down, which scrolls in the last line and keeps the column, and up again."""
SAVE: Final = "\x1b7"
BELOW: Final = "\x1b[B\r\x1b[0m\x1b[?7l"
"""Moves to the beginning of the line below, without colours and without wrapping."""
BACK: Final = "\x1b[0m\x1b[?7h\x1b8"
LEAST_LINES: Final = 2

_MOVES = re.compile(r"[\n\r\v\f\b]|\x1b(?!\[[0-9;]*m|\]9;4;|\\)")
"""Characters and sequences that may move the cursor other than by printing; colours and pytest's
own signals to a terminal's tab (OSC 9;4) do not."""


class Footer:
    """Draw the line on the first of ``files``, and wipe it before anything is written to one.

    pytest's own writes, a test's prints under ``-s`` and a warning of another thread all end in
    ``write`` of these files, so the footer wraps that from :meth:`__init__` to :meth:`close`.
    """

    def __init__(self, files: Sequence[TextIO]) -> None:
        self._lock = threading.RLock()
        self._file = files[0]
        self._watched: list[TextIO] = []
        self.shown = False
        try:
            for file in {id(file): file for file in files}.values():
                # Raises AttributeError for a file that cannot be watched.
                file.write = self._watching(file.write)  # type: ignore[method-assign]  # put back by close()
                self._watched.append(file)
        except BaseException:
            self.close()
            raise

    @property
    def encoding(self) -> str:
        return self._file.encoding or "ascii"

    @property
    def width(self) -> int:
        """Return the columns for the text; 0 if the window has no line to spare."""
        size = shutil.get_terminal_size()
        # The real size, whatever COLUMNS says: the terminal wraps lines by it.
        with contextlib.suppress(OSError, ValueError):
            real = os.get_terminal_size(self._file.fileno())
            size = real if real.columns and real.lines else size  # some do not know their size
        return size.columns - 1 if size.lines >= LEAST_LINES else 0

    def draw(self, text: str) -> None:
        """Show ``text`` in place of the line that was shown."""
        with self._lock:
            self.shown = False  # the next write is the footer's own, and must not wipe it
            body = f"{CLEAR}{MAKE_ROOM}{SAVE}{BELOW}{text}{BACK}"
            self._file.write(body)
            self._file.flush()
            self.shown = True

    def wipe(self) -> None:
        with self._lock:
            if self.shown:
                self.shown = False
                self._file.write(CLEAR)
                self._file.flush()

    def close(self) -> None:
        """Wipe the line, and restore ``write`` of the files."""
        with self._lock:
            try:
                self.wipe()
            finally:
                for file in self._watched:
                    with contextlib.suppress(AttributeError):  # another program has removed it
                        del file.write
                self._watched.clear()

    def _watching(self, write: Callable[[str], int]) -> Callable[[str], int]:
        def watched(text: str) -> int:
            if not self.shown:
                return write(text)
            with self._lock:
                # Most writes, such as pytest's dots, stay on their line, and need no wiping.
                if _MOVES.search(text):
                    self.wipe()
                return write(text)

        return watched


class LineView(Footer):
    """Show one line at the bottom of a terminal, rewritten."""

    period = PERIOD

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        """Watch the terminal's files. Raises AttributeError or TypeError where that cannot be."""
        others = [stream for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]
        super().__init__([terminal_file(reporter.config), *others])
        self._markup = reporter.config.get_terminal_writer().markup
        self._stats: ProgressStats | None = None
        self._drawn = 0.0

    def show(self, stats: ProgressStats, *, last: bool = False) -> None:
        self._stats = None if last else stats
        self._draw_stats(time.monotonic())

    def redraw(self, now: float) -> float:
        """Draw what was wiped again if it is time; return the moment at which to call this next."""
        if self.shown or self._stats is None:
            return math.inf
        if now < self._drawn + REDRAW:
            return self._drawn + REDRAW
        self._draw_stats(now)
        return math.inf

    def _draw_stats(self, now: float) -> None:
        if self.width > 0 and self._stats is not None:
            self.draw(live_line(self._stats, self.width, self._markup, self.encoding))
        self._drawn = now
