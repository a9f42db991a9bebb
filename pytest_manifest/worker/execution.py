"""The execution of one of our tasks in this process: clocks, log lines, evidence."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from loguru import logger
from pydantic import JsonValue

from pytest_manifest.log import redact
from pytest_manifest.schema.fields import json_value
from pytest_manifest.schema.wire import arguments_sha256, timestamp
from pytest_manifest.worker.delivery import Delivery
from pytest_manifest.worker.lines import Lines
from pytest_manifest.worker.spool import Spool, Spooled

RESULT_LIMIT_VARIABLE: Final = "MANIFEST_RESULT_LIMIT"
DEFAULT_RESULT_LIMIT: Final = 1024 * 1024
# ru_maxrss is in KiB on Linux, in bytes on macOS.
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


def result_limit() -> int:
    """Bytes of JSON that a receipt carries of a result; a larger one stays in the result store."""
    try:
        return int(os.environ.get(RESULT_LIMIT_VARIABLE, ""))
    except ValueError:
        return DEFAULT_RESULT_LIMIT


@dataclass(frozen=True, slots=True)
class Ran:
    """What is known of a run: seconds, bytes, and times as text."""

    pid: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    wait: float | None = None
    runtime: float | None = None
    cpu: float | None = None
    max_rss: int | None = None


class Execution:
    """From ``begin`` to ``end``, in the process and thread that run the task."""

    def __init__(
        self, delivery: Delivery, args: object, kwargs: object, code: str | None = None
    ) -> None:
        self.delivery = delivery
        self.code = code
        self.args_sha256 = arguments_sha256(args, kwargs)  # now: the task may change its arguments
        self.lines = Lines()
        self.evidence: dict[str, JsonValue] = {}
        self.replaced = False
        self.announce: Callable[[bytes], None] | None = None
        """Puts a record into the run's stream, where there is one."""
        self.own_end: Callable[[], object] | None = None
        """Stores a final state that the task has given itself, where that waits for its end."""
        self.untold: bytes | None = None
        """The record of its start, where that could not be sent: the end brings it."""
        self.started = datetime.now(UTC)
        self._spool = (
            Spool(delivery.task_id, delivery.execution) if _process.is_pool_child else None
        )
        self._evidence_bytes = 0
        self._last: tuple[str, str] | None = None
        self._token: Token[Execution | None] | None = None
        self._log_context: AbstractContextManager[None] | None = None
        self._clock = _cpu_clock()
        self.start_clocks()

    def start_clocks(self) -> None:
        """From here on time counts as the task's: what goes before is our own doing."""
        self._cpu = self._clock()
        self._begun = time.monotonic()

    def begin(self) -> None:
        """From here on the process's log lines are this task's."""
        facts = self.delivery
        self._log_context = logger.contextualize(
            run=facts.run, entry=facts.entry, task_id=facts.task_id, attempt=facts.attempt
        )
        self._log_context.__enter__()
        self._token = _current.set(self)
        _process.running = self if _process.runs_one_task else None

    def end(self, *, killed: bool) -> None:
        """The task is over. ``killed``: its process is ending too, and others will tell of it."""
        _process.running = None
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        if self._log_context is not None:
            self._log_context.__exit__(None, None, None)
            self._log_context = None
        if self._spool is not None and not killed:
            self._spool.close(stale=self.delivery.redelivered)

    def add_log(self, text: str, *, message: str, origin: str) -> None:
        """Keep a log record's text. One that comes by two ways (``origin``) is kept once."""
        if self._last is not None and self._last[0] == message and self._last[1] != origin:
            self._last = None
            return
        self._last = message, origin
        for line in redact(text).splitlines():
            self.lines.add(line)
            if self._spool is not None:
                self._spool.add_line(line, self.lines)

    def add_evidence(self, facts: Mapping[str, JsonValue]) -> None:
        """Merge facts in; TypeError names one that is no JSON, ValueError says it is too much."""
        checked = {name: _json_fact(name, value) for name, value in facts.items()}
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

    def ran(self) -> Ran:
        """The clocks as they stand now."""
        return Ran(
            pid=os.getpid(),
            started_at=timestamp(self.started),
            finished_at=timestamp(datetime.now(UTC)),
            wait=seconds_since(self.delivery.sent_at, self.started),
            runtime=round(time.monotonic() - self._begun, 6),
            cpu=round(self._clock() - self._cpu, 6),
            max_rss=_max_rss() if _process.is_pool_child else None,
        )

    def said(self) -> Spooled:
        """Its log lines and evidence so far."""
        return Spooled(self.lines.as_list(), self.lines.dropped, dict(self.evidence))


class _Process:
    """What this process is: ``running`` is its task, where it runs one at a time."""

    def __init__(self) -> None:
        self.running: Execution | None = None
        self.runs_one_task = False
        self.is_pool_child = False


_process = _Process()
_current: ContextVar[Execution | None] = ContextVar("manifest_execution", default=None)


def current_execution() -> Execution | None:
    """The execution that the caller belongs to.

    Where a process runs one task at a time, threads that the task started belong to it too.
    """
    return _current.get() or _process.running


def run_one_task_at_a_time(*, is_pool_child: bool) -> None:
    """Say that this process does: as a child of a prefork pool, or as a whole solo worker.

    A pool child can be killed for its task; the worker's main process then tells of it.
    """
    _process.runs_one_task = True
    _process.is_pool_child = is_pool_child


def seconds_since(earlier: str | None, later: datetime) -> float | None:
    """Seconds between a time as text and ``later``; 0 where clocks of two hosts disagree."""
    if earlier is None:
        return None
    try:
        return max(0.0, round((later - datetime.fromisoformat(earlier)).total_seconds(), 6))
    except (ValueError, TypeError):  # not a time, or one without a zone
        return None


def _cpu_clock() -> Callable[[], float]:
    # In a pool of threads the process's clock would count the other tasks too.
    return time.process_time if _process.runs_one_task else time.thread_time


def _max_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _json_fact(name: str, value: object) -> JsonValue:
    try:
        return json_value(value)
    except ValueError as error:
        raise TypeError(f"evidence {name!r} {error}") from None
