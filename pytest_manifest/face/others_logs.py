"""What pytest catches of the log where jobs run in its own process."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.face.bindings import binding_of


class OthersLogs:
    """A plugin for sessions whose jobs run in pytest's own process: what pytest has caught of the
    log while an entry's test ran is of whatever jobs were running meanwhile, and is dropped; the
    lines of a job itself are in its receipt."""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, object, object]:
        # Innermost, so that everybody else's reports are made of what is left.
        if binding_of(item) is not None:
            sections = item._report_sections
            sections[:] = [one for one in sections if one[1] != "log"]
        return (yield)
