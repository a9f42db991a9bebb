"""Keeping a pool's processes to their private stack where each is a fresh interpreter.

Such a process (``worker_pool_start_method = "spawn"``) has its worker's environment, but none of
what was exchanged in its worker. It gets this module before the app, with the function that it
begins with: so what its worker did before the app was imported is done at the import, here.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from pytest_manifest.stack.private import URL_VARIABLE, is_kept, keep_to

PREFORK: Final = "celery.concurrency.prefork"

if (_url := os.environ.get(URL_VARIABLE)) and not is_kept():
    keep_to(_url)


def begin(app: Any, hostname: str) -> None:
    """What every process of the pool begins with."""
    from celery.concurrency import prefork

    plain = getattr(prefork, "plain_initializer", prefork.process_initializer)
    plain(app, hostname)


def have_pools_begin_here() -> None:
    """Have the processes of this worker's pool, where it has some, begin with :func:`begin`."""
    from celery import signals

    def exchange(**_: object) -> None:
        prefork: Any = sys.modules.get(PREFORK)
        if prefork is not None and prefork.process_initializer is not begin:
            prefork.plain_initializer = prefork.process_initializer
            prefork.process_initializer = begin

    signals.worker_init.connect(exchange, weak=False, dispatch_uid=__name__)
