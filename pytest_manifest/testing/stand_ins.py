"""Callables that stand in for an app's tasks for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from celery import Celery, Task

Call = Callable[..., object]
_MISSING: Final = object()


def plain_app() -> Celery:
    """An app that knows Celery's own tasks and no others."""
    app = Celery("pytest_manifest_memory", set_as_current=False, fixups=())
    app.finalize()
    for name in [name for name in app.tasks if not name.startswith("celery.")]:
        app.tasks.pop(name)  # Shared ones of every other app in this process.
    return app


@contextmanager
def standing_in(app: Celery, calls: Mapping[str, Call]) -> Iterator[None]:
    """Have tasks of these names call these; each gets a job's arguments, and never the task.

    A task that the app has keeps its options (retries, late acknowledgement, queue, ...).
    """
    for name, call in calls.items():
        if not callable(call):
            raise TypeError(f"tasks[{name!r}] is a {type(call).__name__}, which cannot be called")
    with ExitStack() as parts:
        for name, call in calls.items():
            task = app.tasks.get(name)
            if task is None:
                app.task(name=name, shared=False)(_function(call))
                parts.callback(app.tasks.pop, name)
            else:
                parts.enter_context(_replaced(task, call))
        yield


@contextmanager
def _replaced(task: Task, call: Call) -> Iterator[None]:
    # With autoretry, "run" is Celery's own, and calls the task's as this.
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"
    own = task.__dict__.get(name, _MISSING)
    setattr(task, name, _function(call))
    try:
        yield
    finally:
        if own is _MISSING:
            delattr(task, name)
        else:
            setattr(task, name, own)


def _function(call: Call) -> Call:
    """A plain function, of any callable: Celery wants a name, and no parameter called ``self``."""

    def stand_in(*args: Any, **kwargs: Any) -> object:
        return call(*args, **kwargs)

    return stand_in
