"""Private parts of Celery, and of its pool of processes.

Celery is imported where it is needed: the supervisor of a stack does without it. It has no types,
so what is taken from it or handed to it is ``Any``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from pytest_manifest.compat import _put_in_place

_MISSING: Final = object()


@contextmanager
def other_connections(app: Any, pool: object, store: object) -> Iterator[None]:
    """Have an app use this pool of connections and this result store for a while.

    Relies on ``Celery._pool`` and ``Celery._backend_cache`` (Celery 5.7), which come before what an
    app has made for one thread.
    Test: ``test_compat_celery.py::test_an_app_uses_other_connections_for_a_while``.
    """
    from unittest.mock import patch

    with patch.multiple(app, _pool=pool, _backend_cache=store):
        yield


def answer_settings(
    answer: Callable[[Any, str, Callable[[], object]], object], fixed: Sequence[str], value: str
) -> None:
    """Have every app's settings answered by ``answer``, in this process and from now on.

    ``answer`` gets the settings, a name, and a function that returns what they hold. The settings
    ``fixed`` have this value whatever the environment says.
    Relies on ``Settings.__getitem__`` being asked for each setting, and on the URLs of broker and
    store being properties of that class (Celery 5.7).
    Test: ``test_compat_celery.py::test_settings_are_answered_by_somebody_else``.
    """
    from celery.app.utils import Settings

    given = Settings.__getitem__
    Settings.__getitem__ = lambda conf, key: answer(conf, key, lambda: given(conf, key))
    for name in fixed:
        setattr(Settings, name, property(lambda _conf: value))


def keep_results_by(make: Callable[[Any], object]) -> None:
    """Have every app make its result store by ``make``, and every task use its app's store.

    A task may name a store of its own, by an attribute of it or of any of its classes; that is
    dropped.
    Relies on ``Celery._get_backend``, ``Task.backend`` and ``TaskRegistry.__setitem__`` (5.7).
    Test: ``test_compat_celery.py::test_results_of_all_tasks_are_kept_in_one_store``.
    """
    from celery import Celery
    from celery.app.registry import TaskRegistry
    from celery.app.task import Task

    def drop(_task: Any, _store: object) -> None:
        """Discard the assigned value."""

    given = TaskRegistry.__setitem__

    def register(tasks: Any, name: str, task: Any) -> None:
        for kind in type(task).__mro__:
            if kind is not Task and "backend" in vars(kind):
                drop_own_store(kind)
        given(tasks, name, task)

    Celery._get_backend = make
    Task.backend = property(lambda task: task.app.backend, drop)
    TaskRegistry.__setitem__ = register


def drop_own_store(kind: Any) -> None:
    """Take the result store away that a class of tasks names, so that its app's is used.

    Relies on ``Task.backend`` being found on a base class then (Celery 5.7).
    Test: ``test_compat_celery.py::test_results_of_all_tasks_are_kept_in_one_store``.
    """
    del kind.backend


def has_own_store(kind: type) -> bool:
    """Return whether this class of apps keeps results in a way of its own.

    Relies on ``Celery.backend`` and ``Celery._get_backend`` (5.7).
    Test: ``test_compat_celery.py::test_a_class_of_apps_with_a_store_of_its_own_is_known``.
    """
    from celery import Celery

    own = (one for one in kind.__mro__ if one not in Celery.__mro__)
    return any(vars(one).keys() & {"backend", "_get_backend"} for one in own)


def former_names() -> dict[str, str]:
    """Return the present name of each setting by its name in capitals, and by earlier ones.

    Relies on ``celery.app.defaults``: ``flatten``, ``NAMESPACES``, ``Option.old`` (5.7).
    Test: ``test_compat_celery.py::test_settings_have_earlier_names``.
    """
    from celery.app.defaults import NAMESPACES, flatten

    def names(space: str, key: str, option: Any) -> list[tuple[str, str]]:
        earlier = [old.format(key) for old in option.old] or [space + key]
        return [(old.upper(), space + key) for old in earlier]

    return dict(flatten(NAMESPACES, keyfilter=names))


def setting_names() -> frozenset[str]:
    """Return the names of all settings that Celery has.

    Relies on ``celery.app.defaults.DEFAULTS`` (Celery 5.7).
    Test: ``test_compat_celery.py::test_all_settings_are_known_by_name``.
    """
    from celery.app.defaults import DEFAULTS

    return frozenset(DEFAULTS)


def stock_stores() -> dict[str, str]:
    """Return the place of each class of result stores (``module:name``) by its scheme in URLs.

    Relies on ``celery.app.backends.BACKEND_ALIASES`` (Celery 5.7).
    Test: ``test_compat_celery.py::test_result_stores_are_found_by_scheme``.
    """
    from celery.app.backends import BACKEND_ALIASES

    return dict(BACKEND_ALIASES)


def if_made(owner: Any, name: str) -> Any:
    """Return an attribute that is made when it is first asked for; None where that was not yet.

    Relies on ``RedisBackend.client`` being kept in the object's own dictionary (Celery 5.7).
    Test: ``test_compat_celery.py::test_what_was_not_made_is_not_made_by_a_look``.
    """
    return vars(owner).get(name)


@contextmanager
def made_anew(app: Any, *names: str) -> Iterator[None]:
    """Have an app make these attributes anew for a while; afterwards it has its former ones.

    Relies on ``Celery.amqp`` and ``Celery.control`` being kept in the app's own dictionary (5.7).
    Test: ``test_compat_celery.py::test_an_app_makes_some_of_its_attributes_anew``.
    """
    kept = {name: vars(app).pop(name, _MISSING) for name in names}
    try:
        yield
    finally:
        for name, value in kept.items():
            vars(app).pop(name, None)
            if value is not _MISSING:
                vars(app)[name] = value


@contextmanager
def settings_on_top(conf: Any, settings: Mapping[str, object]) -> Iterator[None]:
    """Have settings win for a while over all that an app's ``conf`` has, or is given meanwhile.

    Relies on ``Settings.maps`` being searched in order, and ``Settings._key`` (Celery 5.7).
    Test: ``test_compat_celery.py::test_settings_on_top_win_over_later_ones``.
    """
    on_top = {conf._key(name): value for name, value in settings.items()}
    conf.maps.insert(0, on_top)
    try:
        yield
    finally:
        conf.maps[:] = [one for one in conf.maps if one is not on_top]


# Tasks


@contextmanager
def in_place_of(task: Any, name: str, call: Callable[..., object]) -> Iterator[None]:
    """Have a task use another function for a while where it would call its own of this name.

    Relies on a task being asked for its functions each time (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_task_that_repeats_itself_calls_another_function``.
    """
    from unittest.mock import patch

    with patch.object(task, name, call, create=True):
        yield


def running(task: Any, call: Callable[..., object]) -> AbstractContextManager[None]:
    """Have a task run another function for a while; with ``autoretry_for`` it repeats that one.

    Relies on ``Task._orig_run``, which is what Celery's own ``run`` repeats (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_task_that_repeats_itself_calls_another_function``.
    """
    return in_place_of(task, "_orig_run" if hasattr(task, "_orig_run") else "run", call)


def before_replacing(prepare: Callable[[Any, Any], None]) -> Callable[[], None]:
    """Have ``prepare`` called with a task and the signature that it is about to be replaced by.

    Doing it again changes nothing. Returns what takes it back.
    Relies on ``Task.on_replace`` being called by ``Task.replace`` (Celery 5.3).
    Test: ``test_compat_celery.py::test_what_replaces_a_task_is_prepared``.
    """
    from celery.app.task import Task

    given = Task.on_replace

    def on_replace(task: Any, sig: Any) -> Any:
        prepare(task, sig)
        return given(task, sig)

    return _put_in_place(Task, "on_replace", on_replace)


# Workers


def mailbox_of(app: Any) -> Any:
    """Return the mailbox to which an app's workers listen for remote control.

    Relies on ``Control.mailbox`` (Celery 5.7).
    Test: ``test_compat_kombu.py::test_a_mailbox_says_which_formats_it_speaks``.
    """
    return app.control.mailbox


def tracer_under(pool: Any) -> Callable[[Any], Any]:
    """Return what turns a call that a worker gives its pool into one under this worker's name.

    Celery's own call of a task takes the name from the machine. Other calls stay as they are.
    Relies on a pool being given the worker's name in ``options["initargs"]``, and calls of
    ``celery.app.trace.trace_task_ret``, on ``fast_trace_task`` doing the same by what ``_loc``
    names, and on a worker having built the tracers (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_task_runs_under_the_name_of_its_worker``.
    """
    from celery.app.trace import fast_trace_task, trace_task_ret
    from kombu.serialization import prepare_accept_content

    app, hostname = pool.options["initargs"]
    accepted = prepare_accept_content(app.conf.accept_content)
    trace = partial(fast_trace_task, _loc=(app.tasks, accepted, hostname))
    return lambda call: trace if call is trace_task_ret else call


def after_undecodable(consumer: Any, tell: Callable[[object, BaseException], None]) -> None:
    """Have ``tell`` called for each message that a worker cannot decode, after Celery is done.

    Celery sends no signal for them. Doing it again changes nothing.
    Relies on ``Consumer.on_decode_error``, which the worker looks up for each connection (5.7).
    Test: ``test_compat_celery.py::test_messages_that_cannot_be_decoded_are_told_of``.
    """
    given = consumer.on_decode_error

    def on_decode_error(message: object, exc: BaseException) -> None:
        given(message, exc)
        tell(message, exc)

    _put_in_place(consumer, "on_decode_error", on_decode_error)


def turn_store_into(backend: object, kind: type) -> None:
    """Make a result store that was made already one of a subclass of its class.

    Relies on ``backend.__class__`` being assignable (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_store_becomes_one_of_a_subclass``.
    """
    backend.__class__ = kind


class WithoutLook:
    """A mix-in for result stores, which saves a round trip where it is of no use.

    Before it stores a result Celery looks whether a success is there, which it must not overwrite.
    Relies on ``Backend._get_task_meta_for`` being how it looks (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_store_that_needs_no_look_stores_without_one``.
    """

    def needs_no_look(self, task_id: str) -> bool:
        """Return whether storing this task's result overwrites nothing."""
        raise NotImplementedError

    def earlier_meta(self, task_id: str) -> dict[str, object]:
        """Return what is stored of a task."""
        theirs: Any = super()
        meta: dict[str, object] = theirs._get_task_meta_for(task_id)
        return meta

    def _get_task_meta_for(self, task_id: str) -> dict[str, object]:
        if self.needs_no_look(task_id):
            return {"status": "PENDING", "result": None}
        return self.earlier_meta(task_id)


SENT_OTHERWISE: Final = ("celery.map", "celery.starmap", "celery.chunks")
"""Tasks of signatures that are sent under another id (before Celery 5.7), or as a group."""


class FirstMessage(NamedTuple):
    """A message that a signature begins with; ``task_id`` is None where it gets one later."""

    task_id: str | None
    task: str
    headers: Mapping[str, object]


def is_one_message(sig: Any) -> bool:
    """Return whether a signature is sent as one message, under the id that it has.

    Relies on ``subtask_type`` being what tells chains, groups and chords, and on the tasks by which
    Celery maps others (Celery 5.7).
    Test: ``test_compat_canvas.py::test_what_a_signature_begins_with``.
    """
    return not sig.get("subtask_type") and sig["task"] not in SENT_OTHERWISE


def first_messages(sig: Any) -> Iterator[FirstMessage]:
    """Yield the messages that are sent when a signature is called.

    Relies on where chains, groups and chords keep their parts (Celery 5.7).
    Test: ``test_compat_canvas.py::test_what_a_signature_begins_with``.
    """
    kind, fields = sig.get("subtask_type"), sig.get("kwargs") or {}
    if kind == "chain":
        for first in list(fields["tasks"])[:1]:
            yield from first_messages(first)
    elif kind == "group":
        for member in fields["tasks"]:
            yield from first_messages(member)
    elif kind == "chord":
        header = _members(fields["header"])
        for member in header or [fields["body"]]:
            yield from first_messages(member)
    else:
        options = sig.get("options") or {}
        task_id = options.get("task_id") if is_one_message(sig) else None
        yield FirstMessage(task_id, sig["task"], options.get("headers") or {})


def chords_behind(sig: Any) -> Iterator[tuple[str, Any]]:
    """Yield the chords that wait for a signature: the id of each header's group, and its body.

    Relies on options ``chord``, ``group_id`` and ``chain`` of frozen signatures (Celery 5.7).
    Test: ``test_compat_canvas.py::test_chords_that_wait_for_a_signature``.
    """
    kind, fields, options = (sig.get(name) or {} for name in ("subtask_type", "kwargs", "options"))
    if options.get("chord") and options.get("group_id"):
        yield options["group_id"], options["chord"]
        yield from chords_behind(options["chord"])
    for later in options.get("chain") or ():
        yield from chords_behind(later)
    if kind in ("chain", "group"):
        for one in fields["tasks"]:
            yield from chords_behind(one)
    elif kind == "chord" and fields["body"]:
        yield from chords_behind(fields["body"])


def chords_of_message(group: Any, chord: Any, chain: Any) -> tuple[str, ...]:
    """Return the keys of the chords that cannot be completed without a message's task.

    Its own, whose header is ``group``, those around that, and those of its chain's later tasks.
    Relies on what ``chords_behind`` does, and on what a message has of them (Celery 5.7).
    Test: ``test_compat_canvas.py::test_chords_that_need_a_message``.
    """
    found = [str(group)] if chord and group else []
    for later in ([chord] if chord else []) + list(chain or ()):
        found += (key for key, _ in chords_behind(later))
    return tuple(dict.fromkeys(found))


def sent_errbacks(app: Any, errbacks: Iterable[Any]) -> list[Any]:
    """Return those errbacks that Celery sends as tasks; it calls the others where a task fails.

    Relies on ``Backend._call_task_errbacks`` calling what takes more than a task's id, by the
    ``__header__`` of its task, since 5.7 without what its signature holds (Celery 5.7).
    Test: ``test_compat_canvas.py::test_errbacks_that_are_sent``.
    """
    from celery.exceptions import NotRegistered

    found = []
    for one in errbacks:
        sig = app.signature(one)
        try:
            is_called = _takes_more_than_an_id(sig, getattr(sig.type, "__header__", None))
        except NotRegistered:
            is_called = False
        if not is_called:
            found.append(sig)
    return found


def _takes_more_than_an_id(sig: Any, header: Any) -> bool:
    from celery import VERSION
    from celery.utils.functional import arity_greater

    if header is None or isinstance(header, partial):
        return False
    if VERSION >= (5, 7) and not sig.immutable and (sig.args or sig.kwargs):
        try:
            return bool(arity_greater(partial(header, *sig.args, **sig.kwargs), 1))
        except (TypeError, ValueError):
            pass
    return bool(arity_greater(header, 1))


def _members(header: Any) -> list[Any]:
    """Return the members of a chord's header, which may be a group or its tasks."""
    return list(header["kwargs"]["tasks"] if isinstance(header, Mapping) else header)


OF_SIGNALS: Final = "celery.utils.dispatch.signal"


def after_receiver_failed(call: Callable[[object, BaseException], None]) -> None:
    """Have this called with each receiver of a signal that has raised, and what it raised.

    A filter sees the line that is logged; a handler would count as one of the process's own.
    Relies on ``Signal.send`` logging that by its module's logger, with the receiver as the first
    argument of its line (Celery 5.7).
    Test: ``test_compat_signals.py::test_what_a_receiver_raises_is_seen_and_logged_as_ever``.
    """

    def see(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and isinstance(record.args, tuple) and record.args:
            call(record.args[0], error)
        return True

    logging.getLogger(OF_SIGNALS).addFilter(see)
