"""Read a message's headers, and measure the execution of its task in this process.

A :class:`Delivery` is one delivery of a message with our headers; an :class:`Execution` is its task
while it runs: clocks, log lines, evidence.

Keep what coverage.py has measured in a pool's process, which ends without Python's own end.

Capture what a task logs by loguru or the standard library, without changing other logging.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import Context, ContextVar, Token
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from celery.signals import worker_process_shutdown
from loguru import logger

from pytest_manifest import log, processes
from pytest_manifest.process_state import ProcessState, holding
from pytest_manifest.redaction.texts import hide_environment, redact
from pytest_manifest.schema import wire
from pytest_manifest.schema.json_values import json_value
from pytest_manifest.schema.wire import arguments_sha256, parse_moment, timestamp
from pytest_manifest.worker.children import Children
from pytest_manifest.worker.spool import Lines, Spool, TaskOutput, with_earlier

if TYPE_CHECKING:
    from loguru import Message, Record
    from pydantic import JsonValue


def on_process_init(**_: object) -> None:
    """Have this process save what is measured in it before SIGTERM ends it, where any is."""
    if _measuring() is not None:
        signal.signal(signal.SIGTERM, _save_and_end)
    if processes.SUPERVISED in os.environ:  # of what is connected now the last
        worker_process_shutdown.connect(_leave)


def _leave(exitcode: int, **_: object) -> None:
    """Exit, as billiard does in a second from here, where the process is not one to be replaced."""
    if exitcode <= 0:
        os._exit(exitcode)


def on_process_shutdown(**_: object) -> None:
    """Save what was measured: the pool ends this process by ``os._exit``."""
    current = _measuring()
    if current is not None:
        with suppress(Exception):  # of a report about a job, which must not end otherwise for it
            current.stop()
            current.save()


def _measuring() -> Any | None:
    """Give coverage.py's measurement of this process; None where there is none."""
    coverage = sys.modules.get("coverage")
    return None if coverage is None else coverage.Coverage.current()


def _save_and_end(number: int, _frame: object) -> None:
    on_process_shutdown()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


DEFAULT_TTL = 7 * 24 * 3600
EXECUTION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one message, named by ``execution``; ``ttl`` in seconds, times as text.

    ``root``: the task id of its entry's job, where all that this starts is asked for. ``parent``:
    that of the task that started it, where it is a descendant.
    """

    run: str
    entry: str
    attempt: int
    task_id: str
    task: str
    execution: str
    stream: str | None
    ttl: int
    worker: str | None
    queue: str | None
    sent_at: str | None
    received_at: str | None
    redelivered: bool
    retries: int
    replaced: bool
    retried: Sequence[Mapping[str, JsonValue]] = ()
    hop: int = 0
    root: str | None = None
    parent: str | None = None


OF_ENTRY: Final = ("run", "entry", "attempt")
OF_JOB: Final = (*OF_ENTRY, "task_id", "execution")


def fields_of(one: object, *names: str) -> dict[str, JsonValue]:
    """Return these attributes of a delivery, or of an execution's measures, as a document."""
    return {name: getattr(one, name) for name in names}


def is_of_manifest(request: object) -> bool:
    """Return whether a task's request has the headers of a manifest's run."""
    return wire.HEADER_RUN in getattr(request, "__dict__", ())


def new_execution() -> str:
    """Return a random name for one execution."""
    return secrets.token_hex(EXECUTION_BYTES)


def delivery_of(request: object) -> Delivery | None:
    """Read a task's request (``task.request``); None where it has none of our headers."""
    if not is_of_manifest(request):
        return None
    # The instance's own dictionary: Celery's Context defaults to None for all else.
    fields: dict[str, object] = request.__dict__
    # A message that was refused before ``task_received`` has no execution's name yet.
    fields.setdefault(wire.HEADER_EXECUTION, new_execution())
    return _delivery(fields)


def delivery_of_fields(fields: Mapping[str, object]) -> Delivery | None:
    """Read the fields of a request that a worker's main process keeps; None without our headers."""
    is_ours = wire.HEADER_RUN in fields and wire.HEADER_EXECUTION in fields
    return _delivery(fields) if is_ours else None


