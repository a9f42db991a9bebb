"""Hide secrets in what the threads of an in-memory stack log: pytest may show it as it comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_manifest.redaction import redact


@contextmanager
def logs_redacted() -> Iterator[None]:
    """Redact the records of the standard library's logging while the block runs.

    Those of the main thread are left alone: tests run there, and may look for what they log.
    """
    before = logging.getLogRecordFactory()
    ended = threading.Event()

    def make(*args: object, **more: object) -> logging.LogRecord:
        record: logging.LogRecord = before(*args, **more)
        if threading.current_thread() is not threading.main_thread() and not ended.is_set():
            _redact(record)
        return record

    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        ended.set()  # another factory may call this one by now
        if logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(before)


def _redact(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        return  # arguments that do not fit: logging tells of them when it formats the record
    shown = redact(text)
    if shown != text:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
