"""Synthetic items: how a fixture is evaluated where no test of the user's asks for it.

They drive public hooks only, so that a fixture that raises is reported like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pytest_manifest.face.placeholder import placeholder


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
    hook = item.ihook

    def evaluate() -> None:
        __tracebackhide__ = True
        hook.pytest_runtest_setup(item=item)

    call = pytest.CallInfo.from_call(evaluate, when="setup", reraise=(KeyboardInterrupt,))
    report: pytest.TestReport = hook.pytest_runtest_makereport(item=item, call=call)
    keeper = synthetic_item(item.session, "session", do_nothing)
    hook.pytest_runtest_teardown(item=item, nextitem=keeper)
    return report, call
