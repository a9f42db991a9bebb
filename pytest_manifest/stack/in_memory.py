"""Run a whole stack in this process: in-memory broker and result store, a real Celery worker.

The app of an in-memory stack: led to brokers in memory for a while, tasks replaced by calls.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from celery import Celery, Task
from celery.app.backends import by_url
from celery.worker import state as worker_state
from kombu.pools import ProducerPool
from loguru import logger
from typing_extensions import Self

from pytest_manifest.broker.celery_settings import PARTS, URLS, VARIABLES
from pytest_manifest.broker.client import load_app, tasks_failure
from pytest_manifest.compat import celery
from pytest_manifest.compat.kombu import empty_memory, queued_headers
from pytest_manifest.compat.older import requests_kept
from pytest_manifest.errors import StackError
from pytest_manifest.process_state import worker_within
from pytest_manifest.redaction.texts import redact
from pytest_manifest.signing import Signer
from pytest_manifest.stack import in_memory_worker
from pytest_manifest.stack.queues import is_of_no_entry
from pytest_manifest.urls import StackAddress
from pytest_manifest.worker import instrument, signing
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


def lead_to_memory(app: Celery, parts: ExitStack) -> None:
    """Lead ``app`` to the broker and result store of this process; both are empty at first.

    ``parts`` takes what leads it back. What is changed of its settings meanwhile goes with ours.
    """
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(variables, URL))
    parts.callback(os.environ.update, variables)
    parts.enter_context(empty_memory())
    try:
        app.conf.get("broker_url")  # An app reads its configuration when it is first asked.
    except Exception as error:
        raise StackError(
            f"the Celery app {app.main!r} cannot be configured ({type(error).__name__}: {error})"
        ) from error
    changes, loader = app.conf.changes, app.loader
    parts.callback(changes.update, dict(changes))
    parts.callback(changes.clear)
    parts.callback(setattr, loader, "override_backends", loader.override_backends)
    loader.override_backends = {**loader.override_backends, SCHEME: BACKEND}
    parts.enter_context(celery.settings_on_top(app.conf, SETTINGS))
    _make_anew(app, parts)
    parts.callback(worker_state.reset_state)
    parts.callback(stores.now.clear)


def _make_anew(app: Celery, parts: ExitStack) -> None:
    """Have the app forget connections and backends, and make others of its present settings."""
    parts.enter_context(celery.made_anew(app, "amqp", "control", "backend_cls"))
    app.backend_cls = None  # a store named by the app's class wins over all settings
    kind, place = by_url(URL, app.loader)
    # Own pools: those that kombu makes for an app stay for the life of the process.
    pool = app.connection_for_write().Pool(limit=POOL_LIMIT)
    producers = ProducerPool(pool, limit=POOL_LIMIT)
    parts.callback(pool.force_close_all)
    parts.callback(producers.force_close_all)
    stock, own = type(app.amqp), {"producer_pool": producers, "publisher_pool": producers}
    app.amqp = type(stock.__name__, (stock,), own)(app)
    parts.enter_context(celery.other_connections(app, pool, kind(app=app, url=place)))


def use_one_store(app: Celery, parts: ExitStack) -> None:
    """Have tasks with a result store of their own use the app's; they must be registered."""
    tasks = list(app.tasks.values())
    for kind in {kind for task in tasks for kind in type(task).__mro__ if kind is not Task}:
        if "backend" in vars(kind):
            parts.callback(setattr, kind, "backend", vars(kind)["backend"])
            celery.drop_own_store(kind)
    for task in tasks:
        if task.backend is not app.backend:
            parts.callback(setattr, task, "backend", task.backend)
            task.backend = None


def plain_app() -> Celery:
    """Make an app that has Celery's own tasks and no others."""
    app = Celery("pytest_manifest_memory", set_as_current=False, fixups=())
    app.finalize()
    for name in [name for name in app.tasks if not name.startswith("celery.")]:
        app.tasks.pop(name)  # Shared ones of every other app in this process.
    return app


