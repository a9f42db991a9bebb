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
from typing import Final, Literal

import pytest

from pytest_manifest.console import begin_line, is_terminal_reporter, terminal_file
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.progress_line import receipt_line
from pytest_manifest.reporting.progress_meter import Meter, ProgressStats
from pytest_manifest.reporting.progress_view import Footer, LineView, LogView, View
from pytest_manifest.reporting.run_report import RunReport

Mode = Literal["line", "log", "off"]

SHARE: Final = 0.005
"""Share of the time that reading the ledgers may take; slow readings become less frequent."""


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
            return max(min(self._next, self._view.redraw(now)) - now, 0.0)
        except (ManifestToolError, OSError):
            self._give_up()
            return math.inf

    def _read(self, now: float) -> None:
        over = self._meter.over  # asked before the reading, so that the last verdicts are read
        stats = self._meter.read()
        written = self._receipts and self._write_receipts()
        written = self._write_warnings() or written
        took = time.monotonic() - now
        if over:
            self._end(stats)
        elif now >= self._next or written:
            self._next = now + max(self._view.period, took / SHARE)
            self._view.show(stats)

    def _write_warnings(self) -> bool:
        """Write a line for each new warning of a run; return whether there was one."""
        fresh = self._meter.new_warnings()
        for warning in fresh:
            begin_line(self._reporter)
            self._reporter.write_line(f"note: {warning}", yellow=True)
            self._reporter.flush()
        return bool(fresh)

    def _write_receipts(self) -> bool:
        """Write a line for each entry with a new verdict; return whether there was one."""
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        fresh = self._meter.new_verdicts()
        for found in fresh:
            text, color = receipt_line(found, encoding)
            if self._reporter.showlongtestinfo:
                # As pytest writes its own lines: the next line ends this one, and none is empty.
                self._reporter.write_ensure_prefix("receipt ", text, **{color: True})
                self._reporter.flush()
            else:
                begin_line(self._reporter)
                self._reporter.write_line(f"receipt {text}", **{color: True})
        return bool(fresh)

    def finish(self) -> None:
        """Show the last numbers, and stop."""
        if self._ended:
            return
        try:
            stats = self._meter.read()
            if self._receipts:
                self._write_receipts()
            self._end(stats)
        except (ManifestToolError, OSError):
            self._give_up()

    def _end(self, stats: ProgressStats) -> None:
        self._view.show(stats, last=True)
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
    earlier = report.options.resume or report.options.audit
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


def _line_view(reporter: pytest.TerminalReporter) -> LineView | None:
    """Return a view of one line; None if writes to the terminal's file cannot be watched."""
    file = terminal_file(reporter.config)
    others = [stream for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]
    try:
        return LineView(reporter, Footer([file, *others]))
    except (AttributeError, TypeError):
        return None
