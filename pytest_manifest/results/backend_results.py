"""Read final states from the Celery result backend, as stock workers write them.

Results are read as stored: an exception stays a type name and a message, and no class is imported
or instantiated for it.

Read results as stored, by one reader for each kind of Celery result backend.

Kombu writes dates, decimals, UUIDs and bytes as objects with a mark, and makes Python values of
them when it reads. A manifest holds JSON, so the JSON is what is compared. It also is all that this
side can have of a type that only the worker's code has registered with kombu.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from celery import Celery, states
from celery.backends.base import BaseKeyValueStoreBackend, DisabledBackend
from celery.exceptions import Reject, SecurityError
from kombu.exceptions import SerializationError
from kombu.serialization import loads, register
from pydantic import JsonValue

from pytest_manifest.broker.attempt import RUN8_LENGTH
from pytest_manifest.broker.client import connect, load_app, result_backend
from pytest_manifest.broker.connection import reply_queue
from pytest_manifest.broker.stores import forgets_retries
from pytest_manifest.broker.transports import transport_of
from pytest_manifest.compat.celery import if_made
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact, redact_error, redact_url
from pytest_manifest.results.django_results import WorkersDatabases, is_of_django
from pytest_manifest.results.records import FINAL_STATES, ReadErrors
from pytest_manifest.schema import ErrorInfo, State
from pytest_manifest.schema.fields import json_value
from pytest_manifest.schema.wire import MOST, parse_moment, plain_traceback, unwrap_result, utc
from pytest_manifest.urls import StackAddress, is_in_process, is_rpc
from pytest_manifest.worker.receipt import as_kombu_has_it

if TYPE_CHECKING:
    from celery.backends.base import Backend
    from celery.backends.database import DatabaseBackend
    from kombu import Connection, Queue
    from kombu.message import Message


Meta = Mapping[str, object]
"""A result as Celery stores it: status, result, traceback, date_done, ..."""

UNREADABLE: Final = "manifest_unreadable"
"""In place of a result: why there is none, though its state is known."""
REPLIES_A_READ: Final = 5000
_DECODE_ERRORS: Final = (
    SerializationError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
    SecurityError,
)
"""What a result raises that makes no sense; a store that cannot be reached raises others."""


class ResultSource:
    """A store of results; this one has none. Methods raise whatever the backend's driver raises."""

    def __init__(self, backend: Backend, flaws: ReadErrors) -> None:
        self._backend, self._flaws = backend, flaws

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:  # noqa: ARG002 - nothing to find
        """Give what is stored for these ids, in whatever state."""
        return {}

    def retried(self, task_ids: Sequence[str]) -> Iterable[str]:
        """Return which of these have asked for a retry last, by what is stored."""
        return [i for i, meta in self.read(task_ids).items() if meta.get("status") == states.RETRY]

    def close(self) -> None:
        """End the connection, where there is a way to; not every backend has one."""


def open_source(
    app: Celery, address: StackAddress, flaws: ReadErrors, fetched: dict[str, Meta]
) -> ResultSource:
    """Make the source for the address's result backend, with the app's own settings for it.

    ``fetched``: results that can be had once only, by task id; they are kept there until they are
    asked for.
    """
    if is_rpc(address.backend_url):
        return ReplySource(app, address, flaws, fetched)
    if is_in_process(address.backend_url):
        from pytest_manifest.worker.backend_memory import MemoryBackend

        backend = MemoryBackend(app=app, url=address.backend_url)
    else:
        backend = result_backend(app, address)
    leave_marks(backend)
    if isinstance(backend, DisabledBackend):
        return ResultSource(backend, flaws)
    if isinstance(backend, BaseKeyValueStoreBackend):
        return KeyValueSource(backend, flaws)
    if hasattr(backend, "ResultSession"):
        return DatabaseSource(backend, flaws)
    return (DjangoSource if is_of_django(backend) else OtherSource)(backend, flaws)


