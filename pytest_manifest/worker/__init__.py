"""Make a Celery worker send a receipt for every job of a manifest.

Importing this package connects it to Celery's start-up signals, so ``celery worker -I
pytest_manifest.worker`` is enough; an app may call ``instrument`` instead. Only messages with a
manifest's headers are concerned; all other tasks are left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from celery.signals import worker_init, worker_process_init

from pytest_manifest.compat.celery import after_receiver_failed
from pytest_manifest.process_state import ProcessState
from pytest_manifest.processes import STACKS, own_identity, show_stacks
from pytest_manifest.schema.wire import PROCESS_MARK, SIGNED_MARK, STACKS_MARK, WORKER_MARK
from pytest_manifest.urls import is_in_process

if TYPE_CHECKING:
    from celery import Celery
    from pydantic import JsonValue

__all__ = ["Job", "current_job", "evidence", "instrument"]


@dataclass(frozen=True, slots=True)
class Job:
    """The entry and run that a task works for, and the number of the attempt."""

    run: str
    entry: str
    attempt: int
    task_id: str


def instrument(app: Celery) -> None:
    """Make workers of this app send receipts. Call it before or after configuring the app.

    Calling it again does nothing. In a process that is no worker it has no visible effect.
    """
    from pytest_manifest.worker.signals import instrument_app

    instrument_app(app)


def evidence(**facts: JsonValue) -> None:
    """Add facts to the receipt of the running task; a later fact of the same name replaces it.

    Facts survive when the task fails or its process is killed. Outside a task of a manifest this
    does nothing, so tasks can call it always. Raises TypeError for a value that JSON cannot hold,
    ValueError when a task's evidence grows beyond what a receipt may carry.
    """
    from pytest_manifest.worker.job import current_execution

    execution = current_execution()
    if execution is not None:
        execution.add_evidence(facts)


def current_job() -> Job | None:
    """Return the job of the running task; None outside a task, or in one of no manifest.

    Use it in tasks that record where their rows come from.
    """
    from celery import current_task

    from pytest_manifest.worker.job import current_execution, delivery_of

    execution = current_execution()
    # A worker that sends no receipts has no execution; the message has its headers all the same.
    request = getattr(current_task, "request", None)
    facts = delivery_of(request) if execution is None else execution.delivery
    return None if facts is None else Job(facts.run, facts.entry, facts.attempt, facts.task_id)


_main: Final = ProcessState(int, is_of_worker=True)
"""The pid of the main process of the worker that this process belongs to; 0: not known."""


def _on_worker_init(sender: object, **_: object) -> None:
    _main.now = os.getpid()
    app: Celery = sender.app  # type: ignore[attr-defined]  # a WorkController; celery has no types
    instrument(app)
    if not is_in_process(str(app.conf.broker_url)):  # no other process can ask there
        from pytest_manifest.worker.signing import signer

        marks = [WORKER_MARK]
        if (key := signer()) is not None:  # it signs what it reports, with the key of this id
            marks.append(f"{SIGNED_MARK}{key.key_id}")
        # By which whoever shares its machine can see whether it lives.
        if (identity := own_identity()) is not None:
            marks.append(f"{PROCESS_MARK}{identity}")
        if os.environ.get(STACKS):
            from pytest_manifest.worker import stacks  # noqa: F401 - which adds the command

            show_stacks()
            marks.append(STACKS_MARK)
        for mark in marks:
            app.task(_mark, name=mark, ignore_result=True)
    _take_digests(app)


def _mark() -> None:
    """Mark, by being registered, a worker that sends receipts; it is never called."""


def _take_digests(app: Celery) -> None:
    """Compute the tasks' code digests before files change and before the pool forks.

    Each task has its own as an attribute, which the worker tells before a dispatch.
    """
    from pytest_manifest.schema.wire import CODE_ATTRIBUTE, told_digest

    for name, task in app.tasks.items():
        if not name.startswith("celery."):
            setattr(task, CODE_ATTRIBUTE, told_digest(task))


def _on_process_init(**_: object) -> None:
    from celery import current_app

    from pytest_manifest.worker.signals import enter_process

    instrument(current_app)
    # A solo worker, which has no process of its own for its tasks, sends this signal too.
    is_pool_child = os.getpid() != _main.now
    if is_pool_child and os.environ.get(STACKS):
        show_stacks()
    enter_process(is_pool_child=is_pool_child)


def _on_failed_receiver(receiver: object, error: BaseException) -> None:
    from pytest_manifest.worker.signals import note_failure

    note_failure(receiver, error)


# An app's receivers are called before ours where it has connected them before, so now.
after_receiver_failed(_on_failed_receiver)
worker_init.connect(_on_worker_init, dispatch_uid="pytest_manifest.worker.init")
worker_process_init.connect(_on_process_init, dispatch_uid="pytest_manifest.worker.process")
