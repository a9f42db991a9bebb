"""Connect the worker's side to an app, by Celery's signals and its table of backends.

Parts: setting up an app and a process, signals of the main process, signals around a task, and
signals at the end of a private stack's worker.

Record the deaths of processes after which Celery sends their jobs again.

Celery 5.7 does so for tasks with ``retry_on_worker_lost``: the worker's main process sends a retry.

Remember where this process is connected to Celery and others, and take that back.

Have the greenlets that a task spawns with gevent belong to it, as its threads do.

A greenlet begins with an empty context, in every pool.

Report receivers of Celery's signals that raise, which Celery logs and then goes on.

An app may store a task's work in a receiver of ``task_success``: the state of the task does not say
that this failed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from celery import current_task, states
from celery import signals as celery_signals
from celery.app.task import Context
from celery.exceptions import NotRegistered, WorkerShutdown, WorkerTerminate
from loguru import logger

from pytest_manifest import processes
from pytest_manifest.compat.celery import after_undecodable
from pytest_manifest.compat.threads import hand_on_to_threads
from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction.texts import redact
from pytest_manifest.schema import stream_records, wire
from pytest_manifest.schema.statuses import State
from pytest_manifest.schema.wire import told_digest
from pytest_manifest.worker import announcements, backends, handoff, job, receipt
from pytest_manifest.worker.backend_base import ReceiptBackend
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.children import Document, Message

if TYPE_CHECKING:
    from celery import Celery


LONGEST: Final = 300
"""Characters of an error's text that are reported."""
MOST: Final = 5
"""Failures at a worker's start that are kept for its jobs."""


_at_start: Final[ProcessState[list[dict[str, str]]]] = ProcessState(list, is_of_worker=True)
"""Failures at the start of this worker, for its first job."""


def note_failure(receiver: object, error: BaseException) -> None:
    """Report the failure with the running job; one at the worker's start goes with its next job."""
    request = getattr(current_task, "request", None)
    first = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    failure = {"receiver": _name(receiver), "error": redact(text)[:LONGEST]}
    if job.is_of_manifest(request):
        _report_failure(current_task, request, failure, at_start=False)
    elif getattr(request, "id", None) is None and len(_at_start.now) < MOST:
        _at_start.now.append(failure)


def report_failures_at_start(task: object, request: object) -> None:
    """Report, with the first job of this process, what failed before it."""
    waiting, _at_start.now = _at_start.now, []
    for failure in waiting:
        _report_failure(task, request, failure, at_start=True)


def _report_failure(
    task: object, request: object, failure: dict[str, str], *, at_start: bool
) -> None:
    try:
        delivery = job.delivery_of(request)
        backend = ensure_receipts(getattr(task, "backend", None))
        if delivery is not None and isinstance(backend, ReceiptBackend):
            record: Document = {
                "kind": stream_records.KIND_RECEIVER_FAILED,
                **job.fields_of(delivery, *job.OF_JOB),
                "failed_at": wire.timestamp(datetime.now(timezone.utc)),
                "at_start": at_start,
                **failure,
            }
            backend.announce(delivery.stream, delivery.ttl, receipt.encode_signed(record))
    except Exception as failed:  # a task's outcome must not change for it
        logger.warning("the failure of {} was not recorded: {}", failure["receiver"], failed)


def _name(receiver: object) -> str:
    module = getattr(receiver, "__module__", None) or type(receiver).__module__
    name = getattr(receiver, "__qualname__", None) or type(receiver).__qualname__
    return f"{module}.{name}"


LOST: Final = "the process that ran it died"


def record_lost_try(
    fields: Mapping[str, Any], headers: MutableMapping[str, object], message: Callable[[], Message]
) -> bool:
    """Record that a worker's main process sends a job again whose process has died.

    ``fields``: of the message that is about to be sent, which ``message`` reads. Returns whether it
    is such a one: Celery 5.7 has ``retry_on_worker_lost`` for that.
    """
    task_id, retries = fields.get("id"), fields.get("retries")
    for _, request in receipt.taken_requests():
        if request.id != task_id or not isinstance(retries, int):
            continue
        delivery = job.delivery_of_fields(request.request_dict)
        if delivery is None or delivery.retries + 1 != retries:
            continue
        began = request.time_start
        started = datetime.fromtimestamp(began, timezone.utc) if began else None
        error: Document = {"type": "WorkerLostError", "message": LOST, "traceback": None}
        headers[wire.HEADER_RETRIED] = handoff.retries_with(delivery, started, error)
        headers.update(handoff.job_headers(delivery, delivery.hop))
        how, more = stream_records.HANDED_ON_AFTER_DEATH, handoff.next_message(message())
        record = receipt.handed_on_record(delivery, how, more)
        try:
            if isinstance(backend := request.task.backend, ReceiptBackend):
                backend.announce(delivery.stream, delivery.ttl, record)
        except Exception as failed:  # the job goes on
            logger.warning("the death of {}'s process was not recorded: {}", task_id, failed)
        return True
    return False


