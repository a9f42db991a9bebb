"""Have pytest's JUnit report describe jobs, which takes nothing but the reports of their tests.

pytest writes each test's ``user_properties`` and its duration. The duration of an entry's test is
its job's own time: what pytest takes to read a verdict is nobody's question.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pytest_manifest.reporting.run_report import RunReport

RUNTIME: Final = "manifest_runtime"
"""The property that has a job's own time, in s."""
_WRITER: Final = "_pytest.junitxml"


def take_time_of_job(report: pytest.TestReport) -> None:
    """Make the report of an entry's test as long as its job ran, where that is known."""
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return
    for name, value in report.user_properties:
        if name == RUNTIME and isinstance(value, float | int):
            report.duration = max(0.0, value)


class JUnitFaults:
    """Note that pytest could not write its report, in place of an error that ends the session."""

    def __init__(self, config: pytest.Config, report: RunReport) -> None:
        self._path = config.invocation_params.dir / config.getoption("xmlpath", "")
        self._report = report

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        try:
            return (yield)
        except OSError as error:
            # Raised on, it would take the place of the summary, which names the verdicts, or of
            # the sentence that says why nothing was sent.
            frames = traceback.walk_tb(error.__traceback__)
            if all(frame.f_globals.get("__name__") != _WRITER for frame, _ in frames):
                raise
            self._report.note_unwritten(f"{self._path}: pytest could not write its report: {error}")
        return None