class KeyValueSource(ResultSource):
    """Read from Redis and the like, all ids in one MGET, or one by one where a store has none."""

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Give what is stored, without what cannot be decoded."""
        keys = [self._backend.get_key_for_task(task_id) for task_id in task_ids]
        found: dict[str, Meta] = {}
        for task_id, payload in zip(task_ids, self._payloads(keys), strict=True):
            meta = self._decode(task_id, payload) if payload else None
            if meta is not None:
                found[task_id] = meta
                self._flaws.results.pop(task_id, None)  # what could not be read was its last word
        return found

    def _payloads(self, keys: Sequence[object]) -> Sequence[object]:
        try:
            payloads: Sequence[object] = self._backend.mget(keys)
        except NotImplementedError:  # S3's, Django's cache: Celery's base class has none
            return [self._backend.get(key) for key in keys]
        return payloads

    def close(self) -> None:
        """End the connections of the backend's pool."""
        client = if_made(self._backend, "client")
        if client is not None:
            with suppress(Exception):
                client.close()
                client.connection_pool.disconnect()

    def _decode(self, task_id: str, payload: object) -> Meta | None:
        try:
            meta = self._backend.decode(payload)
        except Exception as error:  # of a decoder, on what may be anything
            self._flaws.add_result(
                task_id,
                f"it cannot be decoded ({error}); the workers' result_serializer must be one that "
                "the app here accepts",
            )
            return None
        if not isinstance(meta, dict):
            self._flaws.add_result(task_id, f"it is {type(meta).__name__}, no document of Celery's")
            return None
        return meta


class DatabaseSource(ResultSource):
    """Read from an SQL database, by one query for the final ones among the ids."""

    def __init__(self, backend: DatabaseBackend, flaws: ReadErrors) -> None:
        from sqlalchemy import PickleType

        super().__init__(backend, flaws)
        # Celery before 5.7 pickles all results, whatever the serializer, and SQLAlchemy loads them.
        self._is_loaded = isinstance(backend.task_cls.__table__.c.result.type, PickleType)

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Give what is stored in a final state, without rows that cannot be read."""
        try:
            return self._rows(task_ids)
        except Exception:  # of the database, or of one row, which hides all others
            final = self._statuses(task_ids)  # which looks at none of the columns that may be odd
            if len(final) == 1:
                return self._one(*final.popitem())
        ids, half = list(final), len(final) // 2
        return self.read(ids[:half]) | self.read(ids[half:]) if ids else {}

    def _one(self, task_id: str, status: str) -> dict[str, Meta]:
        """Read one row again: it may have been the database, and that has answered since."""
        try:
            return self._rows([task_id])
        except Exception as error:
            self._statuses([task_id])  # raises where the database is away
            self._flaws.add(f"the stored result of task {task_id}", error)
            return {task_id: {"status": status, UNREADABLE: f"it cannot be read: {error}"}}

    def _rows(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        table = self._backend.task_cls
        with closing(self._backend.ResultSession()) as session:
            rows = session.query(table).filter(
                table.task_id.in_(task_ids), table.status.in_(FINAL_STATES)
            )
            return {row.task_id: self._meta(row.to_dict()) for row in rows}

    def _statuses(
        self, task_ids: Sequence[str], among: Collection[str] = FINAL_STATES
    ) -> dict[str, str]:
        """Map task id -> state, for those whose state is ``among`` these."""
        table = self._backend.task_cls
        with closing(self._backend.ResultSession()) as session:
            rows = session.query(table.task_id, table.status).filter(
                table.task_id.in_(task_ids), table.status.in_(among)
            )
            return {row.task_id: row.status for row in rows}

    def retried(self, task_ids: Sequence[str]) -> Iterable[str]:
        """Return which of these have asked for a retry last."""
        return self._statuses(task_ids, {states.RETRY})

    def close(self) -> None:
        """End the connections of the engine's pool."""
        with suppress(Exception):
            self._backend.session_manager.get_engine(self._backend.url).dispose()

    def _meta(self, row: dict[str, object]) -> Meta:
        return row if self._is_loaded else row | {"result": self._backend.decode(row["result"])}