# For workers of the private stack: its broker, which also holds the results, is restarted.
OWN_SETTINGS: Final[dict[str, object]] = {
    # A job that has succeeded must not fail because its result cannot be stored at this moment.
    "result_backend_always_retry": True,
    "result_backend_max_sleep_between_retries_ms": 1000,
    "result_backend_transport_options": {
        "retry_policy": {"max_retries": 20, "interval_step": 0.2, "interval_max": 1.0}
    },
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
}


def instrument_app(app: Celery) -> None:
    """Make this app's backends send receipts, and connect this process's signals."""
    loader = app.loader
    # Backends that the app chose itself stay; the first message turns them into ours.
    named = loader.override_backends.items()
    others = {name: path for name, path in named if not path.startswith(backends.__name__)}
    loader.override_backends = {**backends.overrides(), **others}
    connect()


def enter_process(*, is_pool_child: bool) -> None:
    """Set up a new process of a prefork pool, or the one process of a solo worker."""
    job.run_one_task_at_a_time(is_pool_child=is_pool_child)
    connections.now.make("threads", partial(hand_on_to_threads, _captured))
    job.catch_loguru()


def connect() -> None:
    """Connect the signals; a second call changes nothing."""
    here = connections.now
    here.make("replacements", handoff.follow_replacements)
    for signal, receiver in (
        (celery_signals.task_received, on_received),
        (celery_signals.task_unknown, on_unknown),
        (celery_signals.task_rejected, on_rejected),
        (celery_signals.worker_ready, _on_ready),
        (celery_signals.task_prerun, on_prerun),
        (celery_signals.task_postrun, on_postrun),
        (celery_signals.before_task_publish, on_publish),
        (celery_signals.after_task_publish, on_published),
        (celery_signals.worker_process_init, job.on_process_init),
        (celery_signals.worker_process_shutdown, job.on_process_shutdown),
    ):
        here.receive(signal, receiver, f"{receiver.__module__}.{receiver.__name__}")
    if job.sets_up_logging():
        here.receive(celery_signals.setup_logging, _on_setup_logging, f"{__name__}.logging")
    if processes.SUPERVISED in os.environ:
        here.receive(celery_signals.celeryd_after_setup, _on_set_up, f"{__name__}.settings")


def _on_ready(sender: Any, **_: object) -> None:
    # Celery only logs messages that cannot be decoded.
    after_undecodable(sender, lambda message, error: _refuse(sender, message, "rejected", error))
    ensure_receipts(sender.app.backend)
    job.catch_loguru()
    connections.now.make("threads", partial(hand_on_to_threads, _captured))


def _captured() -> Callable[[], AbstractContextManager[None]]:
    """Return what makes a thread belong to the task of the thread that gives it its work."""
    return partial(job.running_within, job.own_execution())


def _on_set_up(conf: Any, **_: object) -> None:
    """Set what the app has not set itself, before anything connects or is forked."""
    for name, value in OWN_SETTINGS.items():
        if not conf.value_set_for(name):
            conf[name] = value
    # Imported objects stay for good, so the collector need not visit them: in the pool's processes
    # that would copy their memory, at the worker's end it takes 0.2 s of 0.3 s.
    gc.freeze()


def _on_setup_logging(**_: object) -> None:
    from celery import current_app

    job.set_up_own_logging()
    if current_app.conf.worker_redirect_stdouts:
        # Celery leaves redirection to the logging's owner; tasks' prints are kept as well.
        current_app.log.redirect_stdouts(current_app.conf.worker_redirect_stdouts_level)


