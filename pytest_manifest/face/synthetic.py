"""Synthetic items: how a fixture is evaluated where no test of the user's asks for it.

They drive public hooks only, so that a fixture that raises is reported like any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest


def synthetic_item(
    parent: pytest.Session | pytest.Module, name: str, body: Callable[..., None], *fixtures: str
) -> pytest.Function:
    """An item that asks for ``fixtures`` and, run as a test, calls ``body`` with them by name."""

    def call(**values: object) -> None:
        body(**values)

    parameters = [inspect.Parameter(f, inspect.Parameter.KEYWORD_ONLY) for f in fixtures]
    # pytest reads a test's fixtures from its signature.
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # any function takes attributes
    call.__name__ = name
    return pytest.Function.from_parent(parent, name=name, callobj=call)


def keep_session(session: pytest.Session) -> pytest.Function:
    """A next item that leaves session fixtures alive when the present one is torn down."""
    return synthetic_item(session, "session", lambda: None)


def set_up(item: pytest.Function) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
    """Evaluate an item's fixtures, keeping those of session scope; the report is not logged yet."""
    hook = item.ihook
    call = pytest.CallInfo.from_call(
        lambda: hook.pytest_runtest_setup(item=item), when="setup", reraise=(KeyboardInterrupt,)
    )
    report: pytest.TestReport = hook.pytest_runtest_makereport(item=item, call=call)
    hook.pytest_runtest_teardown(item=item, nextitem=keep_session(item.session))
    return report, call
