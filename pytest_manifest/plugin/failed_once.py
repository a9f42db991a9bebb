"""See to it that what tests say of entries adds up to what the run is.

One failed job fails one test, and further tests of the same entry are skipped with its name. A run
of which something was taken back is no green session, though no test has failed.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Final, Literal

import pytest

from pytest_manifest.bindings import OF_VERDICT, Binding

FAILED_ONCE: Final = "manifest-failed-once"
_LAST_FAILED: Final = "cache/lastfailed"
"""The key under which pytest's cache has the tests for ``--lf``."""
_REPEATED: Final = "manifest_repeated"
"""The attribute of a report whose test was skipped, as its entry has failed in another test."""
_SKIPPED = pytest.StashKey[bool]()


class FailedOnce:
    """Know which entries have failed a test of this process; a plugin for one session.

    A test with a failure that is expected (xfail), or that is tried again, has not failed.
    """

    def __init__(self) -> None:
        self._is_complete = True
        self._failed: dict[tuple[str, str], str] = {}
        self._skipped: list[str] = []

    def skip(self, item: pytest.Item, binding: Binding) -> None:
        """Skip the test if another one has failed by the verdict of the same entry."""
        first = self._failed.get((os.fspath(binding.manifest), binding.entry or ""))
        if first is not None and first != item.nodeid:
            item.stash[_SKIPPED] = True
            pytest.skip(f"entry {binding.entry!r} has failed already, in {first}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.skipped and item.stash.get(_SKIPPED, False):
            setattr(report, _REPEATED, True)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed:
            return
        if report.failed and (manifest := getattr(report, OF_VERDICT, None)) is not None:
            entry = str(dict(report.user_properties).get("manifest_entry"))
            self._failed.setdefault((manifest, entry), report.nodeid)
        elif getattr(report, _REPEATED, False):
            self._skipped.append(report.nodeid)
        elif report.skipped and self._is_complete:
            rows = dict(report.user_properties)
            ends = rows.get("manifest_verdict"), rows.get("manifest_verdicts")
            self._is_complete = not any("withdrawn" in str(one) for one in ends)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        # After pytest has written what failed last: --lf is to verify an entry by all its tests.
        try:
            return (yield)
        finally:
            if not self._is_complete and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            cache = getattr(session.config, "cache", None)
            if self._skipped and cache is not None and not hasattr(session.config, "workerinput"):
                failed = cache.get(_LAST_FAILED, {})
                cache.set(_LAST_FAILED, {**failed, **dict.fromkeys(self._skipped, True)})


def mark_failure(report: pytest.TestReport, binding: Binding) -> None:
    """Note in a test's report that it failed by its entry's verdict alone."""
    setattr(report, OF_VERDICT, os.fspath(binding.manifest))


def skip_repeated(item: pytest.Item, binding: Binding, when: Literal["setup", "call"]) -> None:
    """Skip, in its set-up, a test whose entry has failed another test of this process already."""
    plugin = item.config.pluginmanager.get_plugin(FAILED_ONCE)
    if when == "setup" and isinstance(plugin, FailedOnce):
        plugin.skip(item, binding)