def on_received(request: Any, **_: object) -> None:
    """Name the execution and record its time; both reach the pool's process with the request."""
    fields: dict[str, object] = request.request_dict
    if wire.HEADER_RUN not in fields:
        return
    execution = job.new_execution()
    fields[wire.HEADER_EXECUTION] = execution
    fields[wire.HEADER_RECEIVED_AT] = wire.timestamp(datetime.now(timezone.utc))
    receipt.remember_request(execution, request)
    _keep_hard_limit(request)
    has_store = isinstance(ensure_receipts(request.task.backend), ReceiptBackend)
    if not has_store and connections.now.is_first("warned of no store"):
        logger.warning(
            "jobs of a manifest come in, but this app has no result store for their receipts; "
            "set result_backend (or CELERY_RESULT_BACKEND), best to Redis"
        )


def _keep_hard_limit(request: Any) -> None:
    """Keep the hard limit where it is: Celery would count it from a later soft limit on."""
    hard, soft = request.time_limits
    soft = soft or request.task.soft_time_limit
    if hard and soft and soft > hard:
        request.time_limits = (hard, hard if request.task.soft_time_limit else None)


def on_unknown(sender: Any, message: object, name: str = "", **_: object) -> None:
    """Send the receipt of a message whose task is not registered here."""
    _refuse(sender, message, "unknown_task", NotRegistered(name))


def on_rejected(
    sender: Any, message: object, exc: BaseException | None = None, **_: object
) -> None:
    """Send the receipt of a malformed message (an invalid time, arguments of a wrong type)."""
    _refuse(sender, message, "rejected", exc)


def _refuse(consumer: Any, message: Any, state: State, error: BaseException | None) -> None:
    """Report a message of ours that never became a task."""
    backend = ensure_receipts(consumer.app.backend)
    if wire.HEADER_RUN in (message.headers or ()) and isinstance(backend, ReceiptBackend):
        properties = message.properties or {}
        request = Context(
            message.headers,
            hostname=consumer.hostname,
            delivery_info=message.delivery_info or {},
            reply_to=properties.get("reply_to"),
            correlation_id=properties.get("correlation_id"),
        )
        backend.report(request, receipt.refused(state, error))


def on_prerun(task: Any, args: object, kwargs: object, **_: object) -> None:
    """Send the task's started record, and begin to capture its log lines."""
    request = task.request
    if not job.is_of_manifest(request):
        return
    delivery = job.delivery_of(request)
    assert delivery is not None
    backend = ensure_receipts(task.backend)
    job.catch_stdlib()
    follow_greenlets()
    execution = job.Execution(delivery, args, kwargs, told_digest(task))
    setattr(request, receipt.EXECUTION, execution)
    execution.begin()
    if isinstance(backend, ReceiptBackend):
        execution.announce = partial(backend.announce, delivery.stream, delivery.ttl)
        if backend.has_stream and announcements.wants_children(delivery):
            following = request.chain[-1] if request.chain else None
            links = request.callbacks or ()
            execution.children = announcements.children_of(
                delivery, backend.announce, links, following
            )
        handoff.announce(execution, receipt.started_record(execution), handoff.START)
        report_failures_at_start(task, request)
    execution.start_clocks()


def on_postrun(task: Any, state: str | None = None, retval: object = None, **_: object) -> None:
    """End the task's execution, and send a receipt where Celery stores no result."""
    request = task.request
    if not job.is_of_manifest(request):
        return
    execution = receipt.execution_of(request)
    if execution is None:
        return
    backend = task.backend
    left_to_main = state == states.REJECTED and getattr(backend, "main_reports_rejections", False)
    # No state: a BaseException that is no Exception is propagating, and ends a pool's process.
    killed = state is None or left_to_main
    if (
        not killed
        and execution.children is not None
        and announcements.goes_on(execution.children, task)
    ):
        execution.is_over = True  # what Celery calls after this may start others, too
    else:
        execution.end(killed=killed)
    if not isinstance(backend, ReceiptBackend):
        return
    if state is None and _ends_unseen(escaping := sys.exc_info()[1]):
        backend.report(request, receipt.refused("crashed", escaping))
    if not isinstance(retval, BaseException):
        return
    if state == states.IGNORED and not execution.replaced:
        backend.report(request, receipt.refused("ignored", retval))
    elif state == states.REJECTED and not left_to_main and not getattr(retval, "requeue", False):
        backend.report(request, receipt.refused("rejected", retval))


