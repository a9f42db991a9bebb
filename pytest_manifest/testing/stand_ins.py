"""Replace an app's tasks by callables for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import Celery

from pytest_manifest.compat.celery import running

Call = Callable[..., object]


def plain_app() -> Celery:
    """Make an app that has Celery's own tasks and no others."""
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
                parts.enter_context(running(task, _function(call)))
        yield


def _function(call: Call) -> Call:
    """Wrap a callable in a function: Celery needs a name, and no parameter called ``self``."""

    def stand_in(*args: Any, **kwargs: Any) -> object:
        return call(*args, **kwargs)

    return stand_in
