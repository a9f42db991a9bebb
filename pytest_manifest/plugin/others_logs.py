"""What pytest catches of the log where jobs run in its own process."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.bindings import binding_of

LOG = "Captured log "
"""What pytest begins the titles of a report's sections with that are of the log."""


class OthersLogs:
    """A plugin for sessions whose jobs run in pytest's own process: what pytest has caught of the
    log while an entry's test ran is of whatever jobs were running meanwhile, and is dropped; the
    lines of a job itself are in its receipt."""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # Innermost, so that everybody else's reports are made of what is left.
        report = yield
        if binding_of(item) is not None:
            report.sections = [one for one in report.sections if not one[0].startswith(LOG)]
        return report
