"""Keep a pool's processes to their private stack where each is a fresh interpreter.

Such a process (``worker_pool_start_method = "spawn"``) has its worker's environment, but none of
what was exchanged in its worker. It gets this module before the app, with the function that it
begins with: so what its worker did before the app was imported is done at the import, here.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from pytest_manifest.compat.celery import begin_process, begin_processes_by
from pytest_manifest.stack.private import URL_VARIABLE, is_kept, keep_to

PREFORK: Final = "celery.concurrency.prefork"

if (_url := os.environ.get(URL_VARIABLE)) and not is_kept():
    keep_to(_url)


def begin(app: Any, hostname: str) -> None:
    """Begin a process of the pool, kept to the stack."""
    begin_process(app, hostname)


def have_pools_begin_here() -> None:
    """Have the processes of this worker's pool, where it has some, begin with :func:`begin`."""
    from celery import signals

    def exchange(**_: object) -> None:
        if PREFORK in sys.modules:
            begin_processes_by(begin)

    signals.worker_init.connect(exchange, weak=False, dispatch_uid=__name__)
