"""Build an entry's message: Celery's protocol 2, with the headers that its receipt needs.

Have a task's own ``apply_async`` make its message, where a class of the project overrides it.

Such an override adds a tenant's header, takes a lock, or returns an earlier job's result. It is
called as ``.apply_async()`` would be, up to the point where Celery hands the message to the broker:
there it is kept, for the run to send it as all others, once its intent is in the ledger. So what
comes of the override is seen before anything has left.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from celery import Celery, Task
from celery.utils.nodenames import anon_nodename
from kombu.serialization import dumps
from kombu.utils.json import dumps as json_dumps
from pydantic import JsonValue

from pytest_manifest.broker.attempt import Attempt, run8
from pytest_manifest.broker.checks import some_of
from pytest_manifest.broker.client import reply_queue_name
from pytest_manifest.broker.routing import MESSAGE_OPTIONS, AppRouting, Options, destination_of
from pytest_manifest.broker.workers import TaskLimits, message_limits
from pytest_manifest.compat.celery import in_place_of, settings_on_top
from pytest_manifest.errors import DispatchError
from pytest_manifest.redaction.documents import redacted
from pytest_manifest.redaction.texts import may_hold_secret, redact
from pytest_manifest.schema import wire
from pytest_manifest.schema.models import Entry
from pytest_manifest.schema.tracing import TRACEPARENT, RunTrace
from pytest_manifest.text import short
from pytest_manifest.verdict.problems import NotMade, Refused
from pytest_manifest.verdict.reasons import Problem

if TYPE_CHECKING:
    from celery.app.amqp import task_message

REPR_LENGTH: Final = 100  # characters of args and kwargs that Flower and worker logs show


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is ready to go: what kombu sends, and where."""

    attempt: Attempt
    message: task_message
    options: Options  # keyword arguments of send_task_message


