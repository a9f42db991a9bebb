"""Live progress while jobs run: one line that is rewritten, or a few lines in a log.

Everything is written by pytest's main thread, at moments when it waits or is between two tests:
:meth:`Progress.tick` is called there, by the loop, by the xdist controller, and by hooks.
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
"""Of the time, at most, that reading the figures may take: it is read less often instead."""
REDRAW: Final = 0.05
"""Seconds before a line that had to give way is drawn once more."""
FIRST: Final = 10.0
LONGEST: Final = 60.0
"""Seconds to the first line of a log; the pause doubles from line to line, up to the longest."""


class View(Protocol):
    """How the figures are shown."""

    period: float

    def show(self, figures: Figures, *, last: bool = False) -> None: ...

    def again(self, now: float) -> float:
        """Show once more what had to give way, where it is time; the moment of the next time."""

    def give_way(self) -> None:
        """Somebody is about to write where that cannot be seen."""

    def close(self) -> None:
        """Leave nothing behind."""


class LineView:
    """One line on a terminal, rewritten."""

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
    """A line of a log after 10 s, after 20 s more, and so on, and one at the end of a long run."""

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
        """Whole lines give way to nothing."""

    def close(self) -> None:
        """Whole lines stay."""


class Progress:
    """A plugin of one session with runs that are going on."""

    def __init__(
        self, reporter: pytest.TerminalReporter, meter: Meter, view: View, *, receipts: bool
    ) -> None:
        self._reporter = reporter
        self._meter = meter
        self._view = view
        self._receipts = receipts
        # What a test prints into its captured output is not seen on the terminal.
        self._unseen = reporter.config.getoption("capture", "no") != "fd"
        self._next = 0.0
        self._ended = False

    def tick(self) -> float:
        """Show what is due; returns the seconds after which something will be due again."""
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
        over = self._meter.over  # before the reading, so that nothing is missed
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
        """A line for what is to be known while it is waited for; whether there was one."""
        fresh = self._meter.remarks()
        for remark in fresh:
            begin_line(self._reporter)
            self._reporter.write_line(f"note: {remark}", yellow=True)
            self._reporter.flush()
        return bool(fresh)

    def _tell_receipts(self) -> bool:
        """A line for each entry that has settled since the last reading; whether there was one."""
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        fresh = self._meter.fresh()
        for settled in fresh:
            text, color = receipt_line(settled, encoding)
            if self._reporter.showlongtestinfo:
                # As pytest writes its own lines: the next one ends this, and none is empty.
                self._reporter.write_ensure_prefix("receipt ", text, **{color: True})
                self._reporter.flush()
            else:
                begin_line(self._reporter)
                self._reporter.write_line(f"receipt {text}", **{color: True})
        return bool(fresh)

    def finish(self) -> None:
        """Nothing more is to be told, but how far it has come."""
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
        """A run goes on without progress where the ledger or the terminal has a fault."""
        self._ended = True
        self._meter.close()
        with contextlib.suppress(OSError):
            self._view.close()

    # Where pytest is between two tests

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
    """Show from now on how far the session's runs are, in the way that fits."""
    name = "manifest-progress"
    if config.pluginmanager.hasplugin(name) or all(run.ended.is_set() for run in report.runs):
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    mode = mode_for(reporter, report)
    if mode == "off":
        return
    view: View | None = None
    if mode == "line":
        view = _line_view(reporter)
    if view is None:
        view = LogView(reporter)
    try:
        earlier = report.options.resumes or report.options.audit
        meter = Meter(report.runs, anew=not earlier)
    except ManifestToolError:
        return
    progress = Progress(reporter, meter, view, receipts=reporter.verbosity >= 2)
    config.pluginmanager.register(progress, name)
    report.pollers.append(progress.tick)


def mode_for(reporter: object, report: RunReport) -> Mode:
    """What fits the terminal, where the user leaves that open.

    A reporter of another plugin draws its own lines, with movements of the cursor that nobody else
    may disturb: on a terminal it is left alone.
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
    # Where workers of xdist do not capture, they write to the terminal at any moment.
    unsteady = report.role == "controller" and reporter.config.getoption("capture", "no") == "no"
    return "log" if unsteady or sys.platform == "win32" else "line"


def _line_view(reporter: pytest.TerminalReporter) -> LineView | None:
    """None where the terminal's file is such that nobody can watch over it."""
    file = terminal_file(reporter.config)
    others = [stream for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]
    try:
        return LineView(reporter, Footer(reporter, [file, *others]))
    except (AttributeError, TypeError):
        return None
