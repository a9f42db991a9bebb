"""Tasks of which handlers and receivers start others when the end is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore

from tests.live.apps.worker_trees import app, leaf, note

__all__ = ["app"]


def speak(who: str, args: Sequence[object]) -> None:
    """Start a child where the arguments of a task name who speaks."""
    if who in args:
        leaf.delay(who)


def on_end(who: str, sender: Any = None, args: Sequence[object] = (), **_: object) -> None:
    if sender.name == "speaking":
        speak(who, args)


class Speaking(Task):  # type: ignore[misc]  # Celery ships no types
    def before_start(self, task_id: str, args: object, kwargs: object) -> None:
        note(task_id, self.name)

    def on_success(self, retval: object, task_id: str, args: Any, kwargs: object) -> None:
        speak("on_success", args)

    def after_return(self, *given: Any) -> None:
        speak("after_return", given[3])


@app.task(name="speaking", base=Speaking)  # type: ignore[untyped-decorator]  # celery has no types
def speaking(how: str, *who: str) -> None:
    """End in some way, with a receiver that is connected after this package's own."""
    signals.task_postrun.connect(partial(on_end, "late"), weak=False, dispatch_uid="late")
    if how == "fails":
        raise ValueError(how)
    if how == "ignored":
        raise Ignore(how)


signals.task_postrun.connect(partial(on_end, "early"), weak=False, dispatch_uid="early")
