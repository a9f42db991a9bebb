"""Define what dispatching side and workers exchange: headers, times, digests, wrapped results.

The records of a run's stream: see ``results.records``. The code that a task runs is digested alike
in the worker and on the dispatching side. Both sides import this module, so it imports neither
Celery nor any client.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pydantic import JsonValue


HEADER_RUN: Final = "manifest_run"
HEADER_ENTRY: Final = "manifest_entry"
HEADER_ATTEMPT: Final = "manifest_attempt"
HEADER_SENT_AT: Final = "manifest_sent_at"
HEADER_STREAM: Final = "manifest_stream"
HEADER_TTL: Final = "manifest_ttl"

HEADER_RECEIVED_AT: Final = "manifest_received_at"
"""Added by the worker that takes the message, for its own pool processes."""
HEADER_EXECUTION: Final = "manifest_execution"
"""Added by the worker that takes the message: names this delivery of it."""

HEADER_RETRIED: Final = "manifest_retried"
"""Added by the worker in which a task asks Celery for a retry: what came of the tries so far."""

HEADER_HOP: Final = "manifest_hop"
"""Added by the worker in which a task hands its job on (``Task.replace``): how often that was done
before. The message that carries the job to its end has it, whichever process sends it."""

HEADER_ROOT: Final = "manifest_root"
"""The task id of the job that a message belongs to: its own, or of the job it descends from. Given
by the dispatcher, it asks the worker to tell of every task that the job starts."""
HEADER_PARENT: Final = "manifest_parent"
"""Added by the worker in which a task of the job starts another one: the starting task's id."""

MOST: Final = (1 << 53) - 1
"""The largest count, in either direction: every reader of JSON has it exactly, and so has SQL."""
YEARS: Final = range(1970, 9999)
"""The years of a time in UTC: so it stays a time in each zone, and when seconds are added."""

_FRACTION: Final = re.compile(r"(?<=:\d\d[.,])\d+")

RESULT_RECEIPT: Final = "manifest_receipt"
RESULT_VALUE: Final = "manifest_result"
TRACEBACK_MARK: Final = "\n-- manifest receipt --\n"
"""Where a result store has no stream, a failed task's receipt stands behind its traceback."""

WORKER_MARK: Final = "pytest_manifest.receipts"
"""The task that instrumented workers register, by which the plugin recognises them."""
SIGNED_MARK: Final = f"{WORKER_MARK}.signed_by_"
"""The beginning of the task that those register which sign; the key's id follows."""
PROCESS_MARK: Final = f"{WORKER_MARK}.process_"
"""The beginning of the task by which a worker names its main process; the identity follows."""
STACKS_MARK: Final = f"{WORKER_MARK}.shows_stacks"
"""The task that those register whose processes show their stacks, and the command by which they
are asked for them."""

RUN8_LENGTH: Final = 8

# json.dumps would make a new encoder for every call with such options.
canonical_text: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def stream_key(run: str) -> str:
    """Return the key of the run's stream of receipts in the result store."""
    return f"manifest:{run[-RUN8_LENGTH:]}:receipts"


def timestamp(moment: datetime) -> str:
    """Format an aware time as text: ISO 8601, UTC, microseconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def amount(value: object) -> float | None:
    """Return a cost as a task reports it: a finite number from 0; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def parse_moment(text: str) -> datetime:
    """Parse a time in ISO 8601, which may end in ``Z`` and have any number of digits of a second.

    Digits beyond microseconds are dropped. Raises ValueError for what is no such time.
    """
    if sys.version_info < (3, 11):
        # That one knows no zone by the name of Z, and three or six digits alone.
        text = re.sub("Z$", "+00:00", text)
        text = _FRACTION.sub(lambda found: found[0][:6].ljust(6, "0"), text, count=1)
    return datetime.fromisoformat(text)


def utc(moment: datetime) -> datetime | None:
    """Convert an aware time to UTC; None for one of no year that it may have there."""
    try:
        found = moment if moment.tzinfo is timezone.utc else moment.astimezone(timezone.utc)
    except OverflowError:
        return None
    return found if found.year in YEARS else None