class OtherSource(ResultSource):
    """Read from any other backend, by a request for each id, the way all of them have."""

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Give what is stored; exceptions come as instances here."""
        found: dict[str, Meta] = {}
        for task_id in task_ids:
            try:
                found[task_id] = self._backend.get_task_meta(task_id, cache=False)
            except _DECODE_ERRORS as error:
                self._flaws.add_result(task_id, error)
        return found


class DjangoSource(OtherSource):
    """Read from the table of django-celery-results: one query says which are final."""

    def __init__(self, backend: Backend, flaws: ReadErrors) -> None:
        super().__init__(backend, flaws)
        self._databases = WorkersDatabases()

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Give what is stored in a final state."""
        with self._databases:
            return super().read(self._ids(task_ids, FINAL_STATES))

    def retried(self, task_ids: Sequence[str]) -> Iterable[str]:
        """Return which of these have asked for a retry last."""
        with self._databases:
            return self._ids(task_ids, {states.RETRY})

    def _ids(self, task_ids: Sequence[str], among: Collection[str]) -> list[str]:
        rows = self._backend.TaskModel.objects.filter(task_id__in=task_ids, status__in=among)
        return list(rows.values_list("task_id", flat=True))

    def close(self) -> None:
        """End the connections."""
        self._databases.close()


class ReplySource(ResultSource):
    """Read results of ``rpc://``: messages on a queue of the run's own, each to be had once.

    They are fetched one by one, not consumed, so that no thread but the reading one is bound to
    the connection and a Redis broker is not left with a blocked pop.
    """

    def __init__(
        self, app: Celery, address: StackAddress, flaws: ReadErrors, waiting: dict[str, Meta]
    ) -> None:
        self._flaws = flaws
        self._connection: Connection = connect(app, address)
        self._channel = self._connection.channel()
        self._accept: object = app.conf.result_accept_content or app.conf.accept_content
        self._queues: dict[str, Queue] = {}
        self._waiting = waiting
        # RabbitMQ gives anew what was not acknowledged when a connection is cut; kombu's own
        # transports would keep it for an hour.
        self._no_ack = not transport_of(address.broker_url).gives_back

    def read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Fetch what has come, and give what is final among the ids; the rest waits here."""
        for prefix in {task_id[:RUN8_LENGTH] for task_id in task_ids}:
            self._fetch(self._queue(prefix))
        return {i: self._waiting[i] for i in task_ids if i in self._waiting}

    def retried(self, task_ids: Sequence[str]) -> Iterable[str]:  # noqa: ARG002 - none is kept
        """Take nothing off the queues: whoever asks this may not be the one to have it."""
        return ()

    def close(self) -> None:
        """Delete the reply queues and end the connection."""
        with suppress(Exception):
            for queue in self._queues.values():
                queue.delete()
        with suppress(Exception):
            self._connection.release()

    def _queue(self, prefix: str) -> Queue:
        queue = self._queues.get(prefix)
        if queue is None:
            queue = self._queues[prefix] = reply_queue(prefix)(self._channel)
            queue.declare()
        return queue

    def _fetch(self, queue: Queue) -> None:
        for _ in range(REPLIES_A_READ):
            message: Message | None = queue.get(no_ack=self._no_ack, accept=self._accept)
            if message is None:
                return
            meta: object = None
            try:
                meta = payload_of(message)
            except Exception as error:  # of a decoder, on what may be anything
                self._flaws.add_result(str(message.properties.get("correlation_id")), error)
            if isinstance(meta, dict) and meta.get("status") in FINAL_STATES:
                self._waiting[str(meta.get("task_id"))] = meta
            if not self._no_ack:
                message.ack()


JSON: Final = "application/json"
UNMARKED: Final = "application/x-manifest-unmarked-json"
"""Names the same bytes, for readers that are to leave kombu's marks as they are."""

register("manifest-unmarked-json", json.dumps, json.loads, UNMARKED, "utf-8")


def leave_marks(backend: Backend) -> None:
    """Have this result backend, which must be our own, give JSON as it was stored."""
    accept: frozenset[str] | None = getattr(backend, "accept", None)
    if getattr(backend, "content_type", None) == JSON and (accept is None or JSON in accept):
        backend.content_type = UNMARKED
        backend.accept = None if accept is None else {*accept, UNMARKED}


def payload_of(message: Message) -> object:
    """Decode a message's content, with kombu's marks where it is JSON.

    Raises whatever a decoder raises.
    """
    if message.content_type == JSON and (message.accept is None or JSON in message.accept):
        return loads(message.body, UNMARKED, message.content_encoding, accept={UNMARKED})
    return message.payload


