"""The diagnostic tasks, called as functions."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from tasks.diagnostics import debug_task, sleep_for, sleep_task


def test_names() -> None:
    """Tasks are registered under their module's name, which manifests use."""
    import tasks.crud
    from tasks import app

    assert {name for name in app.tasks if name.startswith("tasks.")} >= {
        "tasks.diagnostics.debug_task",
        "tasks.diagnostics.sleep_task",
        "tasks.crud.fast_crud_task",
        "tasks.crud.sleep_crud_task",
    }
    assert tasks.crud.__name__ == "tasks.crud"


@pytest.mark.parametrize("message", ["hello", "", "žluťoučký kůň", None, {"a": [1, 2.5, True]}])
def test_echo(message: JsonValue) -> None:
    """Any JSON value comes back as it went in."""
    assert debug_task(message) == {"echo": message}


@pytest.mark.parametrize("seconds", [0, 0.001, 0.02])
def test_slept_is_never_less_than_asked(seconds: float) -> None:
    """The time reported is the time measured."""
    assert sleep_task(seconds)["slept"] >= seconds


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), True, "1", None, 3601])
def test_no_time_to_sleep(bad: float) -> None:
    """What is no time is refused with a sentence that shows it."""
    with pytest.raises(ValueError, match=r"sec must be .*" + repr(bad)):
        sleep_for(bad)
