"""Read final states from the Celery result backend, as stock workers write them.

Results are read as stored: an exception stays a type name and a message, and no class is imported
or instantiated for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from celery import states
from celery.exceptions import Reject
from pydantic import JsonValue

from pytest_manifest.broker.client import load_app
from pytest_manifest.errors import StackError
from pytest_manifest.redaction import redact_error, redact_url
from pytest_manifest.results.read_errors import ReadErrors
from pytest_manifest.results.sources import UNREADABLE, Meta, ResultSource, as_json, open_source
from pytest_manifest.schema import ErrorInfo, State
from pytest_manifest.schema.wire import MOST, YEARS, parse_moment, plain_traceback, unwrap_result
from pytest_manifest.urls import StackAddress, scheme_of

CHUNK: Final = 500  # ids a round trip: some 100 KB of small results
FAILURES: Final[Mapping[str, State]] = {
    "WorkerLostError": "crashed",
    "TimeLimitExceeded": "timed_out",
    "SoftTimeLimitExceeded": "timed_out",
    "NotRegistered": "unknown_task",
}
FINAL_STATES: Final[Mapping[str, State]] = {
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.REVOKED: "revoked",
    states.REJECTED: "rejected",
    states.IGNORED: "ignored",
}


@dataclass(frozen=True, slots=True)
class BackendResult:
    """One task's final state as the result backend has it; times are UTC.

    ``worker``, ``queue`` and ``retries`` are known where the app sets ``result_extended``.
    ``receipt`` is what an instrumented worker put inside the result, as it stands there.
    ``no_json``: why ``result`` is None though the task returned something.
    """

    state: State
    result: JsonValue = None
    error: ErrorInfo | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    queue: str | None = None
    retries: int | None = None
    receipt: dict[str, JsonValue] | None = None
    no_json: str | None = None


class ResultReader:
    """Read results of the stack at ``address``. For the one thread that made its first read.

    With ``rpc://`` each result is a message on the run's reply queue, fetched once, by the reader
    in whose runs' names (the first eight characters of its task ids) it comes; it can be read
    until ``discard`` drops it.
    """

    def __init__(self, address: StackAddress, flaws: ReadErrors | None = None) -> None:
        self._address = address
        self._flaws = ReadErrors() if flaws is None else flaws
        self._source: ResultSource | None = None
        self._fetched: dict[str, Meta] = {}
        """What came by ``rpc://``, where it can be had once only, and has not been asked for."""

    def read(self, task_ids: Sequence[str]) -> dict[str, BackendResult]:
        """Give the final states there are for these ids; what is not final yet is left out.

        Raises:
            StackError: the result backend cannot be reached or read; the next call tries anew.
        """
        found: dict[str, BackendResult] = {}
        try:
            if self._source is None:
                app = load_app(self._address)
                self._source = open_source(app, self._address, self._flaws, self._fetched)
            for start in range(0, len(task_ids), CHUNK):
                metas = self._source.read(task_ids[start : start + CHUNK])
                found.update(self._final(metas.items()))
        except StackError:
            raise
        except Exception as error:
            self.close()
            raise StackError(
                f"the result backend {redact_url(self._address.backend_url)} cannot be read "
                f"({redact_error(error, self._address.backend_url)}); check that it is up and that "
                f"its URL is that of the workers"
            ) from error
        return found

    def renewed(self) -> ResultReader:
        """Make another reader with a connection of its own and what this one has fetched."""
        other = ResultReader(self._address, self._flaws)
        other._fetched = self._fetched
        return other

    def discard(self, task_ids: Iterable[str]) -> None:
        """Drop fetched results that have reached the caller."""
        for task_id in task_ids:
            self._fetched.pop(task_id, None)

    def _final(self, metas: Iterable[tuple[str, Meta]]) -> Iterator[tuple[str, BackendResult]]:
        for task_id, meta in metas:
            try:
                result = parse_result(meta)
            except Exception as error:  # what was pickled may be anything, and do anything
                self._flaws.add_result(task_id, f"{type(error).__name__}: {error}")
                continue
            if result is not None:
                yield task_id, result

    def close(self) -> None:
        """End the connection; with ``rpc://`` also what is left on the reply queues."""
        source, self._source = self._source, None
        if source is not None:
            source.close()


def needs_this_process(address: StackAddress) -> bool:
    """Tell whether results come back to this process only (``rpc://``), so no later audit can."""
    return scheme_of(address.backend_url) == "rpc"


def parse_result(meta: Meta) -> BackendResult | None:
    """Read one stored result; None while its state is not final."""
    status = str(meta.get("status"))
    state = FINAL_STATES.get(status)
    if state is None:
        return None
    flaws: list[str] = []

    def convert(result: object) -> JsonValue:
        found, flaw = as_json(result)
        flaws.extend([] if flaw is None else [flaw])
        return found

    receipt, value = unwrap_result(meta, convert)
    error = None
    if status != states.SUCCESS:
        value, error = None, _error(meta)
        flaws.clear()
        state = "rejected" if _is_reject(meta.get("result")) else _state(state, error)
    return BackendResult(
        state=state,
        result=value,
        error=error if state not in ("revoked", "expired") else None,
        finished_at=_moment(meta.get("date_done")),
        worker=_text(meta.get("worker")),
        queue=_text(meta.get("queue")),
        retries=_whole(meta.get("retries")),
        receipt=receipt,
        no_json=flaws[0] if flaws else _text(meta.get(UNREADABLE)),
    )


def _is_reject(stored: object) -> bool:
    """Tell whether the task raised Celery's own ``Reject``, which stock workers store as failed."""
    if isinstance(stored, Mapping):
        name, module = stored.get("exc_type"), stored.get("exc_module")
        return (name, module) == (Reject.__name__, Reject.__module__)
    return isinstance(stored, Reject)


def _state(state: State, error: ErrorInfo) -> State:
    if state == "failed":
        return FAILURES.get(error.type.rpartition(".")[2], state)
    if state == "revoked" and error.message == "expired":
        return "expired"
    return state


def _error(meta: Meta) -> ErrorInfo:
    stored = meta.get("result")
    traceback = _text(meta.get("traceback"))
    if isinstance(stored, Mapping):
        kind, message = str(stored.get("exc_type")), _message(stored.get("exc_message"))
    elif isinstance(stored, BaseException):
        kind, message = _pickled(stored)
    else:
        kind, message = "Exception", "" if stored is None else str(stored)
    return ErrorInfo(type=kind, message=message, traceback=plain_traceback(traceback))


def _pickled(error: BaseException) -> tuple[str, str]:
    # Celery's wrapper for what pickle refused keeps the name and the arguments of the original.
    name = getattr(error, "exc_cls_name", None)
    if isinstance(name, str):
        return name, _message(getattr(error, "exc_args", ()))
    return type(error).__name__, str(error)


def _message(arguments: object) -> str:
    """Say what ``str`` of an exception with these arguments says."""
    if isinstance(arguments, (list, tuple)):
        return str(Exception(*arguments))
    return "" if arguments is None else str(arguments)


def _moment(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = parse_moment(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        # Databases hold Celery's UTC times without a zone.
        moment = (
            value.replace(tzinfo=timezone.utc)
            if value.tzinfo is None
            else value.astimezone(timezone.utc)
        )
    except OverflowError:
        return None
    return moment if moment.year in YEARS else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    """Read a count that a worker can have reached; None for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST else None