def _delivery(fields: Mapping[str, object]) -> Delivery:
    # A worker without this package sends replacements without our header; Celery counts them too.
    hop = max(_integer(fields.get(wire.HEADER_HOP)), _integer(fields.get("replaced_task_nesting")))
    info = fields.get("delivery_info")
    info = info if isinstance(info, Mapping) else {}
    return Delivery(
        run=str(fields[wire.HEADER_RUN]),
        entry=str(fields.get(wire.HEADER_ENTRY)),
        attempt=_integer(fields.get(wire.HEADER_ATTEMPT)),
        task_id=str(fields.get("id")),
        task=str(fields.get("task")),
        execution=str(fields[wire.HEADER_EXECUTION]),
        stream=_text(fields.get(wire.HEADER_STREAM)) or None,
        ttl=_integer(fields.get(wire.HEADER_TTL)) or DEFAULT_TTL,
        worker=_text(fields.get("hostname")),
        queue=_text(info.get("routing_key")),
        sent_at=_text(fields.get(wire.HEADER_SENT_AT)),
        received_at=_text(fields.get(wire.HEADER_RECEIVED_AT)),
        redelivered=bool(info.get("redelivered")),
        retries=_integer(fields.get("retries")),
        replaced=hop > 0,
        retried=_documents(fields.get(wire.HEADER_RETRIED)),
        hop=hop,
        root=_text(fields.get(wire.HEADER_ROOT)),
        parent=_text(fields.get(wire.HEADER_PARENT)),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _documents(value: object) -> Sequence[Mapping[str, JsonValue]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else ()


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


RESULT_LIMIT_VARIABLE: Final = "MANIFEST_RESULT_LIMIT"
DEFAULT_RESULT_LIMIT: Final = 1024 * 1024
# ru_maxrss is in KiB on Linux, in bytes on macOS.
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


def result_limit() -> int:
    """Return how many bytes of JSON a receipt may have of a result; larger ones it omits."""
    try:
        return int(os.environ.get(RESULT_LIMIT_VARIABLE, ""))
    except ValueError:
        return DEFAULT_RESULT_LIMIT


@dataclass(frozen=True, slots=True)
class RunMeasures:
    """The measures of an execution: seconds, bytes, and times as text."""

    pid: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    wait: float | None = None
    runtime: float | None = None
    cpu: float | None = None
    max_rss: int | None = None


class Execution:
    """A running task, from ``begin`` to ``end``, in the process and thread that run it."""

    def __init__(
        self, delivery: Delivery, args: object, kwargs: object, code: str | None = None
    ) -> None:
        self.delivery = delivery
        self.code = code
        self.args_sha256 = arguments_sha256(args, kwargs)  # now: the task may change its arguments
        self.lines = Lines()
        self.evidence: dict[str, JsonValue] = {}
        self.replaced = False
        self.has_ended = False
        self.is_over = False
        """Whether its task has ended; handlers that Celery calls after that may go on."""
        self.children: Children | None = None
        """The tasks that it starts, where the run wants to know of them and can be told."""
        self.announce: Callable[[bytes], None] | None = None
        """Sends a record to the run's stream, where there is one."""
        self.store_own_state: Callable[[], str] | None = None
        """Stores, at its end, a final state that the task has given itself, and returns it."""
        self.unstored_end: object = None
        """Its own end, where the store has refused it: see ``unstored``."""
        self.unsent_start: bytes | None = None
        """The started record where it could not be sent: it goes with the receipt."""
        self.started = datetime.now(timezone.utc)
        self._spool = (
            Spool(delivery.task_id, delivery.execution) if _process.now.is_pool_child else None
        )
        self._evidence_bytes = 0
        self._last: tuple[str, str] | None = None
        self._token: Token[Execution | None] | None = None
        self._log_context: AbstractContextManager[None] | None = None
        # In a pool of threads the process's clock would count the other tasks too.
        self._clock = time.process_time if _process.now.runs_one_task else time.thread_time
        self.start_clocks()

    def start_clocks(self) -> None:
        """Start counting the task's time, without this package's own work before it."""
        self._cpu = self._clock()
        self._begun = time.monotonic()

    def begin(self) -> None:
        """Attribute the process's log lines to this task from now on."""
        delivery = self.delivery
        self._log_context = logger.contextualize(
            run=delivery.run,
            entry=delivery.entry,
            task_id=delivery.task_id,
            attempt=delivery.attempt,
        )
        self._log_context.__enter__()
        self._token = _current.set(self)
        _process.now.running = self if _process.now.runs_one_task else None

    def end(self, *, killed: bool) -> None:
        """End the task. ``killed``: its process ends too, and the main process reports it."""
        self.has_ended = True
        if self.children is not None:
            self.children.close()
        _process.now.running = None
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        if self._log_context is not None:
            self._log_context.__exit__(None, None, None)
            self._log_context = None
        if self._spool is not None and not killed:
            self._spool.close(stale=self.delivery.redelivered)

    def add_log(self, text: str, *, message: str, origin: str) -> None:
        """Keep a log record's text, once where it comes by both ways (``origin``)."""
        if self._last is not None and self._last[0] == message and self._last[1] != origin:
            self._last = None
            return
        self._last = message, origin
        for line in redact(text).splitlines():
            self.lines.add(line)
            if self._spool is not None:
                self._spool.add_line(line, self.lines)

    def add_evidence(self, values: Mapping[str, JsonValue]) -> None:
        """Merge values in. Raises TypeError for one that is no JSON, ValueError for too many."""
        checked = {name: _json_value(name, value) for name, value in values.items()}
        size = self._evidence_bytes + len(json.dumps(checked))
        if size > result_limit():
            raise ValueError(
                f"evidence {', '.join(checked)} makes this task's evidence larger than "
                f"{result_limit()} bytes; keep large things elsewhere and give their address"
            )
        self._evidence_bytes = size
        self.evidence.update(checked)
        if self._spool is not None:
            self._spool.add_evidence(checked)

    def ran(self) -> RunMeasures:
        """Return the measures up to now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return RunMeasures(
            pid=os.getpid(),
            started_at=timestamp(self.started),
            finished_at=timestamp(datetime.now(timezone.utc)),
            wait=seconds_since(self.delivery.sent_at, self.started),
            runtime=round(time.monotonic() - self._begun, 6),
            cpu=round(self._clock() - self._cpu, 6),
            max_rss=usage.ru_maxrss * _RSS_UNIT if _process.now.is_pool_child else None,
        )

    def output(self) -> TaskOutput:
        """Return its log lines and evidence so far."""
        return TaskOutput(self.lines.as_list(), self.lines.dropped, self.all_evidence())

    def all_evidence(self) -> dict[str, JsonValue]:
        """Return the evidence so far, with that of a process that died in this execution."""
        return with_earlier(self._spool.earlier if self._spool else {}, self.evidence)


class _Process:
    """The state of this process; ``running``: its task, where it runs one at a time."""

    def __init__(self) -> None:
        self.running: Execution | None = None
        self.runs_one_task = False
        self.is_pool_child = False


_process: Final = ProcessState(_Process, is_of_worker=True)
_current: ContextVar[Execution | None] = ContextVar("manifest_execution", default=None)


def current_execution() -> Execution | None:
    """Return the execution that the caller belongs to.

    Where a process runs one task at a time, threads that the task started belong to it too.
    """
    execution = _current.get()
    if execution is None:
        return _process.now.running
    return None if execution.has_ended else execution  # a thread may outlive its task


def end_what_is_left(*, is_over: bool = False) -> None:
    """End the execution of this thread, if there is one; ``is_over``: only where its task is over,
    as no more handlers are called."""
    execution = own_execution()
    if execution is not None and (execution.is_over or not is_over):
        execution.end(killed=False)


def own_execution() -> Execution | None:
    """Return the execution of this thread, or the one that gave it what it does; none that ended.

    A thread of a pool that an earlier task made belongs to nobody by itself.
    """
    execution = _current.get()
    return None if execution is None or execution.has_ended else execution


def outlived_execution() -> Execution | None:
    """Return the execution that started what this thread does, if it has ended meanwhile."""
    execution = _current.get()
    return execution if execution is not None and execution.has_ended else None


def context_of_own_execution() -> Context | None:
    """Return a context that makes what runs in it belong to this execution; None: there is none."""
    execution = own_execution()
    if execution is None:
        return None
    context = Context()
    context.run(_current.set, execution)
    return context


def running_within(execution: Execution | None) -> AbstractContextManager[None]:
    """Have what this thread does belong to an execution that another thread runs."""
    return holding(_current, execution)


def run_one_task_at_a_time(*, is_pool_child: bool) -> None:
    """Declare that this process does: a child of a prefork pool, or a whole solo worker.

    A pool's child can be killed with its task; the worker's main process then reports it.
    """
    _process.now.runs_one_task = True
    _process.now.is_pool_child = is_pool_child


def runs_in_pool_child() -> bool:
    """Return whether this process is one that a prefork pool can lose with its task."""
    return _process.now.is_pool_child


def seconds_since(earlier: str | None, later: datetime) -> float | None:
    """Return the seconds from a time as text to ``later``; 0 where two hosts' clocks disagree."""
    if earlier is None:
        return None
    try:
        return max(0.0, round((later - parse_moment(earlier)).total_seconds(), 6))
    except (ValueError, TypeError):  # not a time, or one without a zone
        return None


def _json_value(name: str, value: object) -> JsonValue:
    try:
        return json_value(value)
    except ValueError as error:
        raise TypeError(f"evidence {name!r} {error}") from None


# What Celery logs of a task is in its receipt anyway.
_NOT_THE_TASK: Final = ("celery.app.trace", "celery.worker.request", "celery.worker.strategy")
_EVERY_JOB: Final = ("celery.app.trace", "celery.worker.strategy")
_ROOTS: Final = ("", "celery.task")  # Celery keeps task loggers' records from the root logger


def sets_up_logging() -> bool:
    """Return whether a log format is set, so that this process's logging is set up here."""
    return processes.LOG_FORMAT in os.environ


def set_up_own_logging() -> None:
    """Route all that this process logs through loguru."""
    level, is_json = _level(), os.environ[processes.LOG_FORMAT] == "json"
    log.configure(format="json" if is_json else "text", level=level)
    log.intercept_stdlib(level)
    if os.environ.get(processes.LOG_JOBS) == "0" and logging.getLogger().level > logging.DEBUG:
        # Two lines a job (received, succeeded) cost as much as a round trip to the broker, and the
        # receipt has what they say. Failures are logged as warnings or errors.
        for name in _EVERY_JOB:
            logging.getLogger(name).setLevel(logging.WARNING)
    catch_loguru(again=True)


def catch_loguru(*, again: bool = False) -> None:
    """Add the sink that keeps tasks' lines; ``again``: also where one was added before."""
    here = _added.now
    if here.to_loguru is None or again:
        hide_environment()
        here.to_loguru = logger.add(
            _keep,
            level=_level(),
            format=_loguru_format,
            filter=_is_wanted,
            backtrace=False,
            diagnose=False,
            catch=True,
        )


def catch_stdlib() -> None:
    """Capture records of the standard library's loggers; cheap enough to call for every task."""
    if sets_up_logging():
        return  # they come by loguru
    handler = _added.now.to_logging
    for name in _ROOTS:
        target = logging.getLogger(name)
        if handler not in target.handlers and (target.parent is None or not target.propagate):
            target.addHandler(handler)


def _keep(message: Message) -> None:
    execution = current_execution()
    if execution is not None:
        record = message.record
        execution.add_log(str(message), message=record["message"], origin="loguru")


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        execution = current_execution()
        if execution is None or record.name in _NOT_THE_TASK:
            return
        try:
            execution.add_log(self.format(record), message=record.getMessage(), origin="logging")
        except Exception:  # as logging's handlers do
            self.handleError(record)


class _Added:
    """The handlers that a worker has added to its process's loggers."""

    def __init__(self) -> None:
        self.to_loguru: int | None = None
        self.to_logging = _Handler()
        line = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
        formatter = logging.Formatter(line, "%H:%M:%S")
        formatter.converter = time.gmtime
        self.to_logging.setFormatter(formatter)

    def close(self) -> None:
        """Remove them."""
        if self.to_loguru is not None:
            with suppress(ValueError):  # the app has removed all sinks
                logger.remove(self.to_loguru)
        for name in _ROOTS:
            logging.getLogger(name).removeHandler(self.to_logging)


_added: Final = ProcessState(_Added, is_of_worker=True)


def _level() -> str:
    return os.environ.get(processes.LOG_LEVEL, "INFO").upper()


def _is_wanted(record: Record) -> bool:
    return current_execution() is not None and record["name"] not in _NOT_THE_TASK


def _loguru_format(_record: Record) -> str:
    return "{time:HH:mm:ss.SSS!UTC} {level} {name}: {message}\n{exception}"
