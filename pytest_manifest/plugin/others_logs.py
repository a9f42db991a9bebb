"""Drop what pytest catches of the log where jobs run in its own process."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.bindings import binding_of

LOG = "Captured log "
"""The prefix of the titles of a report's sections that hold the log."""


class OthersLogs:
    """Drop the log that pytest caught while an entry's test ran, where jobs run in its process.

    It is of whatever jobs were running meanwhile. The lines of a job itself are in its receipt.
    """

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # Innermost, so that other plugins' wrappers see the report without the log.
        report = yield
        if binding_of(item) is not None:
            report.sections = [one for one in report.sections if not one[0].startswith(LOG)]
        return report
