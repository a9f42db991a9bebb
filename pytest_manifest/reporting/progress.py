"""Show live progress while jobs run: one line that is rewritten, or a few lines in a log.

pytest's main thread writes everything, while it waits or is between two tests:
:meth:`Progress.tick` is called there by the loop, by the xdist controller and by hooks.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from typing import Final, Literal, Protocol

import pytest

from pytest_manifest.console import begin_line, terminal_file
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.progress_figures import Figures, Meter
from pytest_manifest.reporting.progress_line import live_line, log_line, receipt_line
from pytest_manifest.reporting.progress_screen import Footer
from pytest_manifest.reporting.run_report import RunReport

Mode = Literal["line", "log", "off"]

PERIOD: Final = 0.2
"""Seconds from one reading of the figures to the next, for a line that is rewritten."""
LOG_PERIOD: Final = 1.0
SHARE: Final = 0.005
"""Share of the time that reading the figures may take; slow readings become less frequent."""
REDRAW: Final = 0.05
"""Seconds before a line that was wiped is drawn again."""
FIRST: Final = 10.0
LONGEST: Final = 60.0
"""Seconds to the first line of a log; the pause doubles from line to line, up to the longest."""


class View(Protocol):
    """Show the figures in one way."""

    period: float

    def show(self, figures: Figures, *, last: bool = False) -> None: ...

    def again(self, now: float) -> float:
        """Draw what was wiped again if it is time; return the moment at which to call this next."""

    def give_way(self) -> None:
        """Wipe what is shown, as another writer follows whose writes the view cannot see."""

    def close(self) -> None:
        """Remove what is shown, and stop."""


class LineView:
    """Show one line at the bottom of a terminal, rewritten."""

    period = PERIOD

    def __init__(self, reporter: pytest.TerminalReporter, footer: Footer) -> None:
        self._markup = reporter.config.get_terminal_writer().markup
        self._footer = footer
        self._figures: Figures | None = None
        self._drawn = 0.0

    def show(self, figures: Figures, *, last: bool = False) -> None:
        self._figures = None if last else figures
        self._draw(time.monotonic())

    def again(self, now: float) -> float:
        if self._footer.shown or self._figures is None:
            return math.inf
        if now >= self._drawn + REDRAW:
            self._draw(now)
            return math.inf
        return self._drawn + REDRAW

    def give_way(self) -> None:
        self._footer.wipe()

    def close(self) -> None:
        self._footer.close()

    def _draw(self, now: float) -> None:
        width = self._footer.width
        if width > 0 and self._figures is not None:
            line = live_line(self._figures, width, self._markup, self._footer.encoding)
            self._footer.draw(line)
        self._drawn = now


class LogView:
    """Write lines of a log after 10 s, after 20 s more, and so on, and at a long run's end."""

    period = LOG_PERIOD

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._pause = FIRST
        self._next = FIRST
        self._told: Figures | None = None

    def show(self, figures: Figures, *, last: bool = False) -> None:
        if figures.elapsed < (FIRST if last else self._next):
            return
        if last and self._told is not None and self._told.done == figures.done:
            return
        self._pause = min(2 * self._pause, LONGEST)
        self._next = figures.elapsed + self._pause
        self._told = figures
        begin_line(self._reporter)
        self._reporter.write_line(log_line(figures))
        self._reporter.flush()

    def again(self, now: float) -> float:  # noqa: ARG002 - the other view's
        return math.inf

    def give_way(self) -> None:
        """Do nothing: whole lines need not be wiped."""

    def close(self) -> None:
        """Do nothing: whole lines stay."""