def stand_in(app: Celery, calls: Mapping[str, Call], parts: ExitStack) -> None:
    """Have tasks of these names call these; each gets a job's arguments, and never the task.

    A task that the app has keeps its options (retries, late acknowledgement, queue, ...).
    """
    for name, call in calls.items():
        if not callable(call):
            raise TypeError(f"tasks[{name!r}] is a {type(call).__name__}, which cannot be called")
        task = app.tasks.get(name)
        if task is None:
            app.task(name=name, shared=False)(_function(call))
            parts.callback(app.tasks.pop, name)
        else:
            parts.enter_context(celery.running(task, _function(call)))


def _function(call: Call) -> Call:
    """Wrap a callable in a function: Celery needs a name, and no parameter called ``self``."""

    def run(*args: Any, **kwargs: Any) -> object:
        return call(*args, **kwargs)

    return run


START_SECONDS: Final = 30.0
JOIN_SECONDS: Final = in_memory_worker.STOP_SECONDS + 5.0

_one_at_a_time = threading.Lock()


class MemoryStack:
    """Run jobs in this process, for tests without a broker; a context manager.

    ``app``: the Celery app, or its name as ``module:attribute``; None for one that knows no tasks
    but those of ``tasks``. ``tasks``: callables that stand in for the tasks of these names; they
    get a job's arguments. ``workers``: how many jobs run at once, each in a thread.

    The app's settings, and CELERY_* variables that name a broker or result store, point into
    memory from ``start`` to ``stop``. Jobs cannot be killed, so no time limit ends one: a job that
    hangs takes its thread away from the others, and ``stop`` leaves it behind. One stack at a time
    can run in a process. ``signing_key``: what the worker signs its reports with.
    """

    def __init__(
        self,
        app: str | Celery | None = None,
        *,
        tasks: Mapping[str, Callable[..., object]] | None = None,
        workers: int = 1,
        signing_key: Signer | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"an in-memory stack needs at least one worker, not {workers}")
        self._given = app
        self._tasks = dict(tasks or {})
        self._workers = workers
        self._signing_key = signing_key
        self._parts: ExitStack | None = None
        self._worker: in_memory_worker.Worker | None = None
        self._thread: threading.Thread | None = None
        self._stop_requested = False
        self._error: BaseException | None = None
        self._hostname = f"memory@{socket.gethostname()}"
        self._app: Celery | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the worker takes jobs.

        Raises StackError where the app cannot be imported or the worker does not start, TypeError
        for a stand-in that cannot be called.
        """
        if self._parts is not None or self._stop_requested:
            raise StackError("this in-memory stack was started already: make a new one")
        with ExitStack() as parts:
            if not _one_at_a_time.acquire(blocking=False):
                raise StackError(
                    "another in-memory stack runs in this process, and kombu has one broker in "
                    "memory for all of it: stop that one first, or use it here too"
                )
            parts.callback(_one_at_a_time.release)
            parts.enter_context(worker_within())
            signing.use(self._signing_key)
            parts.enter_context(in_memory_worker.logs_redacted())
            self._prepare(parts)
            parts.callback(self._end_worker)
            self._start_worker()
            self._parts = parts.pop_all()

    def begin_stop(self) -> None:
        """Tell the worker to end, and return at once; ``stop`` then waits for it."""
        worker = self._worker
        if worker is not None and not self._stop_requested:
            self._stop_requested = True
            with worker.app.connection_for_write() as connection:
                worker.app.control.broadcast(
                    in_memory_worker.END, destination=[self._hostname], connection=connection
                )
        self._stop_requested = True

    def stop(self) -> None:
        """End the worker and put the app back as it was; more than once does no harm.

        Jobs that run are waited for, for some seconds; those that wait are dropped.
        """
        self.begin_stop()
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.close()

    def wait_broker(self, timeout: float) -> StackAddress:  # noqa: ARG002 - started is ready
        """Return the address, as an embedded stack does; the broker is ready at once."""
        return self.address

    @property
    def address(self) -> StackAddress:
        """Return where jobs are sent; raise StackError before ``start`` and after ``stop``."""
        if self._parts is None:
            raise StackError("this in-memory stack does not run: use it as 'with MemoryStack(...)'")
        name = self._given if isinstance(self._given, str) else str(self.app.main)
        return StackAddress(URL, URL, app=name, is_private=True, loaded=self.app)

    @property
    def app(self) -> Celery:
        """Return the app whose tasks are run; raise StackError before ``start``."""
        if self._app is None:
            raise StackError("this in-memory stack was not started")
        return self._app

    @property
    def failure(self) -> str | None:
        """Say in a sentence why the worker has ended without being stopped; else return None."""
        thread = self._thread
        if thread is None or thread.is_alive() or self._stop_requested:
            return None
        error = self._error or (self._worker and self._worker.error)
        return (
            f"the in-memory worker has ended by itself ({_reason(error)}), so what was still "
            "waiting in memory is gone; run these jobs again on a new stack"
        )

    def children_left(self) -> Counter[str]:
        """Count unfinished jobs that other jobs have sent, by the names of their tasks."""
        if self._parts is None or self._worker is None:
            return Counter()
        held = (getattr(one, "request_dict", None) for one in self._worker.held().values())
        return Counter(
            str(headers["task"])
            for headers in (*queued_headers(), *held)
            if isinstance(headers, dict) and headers.get("task") and is_of_no_entry(headers)
        )

    # Parts

    def _prepare(self, parts: ExitStack) -> None:
        """Import the app and its tasks, lead it to memory, and put the stand-ins in place."""
        if isinstance(self._given, str):
            app = load_app(StackAddress(URL, URL, app=self._given, is_private=True))
        else:
            app = self._given or plain_app()
        self._app = app
        lead_to_memory(app, parts)
        try:
            app.loader.init_worker()  # imports the modules of tasks that the settings name
            app.finalize()
        except Exception as error:
            raise StackError(tasks_failure(f"the Celery app {app.main!r}", error)) from error
        use_one_store(app, parts)
        parts.enter_context(requests_kept(app.tasks.values()))
        stand_in(app, self._tasks, parts)
        instrument(app)

    def _start_worker(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._main, args=(ready,), name="manifest-memory", daemon=True
        )
        self._thread.start()
        if not ready.wait(START_SECONDS):
            raise StackError(
                f"the in-memory worker was not ready within {START_SECONDS:g} s: see whether the "
                "app waits for something when it is set up, or whether this machine is overloaded"
            )
        # The thread of a worker that has failed may be alive for another moment.
        if self._error is not None or self.failure is not None:
            raise StackError(f"the in-memory worker did not start ({_reason(self._error)})")

    def _main(self, ready: threading.Event) -> None:
        """Run the worker in its thread, where the app becomes Celery's current one."""
        try:
            self.app.set_current()
            self._worker = in_memory_worker.make_worker(
                self.app, self._hostname, self._workers, ready
            )
            self._worker.start()
        except BaseException as error:  # a thread has no caller: it is told by ``failure``
            self._error = error
        finally:
            ready.set()

    def _end_worker(self) -> None:
        self.begin_stop()
        thread, worker = self._thread, self._worker
        if thread is not None:
            thread.join(JOIN_SECONDS)
        busy = worker.pool.busy if worker is not None and worker.pool is not None else 0
        if busy or (thread is not None and thread.is_alive()):
            logger.warning(
                "{} of the in-memory stack's jobs still run {:g} s after it was stopped; they are "
                "left alone, and end with this process",
                busy or "some",
                in_memory_worker.STOP_SECONDS,
            )


def _reason(error: BaseException | None) -> str:
    return "no error" if error is None else redact(f"{type(error).__name__}: {error}")