def as_json(value: object) -> tuple[JsonValue, str | None]:
    """Convert a value to JSON; give the reason too where that cannot be done.

    What was not stored as JSON (pickled, say) becomes what kombu's JSON would have been.
    """
    try:
        return json_value(value), None
    except ValueError:
        pass  # no JSON proper: kombu's may know it
    try:
        return as_kombu_has_it(value), None
    except ValueError as error:
        return None, str(error)


CHUNK: Final = 500  # ids a round trip: some 100 KB of small results
FAILURES: Final[Mapping[str, State]] = {
    "WorkerLostError": "crashed",
    "TimeLimitExceeded": "timed_out",
    "SoftTimeLimitExceeded": "timed_out",
    "NotRegistered": "unknown_task",
}
STATE_OF: Final[Mapping[str, State]] = {
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


@dataclass(eq=False)
class ResultReader:
    """Read results of the stack at ``address``. For the one thread that made its first read.

    With ``rpc://`` each result is a message on the run's reply queue, fetched once, by the reader
    in whose runs' names (the first eight characters of its task ids) it comes; it can be read
    until ``discard`` drops it.
    """

    _address: StackAddress
    _flaws: ReadErrors = field(default_factory=ReadErrors)
    _source: ResultSource | None = None
    _fetched: dict[str, Meta] = field(default_factory=dict)
    """What came by ``rpc://``, where it can be had once only, and has not been asked for."""

    def read(self, task_ids: Sequence[str]) -> dict[str, BackendResult]:
        """Give the final states there are for these ids; what is not final yet is left out.

        Raises:
            StackError: the result backend cannot be reached or read; the next call tries anew.
        """
        found: dict[str, BackendResult] = {}
        self._each(task_ids, lambda source, some: found.update(self._final(source.read(some))))
        return found

    def retried(self, tasks: Mapping[str, str]) -> frozenset[str]:
        """Return which of these, task id -> task, have asked for a retry last, as the store has it.

        That may be the last that it ever has of a job whose task ignores results; that is left out.

        Raises:
            StackError: the result backend cannot be reached or read; the next call tries anew.
        """
        found = set[str]()
        self._each(sorted(tasks), lambda source, some: found.update(source.retried(some)))
        app = load_app(self._address)
        return frozenset(one for one in found if not forgets_retries(app, tasks[one]))

    def _each(
        self, task_ids: Sequence[str], read: Callable[[ResultSource, Sequence[str]], None]
    ) -> None:
        """Read these in parts, of the source, which is opened where there is none."""
        try:
            if self._source is None:
                app = load_app(self._address)
                self._source = open_source(app, self._address, self._flaws, self._fetched)
            for start in range(0, len(task_ids), CHUNK):
                read(self._source, task_ids[start : start + CHUNK])
        except StackError:
            raise
        except Exception as error:
            self.close()
            raise StackError(
                f"the result backend {redact_url(self._address.backend_url)} cannot be read "
                f"({redact_error(error, self._address.backend_url)}); check that it is up and that "
                f"its URL is that of the workers"
            ) from error

    def renewed(self) -> ResultReader:
        """Make another reader with a connection of its own and what this one has fetched."""
        return replace(self, _source=None)

    def discard(self, task_ids: Iterable[str]) -> None:
        """Drop fetched results that have reached the caller."""
        for task_id in task_ids:
            self._fetched.pop(task_id, None)

    def _final(self, metas: Mapping[str, Meta]) -> Iterator[tuple[str, BackendResult]]:
        for task_id, meta in metas.items():
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


def parse_result(meta: Meta) -> BackendResult | None:
    """Read one stored result; None while its state is not final."""
    status = str(meta.get("status"))
    state = STATE_OF.get(status)
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
    plain = plain_traceback(traceback)  # a stock worker has hidden nothing in it
    return ErrorInfo(
        type=kind, message=redact(message), traceback=None if plain is None else redact(plain)
    )


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
    with suppress(ValueError):
        value = parse_moment(value) if isinstance(value, str) else value
    if not isinstance(value, datetime):
        return None
    # Databases hold Celery's UTC times without a zone.
    return utc(value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    """Read a count that a worker can have reached; None for anything else."""
    return value if type(value) is int and 0 <= value <= MOST else None