class MessageBuilder:
    """Build messages for one run's stream of receipts.

    ``stream`` and ``ttl`` (s) tell the worker where receipts go; an empty ``stream`` leaves both
    headers out. ``rpc`` asks for results on the run's own reply queue. ``tasks``: those whose own
    say about a message counts, by name; ``own``: the names of those whose own ``apply_async`` is to
    make it. ``trace``: the run's, whose spans messages name.
    """

    def __init__(
        self,
        app: Celery,
        routing: AppRouting,
        *,
        stream: str,
        ttl: int,
        rpc: bool = False,
        limits: TaskLimits | None = None,
        tasks: Mapping[str, Task] = MappingProxyType({}),
        own: Collection[str] = (),
        trace: RunTrace | None = None,
    ) -> None:
        self._app = app
        self._trace = trace
        self._tasks = tasks
        self._own = own
        self._made: dict[str, Outgoing] = {}
        """By task id, of what ``own`` has made and the broker has not certainly taken: it may have
        taken a lock for that, and is called once."""
        self._limits = limits or TaskLimits(app)
        self._as_task: Callable[..., task_message] = app.amqp.as_task_v2
        self._serializer: str = app.conf.task_serializer
        self._sent_event: bool = app.conf.task_send_sent_event
        self._routing = routing
        self._headers: Options = (
            {wire.HEADER_STREAM: stream, wire.HEADER_TTL: ttl} if stream else {}
        )
        if app.conf.task_protocol == 1:
            # The workers of such an app link a chain's tasks to one another. For a job that has a
            # root, Task.replace links each of them twice, so that the last one runs several times.
            self._headers["root_id"] = None
        self._rpc = rpc
        self._origin = anon_nodename()

    def build(
        self, attempts: Sequence[Attempt], sent_at: datetime
    ) -> tuple[list[Outgoing], dict[str, Problem]]:
        """Build the messages of a batch; relative times count from ``sent_at``.

        Also task id -> why, of what no message can be made of: that is its own fault, and nothing
        to the others.
        """
        headers = self._headers | {wire.HEADER_SENT_AT: wire.timestamp(sent_at)}
        built: list[Outgoing] = []
        refused: dict[str, Problem] = {}
        for attempt in attempts:
            try:
                built.append(self._build_one(attempt, sent_at, headers))
            except NotMadeError as error:
                refused[attempt.task_id] = NotMade(error=str(error))
            except DispatchError as error:
                refused[attempt.task_id] = Refused(error=str(error))
            except Exception as error:  # the app's own router or serializer may raise anything
                said = f"{type(error).__name__}: {redact(str(error))}"
                fault = f"no message for {attempt.entry.task} can be made of it ({said})"
                refused[attempt.task_id] = Refused(error=fault)
        return built, refused

    def _build_one(self, attempt: Attempt, sent_at: datetime, headers: Options) -> Outgoing:
        entry = attempt.entry
        if (made := self._made.get(attempt.task_id)) is not None:
            made.options["headers"] = {**_mapping(made.options.get("headers")), **headers}
            return made
        options = self._routing(entry)
        own = {name: options.pop(name) for name in MESSAGE_OPTIONS & options.keys()}
        serializer = str(options.get("serializer") or self._serializer)
        message = self._message(attempt, sent_at, own)
        if serializer != "json":  # as which entries' arguments have been read or checked
            # Raises what serialising them would raise, before anything of the batch has left.
            dumps((entry.args, entry.kwargs), serializer=serializer)
        options["headers"] = {
            **_mapping(options.get("headers")),
            **({} if self._trace is None else {TRACEPARENT: str(self._trace.of(entry.id))}),
            **entry.headers,
            **headers,
            wire.HEADER_RUN: attempt.run,
            wire.HEADER_ENTRY: entry.id,
            wire.HEADER_ATTEMPT: attempt.number,
            wire.HEADER_ROOT: attempt.task_id,
        }
        if entry.task not in self._own:
            return Outgoing(attempt, message, options)
        made = self._made[attempt.task_id] = self._made_by_task(attempt, message, options)
        return made

    def forget(self, task_ids: Iterable[str]) -> None:
        """Forget the messages of these jobs, which the broker has."""
        for task_id in task_ids if self._made else ():
            self._made.pop(task_id, None)

    def _made_by_task(self, attempt: Attempt, ours: task_message, options: Options) -> Outgoing:
        """Have the task make the message by its own ``apply_async``; ``ours``: that of all others.

        Raises NotMadeError where it is not the message of this entry.
        """
        entry = attempt.entry
        names = ("queue", "priority", "eta", "countdown", "expires")
        said = {name: getattr(entry, name) for name in names}
        given = {name: value for name, value in said.items() if value is not None}
        task, task_id = self._tasks[entry.task], attempt.task_id
        headers = _mapping(options["headers"])
        message, sent = make_message(
            self._app,
            lambda: task.apply_async(
                list(entry.args), dict(entry.kwargs), task_id=task_id, headers=headers, **given
            ),
            task_id,
        )
        body, at = message.body, destination_of(sent)
        if [list(body[0]), dict(body[1])] != [entry.args, entry.kwargs]:
            raise NotMadeError("gives it other arguments than the entry has; write them there")
        if at != destination_of(options):
            raise NotMadeError(
                f"sends it to {' '.join(filter(None, at))}, and not where the "
                "app's routes do; name that queue in the entry"
            )
        # How long it may run, and what is kept and shown of it, is the run's business.
        ruled = ["timelimit", "ignore_result", "argsrepr", "kwargsrepr"]
        ruled += [name for name in ("eta", "expires") if ours.headers[name] is not None]
        message.headers.update({name: ours.headers[name] for name in ruled})
        message.properties["reply_to"] = ours.properties["reply_to"]
        sent["headers"] = {**_mapping(sent.get("headers")), **headers}
        return Outgoing(attempt, message, sent)

    def _message(self, attempt: Attempt, sent_at: datetime, own: Options) -> task_message:
        entry, task = attempt.entry, self._tasks.get(attempt.entry.task)
        time_limit, soft_time_limit = message_limits(entry, self._limits.limit_for(entry.task, own))
        return self._as_task(
            attempt.task_id,
            entry.task,
            entry.args,
            entry.kwargs,
            eta=_eta(entry, sent_at),
            expires=_expires(entry, own.get("expires"), sent_at),
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            reply_to=reply_queue_name(run8(attempt.run)) if self._rpc else None,
            create_sent_event=self._sent_event,
            origin=self._origin,
            ignore_result=False,
            # The name that the task gives this job for logs, as ``.delay()`` asks it to.
            shadow=None if task is None else task.shadow_name(entry.args, entry.kwargs, {}),
            argsrepr=_short_repr(entry.args),
            # Flower shows the beginning beside the task's name, and searches all of it.
            kwargsrepr=f"[{entry.id}] {_short_repr(entry.kwargs)}  # run {attempt.run}",
        )


def _mapping(value: object) -> Options:
    return value if isinstance(value, dict) else {}


def _short_repr(value: JsonValue) -> str:
    # Celery's own, which stops early in large values, takes ten times as long for small ones.
    text = repr(value)
    if value and may_hold_secret(text):  # Flower and the worker's log are for other eyes
        text = repr(redacted(value))
    return text if len(text) <= REPR_LENGTH else f"{text[:REPR_LENGTH]}..."


