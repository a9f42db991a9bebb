"""Let the reports of a test share their equal parts, in an xdist controller.

execnet makes each report from a message: the setup, call and teardown of one test, and the tests of
one session, bring their own copies of the same texts. Reporters keep all reports until the session
ends, and copies are most of what an entry then takes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, Literal

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
        rows = report.user_properties
        if not rows or not rows[0][0].startswith(OWN):
            return
        first = self._first.get(report.nodeid)
        if first is None:
            report.keywords = _interned(report.keywords)
            report.user_properties = [(sys.intern(name), _shared(value)) for name, value in rows]
            first = self._first[report.nodeid] = report
        if report.when == "teardown":
            del self._first[report.nodeid]
        if first is report:
            return
        if report.location == first.location:
            report.location = first.location
        if report.keywords == first.keywords:
            report.keywords = first.keywords
        if rows == first.user_properties:
            report.user_properties = first.user_properties


def _interned(keywords: Mapping[str, Literal[1]]) -> dict[str, Literal[1]]:
    return {sys.intern(name): value for name, value in keywords.items()}


def _shared(value: object) -> object:
    """Return one object for equal texts; workers, tasks and states come again and again."""
    return sys.intern(value) if type(value) is str else value
