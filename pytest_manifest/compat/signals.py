"""Reach into how Celery sends its signals: what a receiver raises is logged, and that is all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

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