def parse_timestamp(text: object) -> datetime | None:
    """Parse the text that ``timestamp`` wrote; None for anything else, or without a time zone."""
    try:
        moment = parse_moment(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if moment is None or moment.tzinfo is None else utc(moment)


def canonical(value: object) -> bytes | None:
    """Compact JSON with sorted keys, UTF-8; None for what JSON cannot hold."""
    try:
        return canonical_text(value).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def json_sha256(value: object) -> str | None:
    """Return the SHA-256, in hex, of ``value`` as canonical JSON; None if JSON cannot hold it."""
    try:  # without more calls, as it is asked of each entry several times
        return hashlib.sha256(canonical_text(value).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def arguments_sha256(args: object, kwargs: object) -> str | None:
    """Return the SHA-256 digest of a task's arguments as they were sent."""
    return json_sha256([args, kwargs])


def json_or_none(value: object) -> JsonValue:
    """Copy a JSON value; return None for what JSON cannot hold."""
    data = canonical(value)
    result: JsonValue = None if data is None else json.loads(data)
    return result


def unwrap_result(
    meta: Mapping[str, object], convert: Callable[[object], JsonValue] = json_or_none
) -> tuple[dict[str, JsonValue] | None, JsonValue]:
    """Separate the receipt inside a stored result from the task's own result.

    ``meta`` is what Celery's backends give for a task id (``get_task_meta``). The receipt is None
    where the worker is not instrumented; the result is None where the task raised something.
    ``convert`` makes JSON of the task's own result.
    """
    result = meta.get("result")
    receipt: dict[str, JsonValue] | None = None
    if isinstance(result, Mapping) and isinstance(result.get(RESULT_RECEIPT), dict):
        receipt, result = dict(result[RESULT_RECEIPT]), result.get(RESULT_VALUE)
    elif isinstance(beside := meta.get(RESULT_RECEIPT), dict):
        receipt = dict(beside)
    else:
        traceback = meta.get("traceback")
        if isinstance(traceback, str) and TRACEBACK_MARK in traceback:
            receipt = _receipt_behind(traceback)
    own = None if isinstance(result, BaseException) else convert(result)
    if receipt is not None and receipt.get("state") == "succeeded":
        receipt.setdefault("result", own)  # its result is sent once, beside the receipt
    return receipt, own


def plain_traceback(traceback: str | None) -> str | None:
    """Return the traceback without the receipt that the worker may have appended to it."""
    if traceback is None:
        return None
    text = traceback.rpartition(TRACEBACK_MARK)[0] if TRACEBACK_MARK in traceback else traceback
    return text.rstrip("\n") or None


def _receipt_behind(traceback: str) -> dict[str, JsonValue] | None:
    try:
        receipt = json.loads(traceback.rpartition(TRACEBACK_MARK)[2])
    except ValueError:
        return None
    return receipt if isinstance(receipt, dict) else None


CODE_ATTRIBUTE = "manifest_code"
"""The attribute of a worker's tasks that tells the digest of their code to whoever asks for it."""

_digests: WeakKeyDictionary[ModuleType, str | None] = WeakKeyDictionary()
_NO_SOURCE = "no-source"
_making = threading.Lock()  # warnings.catch_warnings() is not thread-safe either


def code_digest(task: object) -> str | None:
    """Return ``py3.11:`` and the SHA-256, in hex, of the module that defines what ``task`` runs.

    ``task`` is a Celery task, or a plain function; wrappers that name what they wrap (autoretry,
    ``functools.wraps``) are unwrapped. Comments and layout do not count. Digests made by other
    Python versions, which have another syntax tree, cannot be compared. None where there is no
    source. The digest is made once for each module: what a process has loaded does not change with
    the file, so a worker makes it when it starts.
    """
    module = _defining_module(task)
    if module is None:
        return None
    with _making:
        if module not in _digests:
            _digests[module] = _module_digest(module)
        return _digests[module]


def told_digest(task: object) -> str:
    """Return the digest that a worker reports of its task's code, or a mark that it has no source.

    The mark tells such a receipt from one whose digest was removed.
    """
    return code_digest(task) or f"{_python()}:{_NO_SOURCE}"


def has_source(digest: str | None) -> bool:
    """Return whether a digest that was told is known, and one of a source."""
    return digest is not None and not digest.endswith(f":{_NO_SOURCE}")


def comparable(one: str | None, other: str | None) -> bool:
    """Return whether both digests are known and of the same Python version."""
    if one is None or other is None or _NO_SOURCE in (one[-9:], other[-9:]):
        return False
    return one.partition(":")[0] == other.partition(":")[0]


def _python() -> str:
    return f"py{sys.version_info.major}.{sys.version_info.minor}"


def _defining_module(task: object) -> ModuleType | None:
    function: object = getattr(task, "run", task)
    try:
        while callable(function):
            inner = function.func if isinstance(function, partial) else inspect.unwrap(function)
            if inner is function:
                break
            function = inner
    except ValueError:  # wrappers that wrap one another
        return None
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return module if isinstance(module, ModuleType) else None


def _module_digest(module: ModuleType) -> str | None:
    try:
        source = inspect.getsource(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source's own warnings, shown at its import
            try:
                tree = ast.dump(ast.parse(source))
            except SystemError:
                # Two threads of CPython 3.11 that parse at once disturb one another.
                tree = ast.dump(ast.parse(source))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # built in, without its source, or with a line that Python's own parser refuses
    return f"{_python()}:{hashlib.sha256(tree.encode('utf-8', 'surrogatepass')).hexdigest()}"
