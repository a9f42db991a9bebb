"""Wait for the verdict around every test of an entry, and turn it into the test's outcome."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.bindings import binding_of

NAME = "manifest-verifying"
SHORT = "manifest-short-protocol"


class Verifying:
    """Hook into every test, as a plugin of its own.

    The session unregisters it where no test is of an entry.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        # Outside all other wrappers, so that a time limit for tests does not count the waiting.
        if binding_of(item) is not None:
            from pytest_manifest.plugin.work import wait_for_verdict

            wait_for_verdict(item)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if binding_of(item) is not None:
            from pytest_manifest.plugin.work import assert_verdict, fill_builtin

            assert_verdict(item, "setup")
            fill_builtin(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        if binding_of(item) is not None:
            from pytest_manifest.plugin.work import assert_verdict

            assert_verdict(item, "call")

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.excinfo is not None and binding_of(item) is not None:
            from pytest_manifest.plugin.work import place_at_entry

            place_at_entry(item, report)
        return report


def stop_verifying(manager: pytest.PytestPluginManager) -> None:
    """Unregister the plugin: tests run without it from here on."""
    if manager.hasplugin(NAME):
        manager.unregister(name=NAME)
