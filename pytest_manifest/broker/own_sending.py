"""Have a task's own ``apply_async`` make its message, where a class of the project overrides it.

Such an override adds a tenant's header, takes a lock, or returns an earlier job's result. It is
called as ``.apply_async()`` would be, up to the point where Celery hands the message to the broker:
there it is kept, for the run to send it as all others, once its intent is in the ledger. So what
comes of the override is seen before anything has left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, Task

from pytest_manifest.broker.checks import some_of
from pytest_manifest.compat.celery import in_place_of, settings_on_top
from pytest_manifest.errors import DispatchError
from pytest_manifest.redaction import redact
from pytest_manifest.text import short

SETTING: Final = "manifest_apply_async"
_NOT_OURS: Final = ("expiration", "retry", "retry_policy", "declare")
"""Options of a message that say how it is sent; the first has RabbitMQ drop it in silence."""


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """The message that a task's own ``apply_async`` has made: Celery's task_message, and how it
    goes."""

    message: Any  # kombu ships no types
    options: dict[str, object]


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


def make_message(app: Celery, call: Callable[[], object], task_id: str) -> OwnMessage:
    """Call a task's own ``apply_async``, and return the message that it would have sent.

    Raises NotMadeError where that is not one message, of this id.
    """
    kept: list[OwnMessage] = []
    thread = threading.get_ident()
    send = app.amqp.send_task_message

    # As Celery calls it, which ships no types.
    def keep(producer: object, name: str, message: Any, **options: Any) -> object:
        if threading.get_ident() != thread:  # somebody else's, at the same moment
            return send(producer, name, message, **options)
        kept.append(OwnMessage(message, options))
        return None

    with ExitStack() as parts:
        parts.enter_context(in_place_of(app.amqp, "send_task_message", keep))
        parts.enter_context(in_place_of(app.amqp, "create_task_message", app.amqp.as_task_v2))
        # It would open a connection to the app's own result store, to wait there for the result.
        parts.enter_context(in_place_of(app.backend, "on_task_call", _nothing))
        if app.conf.task_always_eager:
            parts.enter_context(settings_on_top(app.conf, {"task_always_eager": False}))
        try:
            returned = call()
        except Exception as error:  # of the project's own code
            raise NotMadeError(f"raised {redact(f'{type(error).__name__}: {error}')}") from error
    ids = [str(one.message.headers.get("id")) for one in kept]
    if ids != [task_id]:
        raise NotMadeError(_refusal(ids, task_id, returned))
    [made] = kept
    options = {name: value for name, value in made.options.items() if name not in _NOT_OURS}
    return OwnMessage(made.message, options)


class NotMadeError(DispatchError):
    """The fault, after "its own apply_async", by which a task makes no message of an entry."""


def _nothing(*_: object, **__: object) -> dict[str, object]:
    return {}


def _refusal(ids: list[str], task_id: str, returned: object) -> str:
    if not ids:
        other = str(getattr(returned, "id", "") or "")
        what = f"the result of job {other}" if other and other != task_id else short(returned)
        return f"sent nothing, and returned {redact(what)}"
    if len(ids) > 1:
        return f"sends {len(ids)} messages, and a run answers for one"
    return f"gives the job another id, {ids[0]}, and no report would be found"
