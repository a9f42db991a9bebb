"""Evaluate a fixture where no test of the user's asks for it, by a synthetic item.

Only public hooks are used, so that a fixture that raises is reported like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_manifest.plugin.builtin_tests import placeholder


class SyntheticItem(pytest.Function):
    """Stand for no file: reports call the item by its name alone."""

    @property
    def nodeid(self) -> str:
        # Reporters expect a part before the colons in every test's id.
        return f"manifest::{self.name}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.config.rootpath, 0, self.name


def synthetic_item(
    session: pytest.Session, name: str, body: Callable[..., None], *fixtures: str
) -> pytest.Function:
    """Make an item that asks for ``fixtures`` and, run as a test, calls ``body`` with them."""
    function = placeholder(name, body, fixtures)
    item: SyntheticItem = SyntheticItem.from_parent(session, name=name, callobj=function)
    return item


def do_nothing(**_values: object) -> None:
    """Serve as the body of an item that is evaluated for its fixtures alone."""


def set_up(item: pytest.Function) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
    """Evaluate an item's fixtures, keeping those of session scope.

    Returns the report of the set-up, which is not logged yet, and the call with its exception.
    """
    hooks = _Hooks(item)

    def evaluate() -> None:
        __tracebackhide__ = True
        hooks.call("pytest_runtest_setup", item=item)

    call = pytest.CallInfo.from_call(evaluate, when="setup", reraise=(KeyboardInterrupt,))
    report: pytest.TestReport = hooks.call("pytest_runtest_makereport", item=item, call=call)
    keeper = synthetic_item(item.session, "session", do_nothing)
    hooks.call("pytest_runtest_teardown", item=item, nextitem=keeper)
    return report, call


def log_failure(item: pytest.Function, report: pytest.TestReport) -> None:
    """Report a set-up that failed to all reporters, as a test's: with a start and a finish."""
    hook = item.config.hook
    report.nodeid = item.nodeid  # pytest has made the report with the item's name alone
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _conftests_elsewhere(item: pytest.Item) -> Iterator[object]:
    """Yield the modules of conftest.py files outside the item's folder and its parents."""
    for plugin in item.config.pluginmanager.get_plugins():
        file = Path(getattr(plugin, "__file__", None) or "-")
        is_conftest = isinstance(plugin, ModuleType) and file.name == "conftest.py"
        if is_conftest and file.parent not in (item.path, *item.path.parents):
            yield plugin


class _Hooks:
    """Call the hooks around a test, without plugins that also hook ``pytest_runtest_protocol``.

    A synthetic item goes through no protocol, as it is no test: it may be set up while tests are
    being collected, and must neither be timed nor run again nor shown. A plugin that prepares in
    the protocol what its other hooks need (as pytest-json-report does) would find nothing prepared.
    """

    def __init__(self, item: pytest.Function) -> None:
        self._manager = item.config.pluginmanager
        others = (
            one.plugin
            for one in item.config.hook.pytest_runtest_protocol.get_hookimpls()
            if not one.function.__module__.startswith(("_pytest.", "pytest_manifest."))
        )
        self._left_out = [*others, *_conftests_elsewhere(item)]

    def call(self, name: str, **arguments: object) -> Any:
        __tracebackhide__ = True
        return self._manager.subset_hook_caller(name, self._left_out)(**arguments)
