"""Private parts of Celery, and of its pool of processes.

Celery is imported where it is needed: the supervisor of a stack does without it. It has no types,
so what is taken from it or handed to it is ``Any``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from pytest_manifest.compat.billiard import OtherTime
from pytest_manifest.compat.replaced import _put_in_place

_MISSING: Final = object()


@contextmanager
def other_connections(app: Any, pool: object, store: object) -> Iterator[None]:
    """Have an app use this pool of connections and this result store for a while.

    Relies on ``Celery._pool`` and ``Celery._backend_cache`` (Celery 5.7), which come before what an
    app has made for one thread.
    Test: ``test_compat_celery.py::test_an_app_uses_other_connections_for_a_while``.
    """
    kept = app._pool, app._backend_cache
    app._pool, app._backend_cache = pool, store
    try:
        yield
    finally:
        app._pool, app._backend_cache = kept


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
    own = {name: vars(task)[name]} if name in vars(task) else {}
    setattr(task, name, call)
    try:
        yield
    finally:
        del vars(task)[name]
        vars(task).update(own)


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


def tracer_under(app: Any, hostname: str) -> Callable[[Any], Any]:
    """Return what turns a call that a worker gives its pool into one under this worker's name.

    Celery's own call of a task takes the name from the machine. Other calls stay as they are.
    Relies on a pool being given ``celery.app.trace.trace_task_ret`` and the message, and on what
    that does with it (Celery 5.7).
    Test: ``test_compat_celery.py::test_a_task_runs_under_the_name_of_its_worker``.
    """
    from celery.app.trace import trace_task, trace_task_ret
    from kombu.serialization import loads, prepare_accept_content

    tasks, accepted = app.tasks, prepare_accept_content(app.conf.accept_content)

    def trace(
        name: str,
        uuid: str,
        request: dict[str, object],
        body: Any,
        content_type: str | None,
        content_encoding: str | None,
        **_: object,
    ) -> tuple[int, object, float]:
        if content_type:
            body = loads(body, content_type, content_encoding, accept=accepted)
        args, kwargs, embedded = body
        request.update(args=args, kwargs=kwargs, hostname=hostname, is_eager=False)
        request.update(embedded or {})
        found = trace_task(tasks[name], uuid, args, kwargs, request, app=app)
        result, info, runtime, text = found
        return (1, result, runtime) if info else (0, text, runtime)

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


FIRST: Final = "manifest_first"
"""The attribute of what a pool's processes begin with: what they began with before."""


def begin_processes_by(begin: Callable[[Any, str], None]) -> None:
    """Have the processes of a pool begin with a function, which calls :func:`begin_process`.

    Where each is a fresh interpreter it imports that function's module before the app.
    Relies on ``celery.concurrency.prefork.process_initializer`` being looked up when the pool
    starts (Celery 5.7).
    Test: ``test_compat_celery.py::test_processes_of_a_pool_begin_with_another_function``.
    """
    from celery.concurrency import prefork

    if prefork.process_initializer is not begin:
        setattr(begin, FIRST, prefork.process_initializer)
        prefork.process_initializer = begin


def begin_process(app: Any, hostname: str) -> None:
    """Do what a process of a pool begins with in Celery."""
    from celery.concurrency import prefork

    stock = prefork.process_initializer
    getattr(stock, FIRST, stock)(app, hostname)


def sleep_at_end_by(sleep: Callable[[float], None]) -> None:
    """Have a worker's main process sleep by ``sleep`` where it waits for its pool to end.

    Relies on ``celery.concurrency.prefork.time`` and ``celery.concurrency.asynpool.sleep``
    (Celery 5.7).
    Test: ``test_worker_ending.py::test_the_main_process_looks_often_whether_its_pool_is_done``.
    """
    from celery.concurrency import asynpool, prefork

    prefork.time = OtherTime(sleep)
    asynpool.sleep = sleep
