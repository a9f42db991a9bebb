"""Let the reports of a test share their equal parts, in an xdist controller.

execnet makes each report from a message: the setup, call and teardown of one test, and the tests of
one session, bring their own copies of the same texts. Reporters keep all reports until the session
ends, and copies are most of what an entry then takes.
"""

from __future__ import annotations

import sys
from typing import Final

import pytest

OWN: Final = "manifest_"
"""The prefix of the names of an entry's properties."""


class SharedReports:
    """Give equal parts of reports one object; a plugin for one session."""

    def __init__(self) -> None:
        self._first: dict[str, pytest.TestReport] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Share the parts of an entry's report before reporters keep it; values stay the same."""
        if not _is_of_entry(report):
            return
        first = self._first.get(report.nodeid)
        if first is None:
            report.keywords = {sys.intern(name): value for name, value in report.keywords.items()}
            report.user_properties = [*map(_shared_row, report.user_properties)]
            first = self._first[report.nodeid] = report
        if report.when == "teardown":
            del self._first[report.nodeid]
        if first is report:
            return
        if report.location == first.location:
            report.location = first.location
        if report.keywords == first.keywords:
            report.keywords = first.keywords
        if report.user_properties == first.user_properties:
            report.user_properties = first.user_properties


def _is_of_entry(report: pytest.TestReport) -> bool:
    """Tell whether a report has an entry's properties, and the form that pytest gives to reports.

    Other plugins may have put anything into it: such a report stays as it came.
    """
    rows, names = report.user_properties, report.keywords
    return (
        type(rows) is list
        and bool(rows)
        and all(type(row) is tuple and len(row) == 2 and type(row[0]) is str for row in rows)
        and rows[0][0].startswith(OWN)
        and type(names) is dict
        and all(type(name) is str for name in names)
    )


def _shared_row(row: tuple[str, object]) -> tuple[str, object]:
    """Return a row whose texts are shared; workers, tasks and states come again and again."""
    name, value = row
    return sys.intern(name), sys.intern(value) if type(value) is str else value