class Progress:
    """Show how far a session's runs are, until they are over."""

    def __init__(
        self, reporter: pytest.TerminalReporter, meter: Meter, view: View, *, receipts: bool
    ) -> None:
        self._reporter = reporter
        self._meter = meter
        self._view = view
        self._receipts = receipts
        # With capture=fd a test's prints do not reach the terminal.
        self._unseen = reporter.config.getoption("capture", "no") != "fd"
        self._next = 0.0
        self._ended = False

    def tick(self) -> float:
        """Show what is due; return the seconds until something is due again."""
        if self._ended:
            return math.inf
        now = time.monotonic()
        try:
            if now >= self._next or self._receipts:
                self._read(now)
            if self._ended:
                return math.inf
            return max(min(self._next, self._view.again(now)) - now, 0.0)
        except (ManifestToolError, OSError):
            self._give_up()
            return math.inf

    def _read(self, now: float) -> None:
        over = self._meter.over  # asked before the reading, so that the last verdicts are read
        figures = self._meter.read()
        told = self._receipts and self._tell_receipts()
        told = self._tell_remarks() or told
        took = time.monotonic() - now
        if over:
            self._end(figures)
        elif now >= self._next or told:
            self._next = now + max(self._view.period, took / SHARE)
            self._view.show(figures)

    def _tell_remarks(self) -> bool:
        """Write a line for each new warning of a run; return whether there was one."""
        fresh = self._meter.remarks()
        for remark in fresh:
            begin_line(self._reporter)
            self._reporter.write_line(f"note: {remark}", yellow=True)
            self._reporter.flush()
        return bool(fresh)

    def _tell_receipts(self) -> bool:
        """Write a line for each entry with a new verdict; return whether there was one."""
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        fresh = self._meter.fresh()
        for settled in fresh:
            text, color = receipt_line(settled, encoding)
            if self._reporter.showlongtestinfo:
                # As pytest writes its own lines: the next line ends this one, and none is empty.
                self._reporter.write_ensure_prefix("receipt ", text, **{color: True})
                self._reporter.flush()
            else:
                begin_line(self._reporter)
                self._reporter.write_line(f"receipt {text}", **{color: True})
        return bool(fresh)

    def finish(self) -> None:
        """Show the last figures, and stop."""
        if self._ended:
            return
        try:
            figures = self._meter.read()
            if self._receipts:
                self._tell_receipts()
            self._end(figures)
        except (ManifestToolError, OSError):
            self._give_up()

    def _end(self, figures: Figures) -> None:
        self._view.show(figures, last=True)
        self._ended = True
        self._meter.close()
        self._view.close()

    def _give_up(self) -> None:
        """Stop showing progress after a fault of ledger or terminal; the run goes on."""
        self._ended = True
        self._meter.close()
        with contextlib.suppress(OSError):
            self._view.close()

    # Hooks between two tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        if self._receipts:
            self.tick()
        if self._unseen and not self._ended:
            self._view.give_way()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        self.tick()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        if not self._ended:
            self._view.give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.finish()


def begin_progress(config: pytest.Config, report: RunReport) -> None:
    """Show how far the session's runs are from now on, as the terminal allows."""
    name = "manifest-progress"
    if config.pluginmanager.hasplugin(name):
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    mode = mode_for(reporter, report)
    if mode == "off":
        return
    earlier = report.options.resumes or report.options.audit
    receipts = reporter.verbosity >= 2
    # A run of a few quick jobs may be over by now; its receipts are shown in any case.
    if all(run.ended.is_set() for run in report.runs) and (earlier or not receipts):
        return
    view: View | None = None
    if mode == "line":
        view = _line_view(reporter)
    if view is None:
        view = LogView(reporter)
    try:
        meter = Meter(report.runs, anew=not earlier)
    except ManifestToolError:
        return
    progress = Progress(reporter, meter, view, receipts=receipts)
    config.pluginmanager.register(progress, name)
    report.pollers.append(progress.tick)


def mode_for(reporter: object, report: RunReport) -> Mode:
    """Return the mode that the user asked for, or the one that suits the terminal.

    A reporter of another plugin draws its own lines by moving the cursor, which other writes would
    disturb: with one, nothing is shown on a terminal.
    """
    wanted = report.options.progress
    if wanted == "off" or not isinstance(reporter, pytest.TerminalReporter):
        return "off"
    if reporter.verbosity < 0 or report.role == "worker":
        return "off"
    if wanted != "auto":
        return wanted if wanted == "log" or reporter.isatty() else "log"
    if not reporter.isatty() or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return "log"
    if type(reporter) is not pytest.TerminalReporter:
        return "off"
    # Workers of xdist that do not capture write to the terminal at any moment.
    unsteady = report.role == "controller" and reporter.config.getoption("capture", "no") == "no"
    return "log" if unsteady or sys.platform == "win32" else "line"


def _line_view(reporter: pytest.TerminalReporter) -> LineView | None:
    """Return a view of one line; None if writes to the terminal's file cannot be watched."""
    file = terminal_file(reporter.config)
    others = [stream for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]
    try:
        return LineView(reporter, Footer(reporter, [file, *others]))
    except (AttributeError, TypeError):
        return None
