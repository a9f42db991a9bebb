"""Stand-ins for parts that earlier versions of Celery, kombu and redis-py lack or do otherwise.

Where it can be, what is there is asked for, and no version compared. The packages are imported
where they are needed, and have no types for what is handed to them: that is ``Any``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from pytest_manifest.compat.celery import in_place_of

REFUSED_REDIS: Final = "Redis transport requires redis-py"
"""How kombu begins to say that it does not work with the redis-py that is installed."""


def published_together(producer: Any, most: int) -> AbstractContextManager[object]:
    """Return a context in which messages are sent together, up to ``most`` commands at once.

    Before kombu 5.7, where each message is a question of its own, the context does nothing. In both
    cases an exception leaves in doubt which of its messages the broker has.
    Relies on ``Producer.batch`` being missing, or taking ``max_size`` (kombu 5.7).
    Test: ``test_compat_older.py::test_messages_are_sent_together_where_kombu_can``.
    """
    batch = getattr(producer, "batch", None)
    return nullcontext() if batch is None else batch(max_size=most)


@contextmanager
def requests_kept(tasks: Iterable[Any]) -> Iterator[None]:
    """Have tasks keep their requests for a while where their class's ``__call__`` calls Celery's.

    Before 5.5 that gives a task an empty request, in processes that are no worker's.
    Relies on ``push_request`` being what ``Task.__call__`` calls, and on it doing from 5.5 on what
    it is made to do here (Celery 5.7).
    Test: ``test_compat_older.py::test_a_task_called_within_itself_keeps_its_request``.
    """
    from celery.app.task import Task

    def keep(task: Any, given: Callable[..., None], *args: object, **kwargs: object) -> None:
        given(*args, **{**vars(task.request), **kwargs})

    with ExitStack() as parts:
        for task in tasks:
            if type(task).__call__ is not Task.__call__:
                push = partial(keep, task, task.push_request)
                parts.enter_context(in_place_of(task, "push_request", push))
        yield


def worker_lost(error: BaseException) -> BaseException:
    """Return the error by which Celery 5.7 reports that a job ended its process.

    Earlier ones hand on what billiard says since 4.3, the job's own ``SystemExit``.
    Relies on ``Request.on_failure`` being given that exception (Celery 5.6, billiard 4.3).
    Test: ``test_compat_older.py::test_a_job_that_exits_has_lost_its_worker``.
    """
    from celery.exceptions import WorkerLostError

    if not isinstance(error, (SystemExit, KeyboardInterrupt)):
        return error
    how = type(error).__name__
    if isinstance(error, SystemExit):
        how = f"exitcode {error.code if isinstance(error.code, int) else int(bool(error.code))}"
    lost: BaseException = WorkerLostError(f"Worker exited prematurely: {how}.")
    return lost


def way_to_redis(said: str) -> str:
    """Return how to install the redis-py that kombu needs, where it has said that it needs one.

    Relies on the words of the ``VersionMismatch`` that kombu's transport for Redis raises
    (kombu 5.7).
    Test: ``test_compat_older.py::test_a_redis_py_that_kombu_refuses_is_known_by_its_words``.
    """
    return 'pip install "kombu[redis]"' if REFUSED_REDIS in said else ""
