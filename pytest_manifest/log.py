"""Log for people and for machines, with secrets removed before a record reaches any sink."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO
from urllib.parse import unquote

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

Format = Literal["text", "json"]

PACKAGE: Final = "pytest_manifest"
HIDDEN: Final = "***"
# Shorter values of the environment ("1", "guest") would be blanked out of innocent text.
SHORTEST_LITERAL: Final = 8

_NAMES: Final = (
    r"(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credentials?)"
)
_NAME_RE = re.compile(rf"{_NAMES}\Z", re.IGNORECASE)
# Up to the last @ before a slash: a password that was not percent-encoded may hold one itself.
# No pattern here starts with an open repetition: each runs over every line that is logged.
_URL_RE = re.compile(r"(://[^\s/:@\"']*):[^\s/\"']*@")
_PAIR_RE = re.compile(
    rf"({_NAMES}[\"']?\s*[:=]\s*)"
    r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&\"'}\])]+)",
    re.IGNORECASE,
)
_BEARER_RE = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)

# Every text that the two patterns above match contains one of these. Searching for them takes a
# hundredth of the time, and nearly no line has one.
_SIGNS: Final = ("pass", "secret", "token", "key", "credential", "bearer", "basic")

_literals: frozenset[str] = frozenset()


def redact_url(url: str) -> str:
    """Replace a URL's password with ``***``, also one that is not percent-encoded."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return redact(url)
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    userinfo, at, _ = location.rpartition("@")
    if not at:
        return redact(url)
    user, colon, _ = userinfo.partition(":")
    shown = f"{user}:{HIDDEN}" if colon else user
    return redact(f"{scheme}://{shown}@{rest[len(userinfo) + 1 :]}")


def redact(text: str) -> str:
    """Hide passwords in URLs, in ``password=...`` and the like, and all registered secrets."""
    if "://" in text:
        text = _URL_RE.sub(rf"\1:{HIDDEN}@", text)
    if _may_name_secret(text):
        text = _PAIR_RE.sub(_hide_pair, text)
        text = _BEARER_RE.sub(rf"\1{HIDDEN}", text)
    for secret in _literals:
        text = text.replace(secret, HIDDEN)
    return text


def _may_name_secret(text: str) -> bool:
    if not text.isascii():  # other letters may fold to these ones there
        return True
    lowered = text.lower()
    return any(sign in lowered for sign in _SIGNS)


def hide(secret: str) -> None:
    """Keep this very value out of all logs of this process from now on."""
    global _literals
    if len(secret) >= SHORTEST_LITERAL:
        # Replaced, not changed in place: other threads iterate over it.
        _literals |= {secret}


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
    _hide_environment()
    stream = sys.stderr if sink is None else sink
    logger.remove()
    logger.configure(patcher=_redact_record)
    _add(_RedactingStream(stream), format, level, colorize=_wants_colour(stream))


def add_run_log(path: Path, *, format: Format = "text", level: str = "DEBUG") -> int:  # noqa: A002
    """Append to a file what ``pytest_manifest`` logs, without other packages' records.

    Other handlers stay as they are. Returns the handler's id for ``logger.remove``. What cannot be
    written is left out of the log. Raises OSError where the file cannot be opened.
    """
    _hide_environment()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _add(_RedactingStream(_LogFile(descriptor), close=True), format, level, only=_is_ours)


def intercept_stdlib(level: str = "INFO") -> None:
    """Route records of the standard library's ``logging`` (celery's, kombu's) into loguru."""
    root = logging.getLogger()
    root.handlers[:] = [_ToLoguru()]
    root.setLevel(level)


class _ToLoguru(logging.Handler):
    """Pass a standard record on to loguru under its own name and place."""

    def emit(self, record: logging.LogRecord) -> None:
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


class _LogFile(io.TextIOBase):
    """A file that is written to at once, and not at all where its disk is full or fails.

    A log is no reason to end what it is about, nor may loguru print a traceback for each record.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        rest = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return len(text)

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        super().close()


class _RedactingStream:
    """A loguru sink: redacts the finished text once more, since tracebacks only appear in it."""

    def __init__(self, stream: TextIO | io.TextIOBase, *, close: bool = False) -> None:
        self._stream = stream
        self._close = close

    def write(self, message: Message) -> None:
        self._stream.write(redact(str(message)))
        self._stream.flush()

    def stop(self) -> None:
        if self._close:
            self._stream.close()


class _JsonLines:
    """A loguru sink that turns each record into one JSON object on a line of its own."""

    def __init__(self, inner: _RedactingStream) -> None:
        self._stream = inner._stream
        self.stop = inner.stop

    def write(self, message: Message) -> None:
        self._stream.write(json.dumps(_document(message.record), ensure_ascii=False) + "\n")
        self._stream.flush()


def _add(
    stream: _RedactingStream,
    format: Format,  # noqa: A002
    level: str,
    *,
    colorize: bool = False,
    only: Callable[[Record], bool] | None = None,
) -> int:
    # diagnose would print the values of variables, which may be secrets.
    sink = _JsonLines(stream) if format == "json" else stream
    return logger.add(
        sink,
        level=level,
        format=_text_format,
        colorize=colorize,
        filter=only,
        backtrace=False,
        diagnose=False,
    )


def _is_ours(record: Record) -> bool:
    name = record["name"] or ""
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _text_format(record: Record) -> str:
    context = " ".join(f"{key}={{extra[{key}]}}" for key in record["extra"] if key.isidentifier())
    tail = f" <dim>[{context}]</dim>" if context else ""
    return (
        "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <8}</level> "
        f"<cyan>{{name}}</cyan> {{message}}{tail}\n{{exception}}"
    )


def _document(record: Record) -> dict[str, object]:
    document: dict[str, object] = {
        "time": record["time"].astimezone(timezone.utc).isoformat(timespec="microseconds"),
        "level": record["level"].name,
        "logger": record["name"],
        "message": redact(record["message"]),
        "process": record["process"].id,
        "extra": _clean(record["extra"]),
    }
    raised = record["exception"]
    if raised is not None and raised.type is not None:
        lines = traceback.format_exception(raised.type, raised.value, raised.traceback)
        document["exception"] = redact("".join(lines))
    return document


def _clean(value: object, name: str = "") -> object:
    """Convert a value to JSON types without secrets; a value that JSON cannot hold becomes text."""
    if _NAME_RE.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _clean(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redact(str(value))


def _redact_record(record: Record) -> None:
    record["message"] = redact(record["message"])
    extra = record["extra"]
    for key, value in extra.items():
        if _NAME_RE.search(key):
            extra[key] = HIDDEN
        elif isinstance(value, str):
            extra[key] = redact(value)


def _hide_pair(match: re.Match[str]) -> str:
    value = match[2]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match[1]}{quote}{HIDDEN}{quote}"


def _hide_environment() -> None:
    """Hide the values of secret-looking variables, and the passwords of URLs in variables."""
    for name, value in os.environ.items():
        if _NAME_RE.search(name):
            hide(value)
        scheme, separator, rest = value.partition("://")
        if separator and scheme.isascii():
            userinfo, at, _ = rest.partition("/")[0].rpartition("@")
            password = userinfo.partition(":")[2] if at else ""
            hide(password)
            hide(unquote(password))


def _wants_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
