"""Synthetic items: how a fixture is evaluated where no test of the user's asks for it.

They drive public hooks only, so that a fixture that raises is reported like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_manifest.plugin.placeholder import placeholder


class SyntheticItem(pytest.Function):
    """An item of no file: reports call it by its name alone."""

    @property
    def nodeid(self) -> str:
        # With a part before the colons, as reporters expect of every test.
        return f"manifest::{self.name}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.config.rootpath, 0, self.name


def synthetic_item(
    session: pytest.Session, name: str, body: Callable[..., None], *fixtures: str
) -> pytest.Function:
    """An item that asks for ``fixtures`` and, run as a test, calls ``body`` with them by name."""
    function = placeholder(name, body, fixtures)
    item: SyntheticItem = SyntheticItem.from_parent(session, name=name, callobj=function)
    return item


def do_nothing(**_values: object) -> None:
    """The body of an item that is evaluated for its fixtures alone."""


def set_up(item: pytest.Function) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
    """Evaluate an item's fixtures, keeping those of session scope; the report is not logged yet."""
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
    """Tell all reporters of a set-up that failed, as of a test's: with a beginning and an end."""
    hook = item.config.hook
    report.nodeid = item.nodeid  # pytest itself knows it by its name alone
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _conftests_elsewhere(item: pytest.Item) -> Iterator[object]:
    """The conftest.py files that are not of the item's folder or one around it, as modules."""
    for plugin in item.config.pluginmanager.get_plugins():
        file = Path(getattr(plugin, "__file__", None) or "-")
        is_conftest = isinstance(plugin, ModuleType) and file.name == "conftest.py"
        if is_conftest and file.parent not in (item.path, *item.path.parents):
            yield plugin


class _Hooks:
    """The hooks around a test, without those plugins that also hook the protocol around them all.

    A synthetic item goes through no protocol, being no test: it may be set up while others are
    being collected, and must neither be timed nor run again nor shown. Who prepares there what its
    other hooks need (pytest-json-report does) would find nothing prepared.
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
