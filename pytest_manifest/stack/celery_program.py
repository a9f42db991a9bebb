"""Run the program ``celery`` for a private stack, whose processes are kept to it.

``python -m pytest_manifest.stack.celery_program celery ...`` does what ``celery ...`` does, by its
options, words and exit codes, once the process is prepared.

A pool may start each of its processes as a fresh interpreter (``worker_pool_start_method =
"spawn"``), with its worker's environment, but none of what was exchanged in its worker. It gets
this module before the app, with the function that it begins with: so it is kept to the stack when
this is imported.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
import warnings
from typing import Any, Final

from pytest_manifest.compat.celery import begin_process, begin_processes_by
from pytest_manifest.stack import private

PREFORK: Final = "celery.concurrency.prefork"


def begin(app: Any, hostname: str) -> None:
    """Begin a process of the pool, kept to the stack; the app is Celery's, which has no types."""
    begin_process(app, hostname)


def exchange(**_: object) -> None:
    """Have the processes of this worker's pool, where it has some, begin with :func:`begin`."""
    if PREFORK in sys.modules:
        from pytest_manifest.stack import celery_program  # as another process finds it

        begin_processes_by(celery_program.begin)


def main() -> None:
    """Prepare this process, then run ``celery`` in it."""
    if sys.argv[1:2] != ["celery"]:
        sys.exit("usage: python -m pytest_manifest.stack.celery_program celery ...")
    del sys.argv[1]
    # What is imported here is never garbage: looking for some takes a tenth of a worker's start.
    gc.disable()
    private.prepare()
    # Of a worker that root runs, as in many containers: who looks for an error reads it as one.
    warnings.filterwarnings("ignore", "You're running the worker with superuser")
    from celery import signals

    signals.worker_init.connect(exchange, weak=False, dispatch_uid=__name__)
    if "flower" in sys.argv:
        from pytest_manifest.compat.flower import guard_open_pages

        guard_open_pages()
    gc.freeze()
    gc.enable()
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
elif (_url := os.environ.get(private.URL_VARIABLE)) and not private.is_kept():
    private.keep_to(_url)
