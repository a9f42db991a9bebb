"""Keep what coverage.py has measured in a pool's process, which ends without Python's own end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any


def on_process_init(**_: object) -> None:
    """Have this process save what is measured in it before SIGTERM ends it, where any is."""
    if _measuring() is not None:
        signal.signal(signal.SIGTERM, _save_and_end)


def on_process_shutdown(**_: object) -> None:
    """Save what was measured: the pool ends this process by ``os._exit``."""
    save()


def save() -> None:
    """Write the measurements so far into a file of this process."""
    current = _measuring()
    if current is not None:
        with suppress(Exception):  # of a report about a job, which must not end otherwise for it
            current.stop()
            current.save()


def _measuring() -> Any | None:
    """Give coverage.py's measurement of this process; None where there is none."""
    coverage = sys.modules.get("coverage")
    return None if coverage is None else coverage.Coverage.current()


def _save_and_end(number: int, _frame: object) -> None:
    save()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
