"""Log for people and for machines, without secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from loguru import logger

from pytest_manifest.files import private_folder
from pytest_manifest.redaction.names import is_secret_name
from pytest_manifest.redaction.texts import HIDDEN, hide_environment, redact
from pytest_manifest.text import json_line, terminal_line

if TYPE_CHECKING:
    from loguru import Message, Record

Format = Literal["text", "json"]

PACKAGE: Final = "pytest_manifest"
_TRACEBACK: Final = "traceback"
"""The extra value of a record that has a traceback as text, for logs in files alone."""


def configure(
    *,
    format: Format = "text",  # noqa: A002 - the word people know
    level: str = "INFO",
    sink: TextIO | None = None,
) -> None:
    """Replace all handlers of this process by one that writes to ``sink`` (standard error).

    Only for processes that are ours. ``text`` has colours on a terminal (``NO_COLOR`` and
    ``FORCE_COLOR`` are honoured); ``json`` is one object a line.
    """
    hide_environment()
    stream = sys.stderr if sink is None else sink
    logger.remove()
    render = _renderer(format, colorize=_wants_colour(stream))

    def write(message: Message) -> None:
        stream.write(render(message))
        stream.flush()

    _add(write, level)


def add_run_log(path: Path, *, format: Format = "text", level: str = "DEBUG") -> int:  # noqa: A002
    """Append to a file what ``pytest_manifest`` logs, without other packages' records.

    Other handlers stay as they are. Returns the handler's id for ``logger.remove``. What cannot be
    written is left out of the log. Raises OSError where the file cannot be opened.
    """
    hide_environment()
    private_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _add(_LogFile(descriptor, _renderer(format)), level, only=_is_ours)


def log_failure(what: str, error: BaseException, **context: str | None) -> None:
    """Log an error that is a fault of ours: a sentence, and its traceback for files alone.

    loguru's own first handler, which a user may have left in place, would add the values of all
    variables on the way, with whatever secrets they hold.
    """
    lines = traceback.format_exception(error)
    ours = logger.opt(depth=1).bind(**context, **{_TRACEBACK: redact("".join(lines))})
    ours.error("{}: {}", what, redact(f"{type(error).__name__}: {error}"))


def intercept_stdlib(level: str = "INFO") -> None:
    """Route records of the standard library's ``logging`` (celery's, kombu's) into loguru."""
    root = logging.getLogger()
    root.handlers[:] = [_ToLoguru()]
    root.setLevel(level)


class _ToLoguru(logging.Handler):
    """Pass a standard record on to loguru under its own name and place."""

    def emit(self, record: logging.LogRecord) -> None:
        if _fork.records is not None:
            _fork.records.append((self, record))
            return
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def place(ours: Record) -> None:
            ours["name"] = record.name
            ours["function"] = record.funcName or ""
            ours["line"] = record.lineno

        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        logger.patch(place).opt(exception=exception).log(level, "{}", record.getMessage())


class _Fork(threading.local):
    """The records that this thread logs while it forks, for afterwards; None: it does not fork.

    loguru holds its locks then, and would wait for itself: eventlet, for one, warns of each fork.
    """

    records: list[tuple[logging.Handler, logging.LogRecord]] | None = None

    def begin(self) -> None:
        self.records = []

    def end(self) -> None:
        records, self.records = self.records or (), None
        for handler, record in records:
            handler.emit(record)

    def forget(self) -> None:
        self.records = None


_fork = _Fork()
# loguru has registered before: its locks are taken after this begins and given up before it ends.
os.register_at_fork(before=_fork.begin, after_in_parent=_fork.end, after_in_child=_fork.forget)


class _LogFile:
    """A file that is written to at once, and not at all where its disk is full or fails.

    A log is no reason to end what it is about, nor may loguru print a traceback for each record.
    """

    def __init__(self, descriptor: int, render: Callable[[Message], str]) -> None:
        self._descriptor = descriptor
        self._render = render

    def write(self, message: Message) -> None:
        rest = self._render(message).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def _renderer(format: Format, *, colorize: bool = False) -> Callable[[Message], str]:  # noqa: A002
    return _as_json if format == "json" else partial(_as_text, colorize=colorize)


def _as_json(message: Message) -> str:
    """Return a record as one JSON object on a line of its own."""
    return json_line(json.dumps(_document(message.record), ensure_ascii=False)) + "\n"


def _as_text(message: Message, *, colorize: bool) -> str:
    """Return a record as one line, and below it the traceback, indented.

    Whatever a record holds, a line that begins with a time is one that was logged. The finished
    text is redacted once more, since tracebacks only appear in it.
    """

    def paint(colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colorize else text

    record = message.record
    time, level = record["time"], record["level"].name
    shown = ((key, value) for key, value in record["extra"].items() if key != _TRACEBACK)
    context = " ".join(f"{key}={HIDDEN if is_secret_name(key) else one}" for key, one in shown)
    parts = [
        paint("32", f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}"),
        paint(_LEVEL_COLOURS.get(level, "1"), f"{level: <8}"),
        paint("36", _one_line(record["name"] or "")),
        _one_line(record["message"]),
    ]
    if context:
        parts.append(paint("2", f"[{_one_line(context)}]"))
    lines = [" ".join(parts)]
    raised = str(message) if record["exception"] is not None else ""
    for text in (record["extra"].get(_TRACEBACK), raised):
        if isinstance(text, str):
            told = redact(text).split("\n")
            lines += (f"  {_one_line(line)}" for line in told if line)
    return redact("\n".join(lines) + "\n")


_LEVEL_COLOURS: Final = {
    "TRACE": "36;1",
    "DEBUG": "34;1",
    "SUCCESS": "32;1",
    "WARNING": "33;1",
    "ERROR": "31;1",
    "CRITICAL": "41;1",
}


def _one_line(text: str) -> str:
    """Return a text in which nothing ends the line, colours it or turns it around.

    Secrets of several lines are only to be found while they are that.
    """
    return terminal_line(redact(text))


def _add(
    sink: _LogFile | Callable[[Message], None],
    level: str,
    only: Callable[[Record], bool] | None = None,
) -> int:
    # diagnose would print the values of variables, which may be secrets.
    return logger.add(
        sink,
        level=level,
        format=lambda _: "{exception}",  # the sink has the rest from the record
        colorize=False,
        filter=only,
        backtrace=False,
        diagnose=False,
    )


def _is_ours(record: Record) -> bool:
    name = record["name"] or ""
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _document(record: Record) -> dict[str, object]:
    document: dict[str, object] = {
        "time": record["time"].astimezone(timezone.utc).isoformat(timespec="microseconds"),
        "level": record["level"].name,
        "logger": record["name"],
        "message": redact(record["message"]),
        "process": record["process"].id,
        "extra": _clean({key: one for key, one in record["extra"].items() if key != _TRACEBACK}),
    }
    own = record["extra"].get(_TRACEBACK)
    if isinstance(own, str):
        document["exception"] = own
    raised = record["exception"]
    if raised is not None and raised.type is not None:
        lines = traceback.format_exception(raised.type, raised.value, raised.traceback)
        document["exception"] = redact("".join(lines))
    return document


def _clean(value: object, name: str = "") -> object:
    """Convert a value to JSON types without secrets; a value that JSON cannot hold becomes text."""
    if is_secret_name(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _clean(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redact(str(value))


def _wants_colour(stream: TextIO) -> bool:
    is_wanted = bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
    return is_wanted and not os.environ.get("NO_COLOR")