def _eta(entry: Entry, sent_at: datetime) -> datetime | None:
    if entry.countdown:
        return sent_at + timedelta(seconds=entry.countdown)
    return entry.eta


def _expires(entry: Entry, default: object, sent_at: datetime) -> object:
    # Only as a header: the transport's own time-to-live (RabbitMQ's) would drop the message
    # in silence, where a worker that reads the header says "expired".
    expires = entry.expires if entry.expires is not None else default
    if isinstance(expires, (int, float)):
        return sent_at + timedelta(seconds=expires)
    return expires


SETTING: Final = "manifest_apply_async"
_NOT_OURS: Final = ("expiration", "retry", "retry_policy", "declare")
"""Options of a message that say how it is sent; the first has RabbitMQ drop it in silence."""


def own_senders(app: Celery, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Return the tasks that do not send as Celery's do: what overrides it, by the task's name."""
    by_app = _owner(type(app), "send_task", Celery)
    if "send_task" in vars(app):
        by_app = f"{app.main}.send_task"
    found = {}
    for name, task in tasks.items():
        where = _owner(type(task), "apply_async", Task)
        if "apply_async" in vars(task):
            where = f"{name}.apply_async"
        if where or by_app:
            found[name] = where or by_app
    return found


def _owner(kind: type, name: str, base: type) -> str:
    """Name the class below ``base`` that has a function of its own; "" where none has."""
    for one in kind.__mro__:
        if one is base:
            return ""
        if name in vars(one):
            return f"{one.__module__}.{one.__qualname__}.{name}"
    return ""


def sending_notice(senders: Mapping[str, str], names: Iterable[str], *, called: bool) -> list[str]:
    """Say, before anything is sent, which of these tasks have a way of sending of their own."""
    wanted = sorted(name for name in names if name in senders)
    if not wanted:
        return []
    where = some_of(sorted({senders[name] for name in wanted}))
    if called:
        how = "makes the messages, one by one, which takes 2 to 3 times as long"
        return [f"{some_of(wanted)}: {where} {how}"]
    remedy = f'set {SETTING} = true, or give the entries "headers"'
    return [f"{some_of(wanted)}: {where} is not called, so what it adds is missing; {remedy}"]


def make_message(
    app: Celery, call: Callable[[], object], task_id: str
) -> tuple[task_message, Options]:
    """Call a task's own ``apply_async``; return the message that it would have sent, and how.

    Raises NotMadeError where that is not one message, of this id.
    """
    kept: list[tuple[task_message, Options]] = []
    thread = threading.get_ident()
    send = app.amqp.send_task_message

    def keep(producer: object, name: str, message: task_message, **options: object) -> object:
        if threading.get_ident() != thread:  # somebody else's, at the same moment
            return send(producer, name, message, **options)
        kept.append((message, options))
        return None

    with ExitStack() as parts:
        parts.enter_context(in_place_of(app.amqp, "send_task_message", keep))
        parts.enter_context(in_place_of(app.amqp, "create_task_message", app.amqp.as_task_v2))
        # It would open a connection to the app's own result store, to wait there for the result.
        parts.enter_context(in_place_of(app.backend, "on_task_call", lambda *_, **__: {}))
        if app.conf.task_always_eager:
            parts.enter_context(settings_on_top(app.conf, {"task_always_eager": False}))
        try:
            returned = call()
        except Exception as error:  # of the project's own code
            raise NotMadeError(f"raised {redact(f'{type(error).__name__}: {error}')}") from error
    ids = [str(message.headers.get("id")) for message, _ in kept]
    if ids != [task_id]:
        raise NotMadeError(_refusal(ids, task_id, returned))
    [(message, options)] = kept
    return message, {name: value for name, value in options.items() if name not in _NOT_OURS}


class NotMadeError(DispatchError):
    """The fault, after "its own apply_async", by which a task makes no message of an entry."""


def _refusal(ids: list[str], task_id: str, returned: object) -> str:
    if not ids:
        other = str(getattr(returned, "id", "") or "")
        what = f"the result of job {other}" if other and other != task_id else short(returned)
        return f"sent nothing, and returned {redact(what)}"
    if len(ids) > 1:
        return f"sends {len(ids)} messages, and a run answers for one"
    return f"gives the job another id, {ids[0]}, and no report would be found"


def in_celerys_json(arguments: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return arguments as a message in JSON has them, with kombu's marks for what JSON lacks.

    Raises TypeError for a type without a mark, such as a set, and ValueError for NaN.
    """
    found: dict[str, JsonValue] = json.loads(json_dumps(arguments, allow_nan=False))
    return found
