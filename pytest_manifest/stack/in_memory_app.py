"""The app of an in-memory stack: led to brokers in memory for a while, tasks replaced by calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from celery import Celery, Task
from celery.app.backends import by_url
from celery.worker import state as worker_state
from kombu.pools import ProducerPool
from kombu.transport import memory

from pytest_manifest.broker.celery_settings import PARTS, URLS, VARIABLES
from pytest_manifest.compat.celery import (
    drop_own_store,
    made_anew,
    other_connections,
    running,
    settings_on_top,
)
from pytest_manifest.errors import StackError
from pytest_manifest.worker.backend_memory import SCHEME, stores

URL: Final = f"{SCHEME}://localhost/"  # kombu warns where no host is named
POLL_SECONDS: Final = 0.002
POOL_LIMIT: Final = 10
BACKEND: Final = "pytest_manifest.worker.backend_memory:MemoryBackend"
SETTINGS: Final[Mapping[str, object]] = {
    **PARTS,
    **dict.fromkeys(URLS, URL),
    "broker_transport_options": {"polling_interval": POLL_SECONDS},
    "broker_connection_retry_on_startup": True,
    "result_backend_transport_options": {},
}

Call = Callable[..., object]


@contextmanager
def borrowed(app: Celery) -> Iterator[None]:
    """Lead ``app`` to the broker and result store of this process; both are empty at first."""
    with ExitStack() as parts:
        parts.enter_context(_environment())
        parts.enter_context(_empty_broker())
        parts.enter_context(_settings(app))
        parts.enter_context(_made_anew(app))
        parts.callback(worker_state.reset_state)
        parts.callback(stores.now.clear)
        yield


@contextmanager
def one_store(app: Celery) -> Iterator[None]:
    """Have tasks with a result store of their own use the app's; they must be registered."""
    tasks = list(app.tasks.values())
    classes: set[Any] = {kind for task in tasks for kind in type(task).__mro__ if kind is not Task}
    named = {kind: vars(kind)["backend"] for kind in classes if "backend" in vars(kind)}
    for kind in named:
        drop_own_store(kind)
    assigned = {task: task.backend for task in tasks if task.backend is not app.backend}
    for task in assigned:
        task.backend = None
    try:
        yield
    finally:
        for kind, store_of_kind in named.items():
            kind.backend = store_of_kind
        for task, store_of_task in assigned.items():
            task.backend = store_of_task


@contextmanager
def _environment() -> Iterator[None]:
    saved = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(saved, URL))
    try:
        yield
    finally:
        os.environ.update(saved)


@contextmanager
def _empty_broker() -> Iterator[None]:
    """Give this process an empty in-memory broker, and restore the previous one afterwards.

    Kombu keeps one broker for the whole process, in attributes of two classes. So no message that
    other code left there is run, and none of the stack's is left there.
    """
    state = memory.Transport.global_state
    tables: list[Any] = [memory.Channel.queues, state.exchanges, state.bindings, state.queue_index]
    kept = [table.copy() for table in tables]
    for table in tables:
        table.clear()
    try:
        yield
    finally:
        for table, content in zip(tables, kept, strict=True):
            table.clear()
            table.update(content)


@contextmanager
def _settings(app: Celery) -> Iterator[None]:
    """Lay our settings over the app's own; what is changed meanwhile goes with them."""
    try:
        app.conf.get("broker_url")  # An app reads its configuration when it is first asked.
    except Exception as error:
        raise StackError(
            f"the Celery app {app.main!r} cannot be configured ({type(error).__name__}: {error})"
        ) from error
    conf = app.conf
    own = dict(conf.changes)
    backends = app.loader.override_backends
    app.loader.override_backends = {**backends, SCHEME: BACKEND}
    try:
        with settings_on_top(conf, SETTINGS):
            yield
    finally:
        app.loader.override_backends = backends
        conf.changes.clear()
        conf.changes.update(own)


@contextmanager
def _made_anew(app: Celery) -> Iterator[None]:
    """Have the app forget connections and backends, and make others of its present settings."""
    with made_anew(app, "amqp", "control", "backend_cls"):
        app.backend_cls = None  # a store named by the app's class wins over all settings
        kind, place = by_url(URL, app.loader)
        # Own pools: those that kombu makes for an app stay for the life of the process.
        pool = app.connection_for_write().Pool(limit=POOL_LIMIT)
        producers = ProducerPool(pool, limit=POOL_LIMIT)
        app.amqp = _with_producers(type(app.amqp), producers)(app)
        try:
            with other_connections(app, pool, kind(app=app, url=place)):
                yield
        finally:
            producers.force_close_all()
            pool.force_close_all()


def _with_producers(kind: Any, producers: ProducerPool) -> Any:
    """Return a subclass of Celery's AMQP class that uses these producers."""
    return type(kind.__name__, (kind,), {"producer_pool": producers, "publisher_pool": producers})


def plain_app() -> Celery:
    """Make an app that has Celery's own tasks and no others."""
    app = Celery("pytest_manifest_memory", set_as_current=False, fixups=())
    app.finalize()
    for name in [name for name in app.tasks if not name.startswith("celery.")]:
        app.tasks.pop(name)  # Shared ones of every other app in this process.
    return app


@contextmanager
def standing_in(app: Celery, calls: Mapping[str, Call]) -> Iterator[None]:
    """Have tasks of these names call these; each gets a job's arguments, and never the task.

    A task that the app has keeps its options (retries, late acknowledgement, queue, ...).
    """
    for name, call in calls.items():
        if not callable(call):
            raise TypeError(f"tasks[{name!r}] is a {type(call).__name__}, which cannot be called")
    with ExitStack() as parts:
        for name, call in calls.items():
            task = app.tasks.get(name)
            if task is None:
                app.task(name=name, shared=False)(_function(call))
                parts.callback(app.tasks.pop, name)
            else:
                parts.enter_context(running(task, _function(call)))
        yield


def _function(call: Call) -> Call:
    """Wrap a callable in a function: Celery needs a name, and no parameter called ``self``."""

    def stand_in(*args: Any, **kwargs: Any) -> object:
        return call(*args, **kwargs)

    return stand_in