WORKER_ENDS: Final = (WorkerShutdown, WorkerTerminate)
GREEN: Final = ("gevent", "eventlet", "greenlet")
"""Packages whose exceptions end a job for its pool, which knows why."""


def _ends_unseen(error: BaseException | None) -> bool:
    """Return whether Celery reports nothing of a task that raised this, no ``Exception``.

    A prefork pool's process ends of it, which its main process reports. In other pools nobody does,
    but of what the pool itself has raised: a time limit, or the end of the worker.
    """
    if error is None or job.runs_in_pool_child() or isinstance(error, WORKER_ENDS):
        return False
    return type(error).__module__.partition(".")[0] not in GREEN


def on_publish(
    headers: MutableMapping[str, object] | None = None,
    body: object = None,
    routing_key: object = None,
    declare: object = None,
    **_: object,
) -> None:
    """Give our headers to a message that continues our task, or that it starts another one by."""
    if not isinstance(headers, MutableMapping):
        return
    # A task that hands on all headers of its own message starts another one all the same.
    are_copied = headers.pop(wire.HEADER_EXECUTION, None) is not None
    headers.pop(wire.HEADER_RECEIVED_AT, None)
    execution = job.current_execution()
    # Celery's protocol 1 has in the body what protocol 2 has in the headers.
    fields = body if isinstance(body, Mapping) else headers
    message = partial(announcements.message_of, headers, body, routing_key, declare)
    if execution is None and record_lost_try(fields, headers, message):
        return
    if execution is None or fields.get("id") != execution.delivery.task_id:
        children = announcements.current_children()
        # One that has our headers carries a job to its end: see ``handoff``.
        if children is not None and (are_copied or wire.HEADER_RUN not in headers):
            children.adopt(message(), headers)
        elif children is None:
            announcements.warn_of_outlived(fields.get("id"))
        return
    delivery = execution.delivery
    if fields.get("retries") == delivery.retries + 1:
        headers[wire.HEADER_RETRIED] = handoff.retries_so_far(execution)
        headers.update(handoff.job_headers(delivery, delivery.hop))
        handoff.record_handoff(execution, "retry", message())
    else:
        headers.update(handoff.job_headers(delivery, delivery.hop + 1))
        handoff.record_handoff(execution, "task", message())


def on_published(headers: object = None, body: object = None, **_: object) -> None:
    """Note that the broker has taken the message of a task that ours starts."""
    children = announcements.current_children()
    if children is not None:
        fields = body if isinstance(body, Mapping) else headers
        if isinstance(fields, Mapping):
            children.confirm(str(fields.get("id")))


class Connections:
    """The connections of this process, each made once, until closed; those of ``before`` stay."""

    def __init__(self, before: Connections | None = None) -> None:
        self._made: set[str] = set() if before is None else set(before._made)
        self._ends = ExitStack()

    def make(self, name: str, connect: Callable[[], Callable[[], object]]) -> None:
        """Call ``connect``, which returns what takes it back; a second time do nothing."""
        if self.is_first(name):
            self._ends.callback(connect())

    def is_first(self, name: str) -> bool:
        """Return whether this name was not asked for before."""
        if name in self._made:
            return False
        self._made.add(name)
        return True

    def receive(self, signal: Any, receiver: Callable[..., object], name: str) -> None:
        """Connect a receiver to a signal of Celery's."""
        if self.is_first(name):
            signal.connect(receiver, weak=False, dispatch_uid=name)
            self._ends.callback(signal.disconnect, dispatch_uid=name)

    def close(self) -> None:
        """Take back what was connected here."""
        self._ends.close()


connections: Final = ProcessState(Connections, inherit=Connections, is_of_worker=True)


def follow_greenlets() -> None:
    """Have greenlets follow their task where gevent has been imported; done again: no change."""
    if "gevent" in sys.modules:
        connections.now.make("gevent", _follow_gevent)


def _follow_gevent() -> Callable[[], None]:
    from gevent import Greenlet

    Greenlet.add_spawn_callback(_hand_on)
    return partial(Greenlet.remove_spawn_callback, _hand_on)


def _hand_on(greenlet: Any) -> None:
    """Give a greenlet that has not begun the task of its spawner; one with a context keeps it."""
    context = job.context_of_own_execution()
    if context is not None and greenlet.gr_context is None:
        greenlet.gr_context = context
