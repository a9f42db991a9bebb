"""Hook into the run of every test of an entry: its verdict becomes the test's outcome.

An idle session imports this module: nothing may be slow.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

from pytest_manifest.bindings import binding_of
from pytest_manifest.plugin.session import manifest_session

NAME = "manifest-verifying"
SHORT = "manifest-short-protocol"
DJANGO_DATABASES = "django_db_setup"
"""pytest-django's fixture that sets the session's databases up, before a test's own is opened."""


class Verifying:
    """Wait for an entry's verdict before its test, and assert it; a plugin of its own.

    The session unregisters it where no test is of an entry.
    """

    def __init__(self) -> None:
        self._has_databases = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        # Outside all other wrappers, so that a time limit for tests does not count the waiting.
        if (binding := binding_of(item)) is not None:
            from pytest_manifest.plugin.outcome import wait_for_verdict

            wait_for_verdict(item, binding)
        if nextitem is None:  # the end of this test is the end of the runs
            manifest_session(item.config).session_runs.await_repeats()
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if (binding := binding_of(item)) is not None:
            from pytest_manifest.plugin.outcome import assert_verdict, fill_builtin

            assert_verdict(item, binding, "setup")
            fill_builtin(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> None:
        if fixturedef.argname == DJANGO_DATABASES:
            self._has_databases = True
        elif self._has_databases and fixturedef.scope == "function":
            from pytest_manifest.plugin.django_tests import refuse_to_empty

            refuse_to_empty(request)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        if (binding := binding_of(item)) is not None:
            from pytest_manifest.plugin.outcome import assert_verdict

            assert_verdict(item, binding, "call")
            if "django.conf" in sys.modules:
                from pytest_manifest.plugin.django_tests import warn_of_test_database

                warn_of_test_database(item)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if (binding := binding_of(item)) is not None:
            from pytest_manifest.reporting.junit import take_time_of_job

            take_time_of_job(report)
            if call.excinfo is not None:
                from pytest_manifest.plugin.outcome import place_at_entry

                place_at_entry(item, binding, report)
        if report.longrepr is not None or report.sections:
            from pytest_manifest.plugin.outcome import hide_secrets

            hide_secrets(item, report)
        return report


def stop_verifying(manager: pytest.PytestPluginManager) -> None:
    """Unregister the plugin: tests run without it from here on."""
    if manager.hasplugin(NAME):
        manager.unregister(name=NAME)
