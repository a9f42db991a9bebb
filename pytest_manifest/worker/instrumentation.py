"""Connecting it all to an app's workers, by Celery's signals and its table of backends."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any, Final

from celery import signals

from pytest_manifest import variables
from pytest_manifest.worker import (
    capture,
    ending,
    hooks,
    main_process,
    own_waits,
    stores,
)
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.execution import run_one_task_at_a_time
from pytest_manifest.worker.handing_on import follow_replacements
from pytest_manifest.worker.spool import sweep_stale

if TYPE_CHECKING:
    from celery import Celery

# For workers that we started: their broker, which holds the results, too, comes back when it dies.
OWN_SETTINGS: Final[dict[str, object]] = {
    # A job that has succeeded must not fail because its result cannot be stored at this moment.
    "result_backend_always_retry": True,
    "result_backend_max_sleep_between_retries_ms": 1000,
    "result_backend_transport_options": {
        "retry_policy": {"max_retries": 20, "interval_step": 0.2, "interval_max": 1.0}
    },
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
}


def instrument_app(app: Celery) -> None:
    """Let this app's backends hand in receipts, and connect this process's signals."""
    loader = app.loader
    # The app's own choices stay: their backends are seen to when the first message comes.
    loader.override_backends = {**stores.overrides(), **_of_others(loader.override_backends)}
    connect()


def enter_process(*, is_pool_child: bool) -> None:
    """Called in a new process of a prefork pool, and in the process of a solo worker."""
    run_one_task_at_a_time(is_pool_child=is_pool_child)
    if is_pool_child:
        own_waits.open_note()
    capture.catch_loguru()


def connect() -> None:
    """Connect the signals; doing it again changes nothing."""
    follow_replacements()
    for signal, receiver in (
        (signals.task_received, main_process.on_received),
        (signals.task_unknown, main_process.on_unknown),
        (signals.task_rejected, main_process.on_rejected),
        (signals.worker_ready, _on_ready),
        (signals.task_prerun, hooks.on_prerun),
        (signals.task_postrun, hooks.on_postrun),
        (signals.before_task_publish, hooks.on_publish),
        (signals.worker_process_shutdown, own_waits.remove_note),
    ):
        signal.connect(receiver, dispatch_uid=f"{receiver.__module__}.{receiver.__name__}")
    if capture.sets_up_logging():
        signals.setup_logging.connect(_on_setup_logging, dispatch_uid=f"{__name__}.logging")
    if variables.SUPERVISED in os.environ:
        signals.celeryd_after_setup.connect(_on_set_up, dispatch_uid=f"{__name__}.settings")
        signals.worker_shutting_down.connect(
            ending.on_shutting_down, dispatch_uid=f"{__name__}.ending"
        )
        signals.worker_process_shutdown.connect(
            ending.on_process_shutdown, dispatch_uid=f"{__name__}.process_ending"
        )


def _on_ready(sender: Any, **_: object) -> None:
    main_process.on_ready(sender)
    ensure_receipts(sender.app.backend)
    capture.catch_loguru()
    sweep_stale()
    own_waits.sweep()
    own_waits.put_off(sender.pool, getattr(sender, "hub", None))


def _on_set_up(conf: Any, **_: object) -> None:
    """Set, before anything connects and any process is forked, what the app has not set itself."""
    for name, value in OWN_SETTINGS.items():
        if not conf.value_set_for(name):
            conf[name] = value
    # What has been imported stays: the collector need not look at it again, neither in the pool's
    # processes, whose memory it would copy, nor at the end (0.2 s of a worker's 0.3 s).
    gc.freeze()


def _on_setup_logging(**_: object) -> None:
    from celery import current_app

    capture.set_up_own_logging()
    if current_app.conf.worker_redirect_stdouts:
        # Celery leaves it to whoever sets logging up; what tasks print is theirs to keep as well.
        current_app.log.redirect_stdouts(current_app.conf.worker_redirect_stdouts_level)


def _of_others(table: dict[str, str]) -> dict[str, str]:
    return {name: path for name, path in table.items() if not path.startswith(stores.__name__)}
