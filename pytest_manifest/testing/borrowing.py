"""A Celery app and its process, led to brokers in memory for a while, and put back as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import local
from typing import Final

from celery import Celery
from celery.worker import state as worker_state
from kombu.pools import ProducerPool
from kombu.transport import memory, virtual

from pytest_manifest.errors import StackError
from pytest_manifest.worker import capture
from pytest_manifest.worker.memory import SCHEME, store

URL: Final = f"{SCHEME}://localhost/"  # kombu warns where no host is named
POLL_SECONDS: Final = 0.002
POOL_LIMIT: Final = 10
BACKEND: Final = "pytest_manifest.worker.memory:MemoryBackend"
# Celery prefers these to what an app is configured with.
VARIABLES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
SETTINGS: Final[Mapping[str, object]] = {
    "broker_url": URL,
    "broker_read_url": URL,
    "broker_write_url": URL,
    "broker_transport_options": {"polling_interval": POLL_SECONDS},
    "broker_connection_retry_on_startup": True,
    "result_backend": URL,
    "result_backend_transport_options": {},
    "worker_enable_remote_control": True,
    "worker_state_db": None,  # a file, of revoked tasks
}
# What an app makes once, of its settings, and keeps.
KEPT: Final = ("amqp", "control")
_MISSING: Final = object()


@contextmanager
def borrowed(app: Celery) -> Iterator[None]:
    """Lead ``app`` to the broker and result store of this process; both are empty at first."""
    with ExitStack() as parts:
        parts.enter_context(_environment())
        parts.enter_context(_empty_broker())
        parts.enter_context(_settings(app))
        parts.enter_context(_made_anew(app))
        parts.callback(worker_state.reset_state)
        parts.callback(capture.release)
        parts.callback(store.clear)
        yield


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
    """A broker of our own: kombu has one for the whole process, in attributes of two classes.

    So no message that somebody left there is run, and none of ours is left there.
    """
    queues, state = memory.Channel.queues, memory.Transport.global_state
    memory.Channel.queues, memory.Transport.global_state = {}, virtual.BrokerState()
    try:
        yield
    finally:
        memory.Channel.queues, memory.Transport.global_state = queues, state


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
    ours = {conf._key(name): value for name, value in SETTINGS.items()}
    own = dict(conf.changes)
    conf.maps.insert(0, ours)
    backends = app.loader.override_backends
    app.loader.override_backends = {**backends, SCHEME: BACKEND}
    try:
        yield
    finally:
        app.loader.override_backends = backends
        conf.maps[:] = [one for one in conf.maps if one is not ours]
        conf.changes.clear()
        conf.changes.update(own)


@contextmanager
def _made_anew(app: Celery) -> Iterator[None]:
    """Have the app forget connections and backends, and make others of its present settings."""
    kept = {name: app.__dict__.pop(name, _MISSING) for name in KEPT}
    pool, backends, of_threads = app._pool, app._backend_cache, app._local
    app._backend_cache, app._local = None, local()
    # Of our own: kombu keeps those that an app gets from it for as long as the process lives.
    app._pool = app.connection_for_write().Pool(limit=POOL_LIMIT)
    app.amqp._producer_pool = ProducerPool(app._pool, limit=POOL_LIMIT)
    try:
        yield
    finally:
        app.amqp._producer_pool.force_close_all()
        app._pool.force_close_all()
        app._pool, app._backend_cache, app._local = pool, backends, of_threads
        for name, value in kept.items():
            app.__dict__.pop(name, None)
            if value is not _MISSING:
                app.__dict__[name] = value
