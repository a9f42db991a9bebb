"""Keep a running task's log lines and evidence on disk, for when its process is killed.

One file a task, ``TASK_ID.log``, made at the task's first line and removed when it ends: JSON
documents a line, ``{"execution"}`` first, then ``{"line"}``, ``{"dropped"}`` and ``{"evidence"}``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from loguru import logger

from pytest_manifest import processes
from pytest_manifest.files import own_folder, private_folder

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_LINES = 200
MAX_BYTES = 32 * 1024
MAX_LINE_CHARS = 4 * 1024
CUT = " [...]"
REWRITE_BYTES = 8 * MAX_BYTES
_SAFE_NAME = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9_.@=+-]{0,199}")


@dataclass(slots=True)
class TaskOutput:
    """A task's log lines and evidence; ``dropped``: how many lines are missing."""

    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    evidence: dict[str, JsonValue] = field(default_factory=dict)


def spool_directory() -> Path:
    """Return the directory of ``MANIFEST_SPOOL``, else this user's temporary one."""
    given = os.environ.get(processes.SPOOL)
    if given:
        return Path(given)
    return Path(tempfile.gettempdir()) / f"pytest-manifest-spool-{os.getuid()}"


def spool_path(task_id: str) -> Path:
    """Return a task's file; ids that are no safe file name (they come from outside) are hashed."""
    if not _SAFE_NAME.fullmatch(task_id):
        task_id = hashlib.sha256(task_id.encode("utf-8", "replace")).hexdigest()
    return spool_directory() / f"{task_id}.log"


@dataclass(slots=True, eq=False)
class Spool:
    """The file of one running task. A file that cannot be written is given up with a warning."""

    _task_id: str
    _execution: str
    _descriptor: int | None = None
    _size: int = 0
    _room: int = REWRITE_BYTES
    _given_up: bool = False

    def add_line(self, line: str, lines: Lines) -> None:
        """Append a line; rewrite a file that has grown far beyond ``lines`` from them."""
        if self._size > self._room:
            self._rewrite(lines)
        else:
            self._append({"line": line})

    def add_evidence(self, values: Mapping[str, JsonValue]) -> None:
        self._append({"evidence": dict(values)})

    def close(self, *, stale: bool = False) -> None:
        """Remove the file. ``stale``: an earlier process may have left one."""
        if self._descriptor is None and not stale:
            return
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        with contextlib.suppress(OSError):
            spool_path(self._task_id).unlink()

    def _append(self, *documents: Mapping[str, JsonValue]) -> None:
        if self._given_up:
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._open(spool_path(self._task_id))
                documents = {"execution": self._execution}, *documents
            # No fsync: the kernel keeps it whatever happens to the process.
            data = b"".join(json.dumps(one).encode() + b"\n" for one in documents)
            self._size += os.write(self._descriptor, data)
        except OSError as error:
            self._given_up = True
            logger.warning(
                "log lines of killed tasks will be missing: {} cannot be written ({}); "
                "give a directory in {}",
                spool_directory(),
                error,
                processes.SPOOL,
            )

    def _open(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        (private_folder if processes.SPOOL in os.environ else own_folder)(path.parent)
        return os.open(path, flags, 0o600)

    def _rewrite(self, lines: Lines) -> None:
        """Begin the file anew with what is kept; who is killed within has no lines."""
        kept = _read(spool_path(self._task_id), self._execution).evidence
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        self._size = 0
        texts = ({"line": line} for line in lines.as_list())
        self._append(
            {"execution": self._execution}, {"dropped": lines.dropped}, {"evidence": kept}, *texts
        )
        self._room = self._size + REWRITE_BYTES  # evidence alone may be as large


def take_output(task_id: str, execution: str) -> TaskOutput:
    """Return a killed task's output and remove its file; empty where there is none."""
    path = spool_path(task_id)
    output = _read(path, execution)
    with contextlib.suppress(OSError):
        path.unlink()
    return output


def _read(path: Path, execution: str) -> TaskOutput:
    lines, output = Lines(), TaskOutput()
    for number, document in enumerate(_documents(path)):
        if number == 0 and document.get("execution") != execution:
            break  # of an earlier delivery whose end was never seen
        line, dropped = document.get("line"), document.get("dropped")
        values = document.get("evidence")
        if isinstance(line, str):
            lines.add(line)
        if isinstance(dropped, int):
            lines.dropped += dropped
        if isinstance(values, dict):
            output.evidence.update(values)
    output.lines, output.dropped = lines.as_list(), lines.dropped
    return output


def _documents(path: Path) -> Iterator[dict[str, JsonValue]]:
    with contextlib.suppress(OSError), path.open("rb") as file:
        for raw in file:
            try:
                document = json.loads(raw)
            except ValueError:
                continue  # cut off by the kill
            if isinstance(document, dict):
                yield document


class Lines:
    """The last ``MAX_LINES`` lines, at most ``MAX_BYTES`` of UTF-8 of them."""

    __slots__ = ("_bytes", "_lines", "_lock", "dropped")

    def __init__(self, dropped: int = 0) -> None:
        self._lines: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._lock = Lock()
        self.dropped = dropped

    def add(self, line: str) -> None:
        """Add one line without its newline; cut a very long one."""
        if len(line) > MAX_LINE_CHARS:
            line = line[:MAX_LINE_CHARS] + CUT
        size = len(line.encode("utf-8", "replace"))
        with self._lock:
            self._lines.append((line, size))
            self._bytes += size
            while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
                self._bytes -= self._lines.popleft()[1]
                self.dropped += 1

    def as_list(self) -> list[str]:
        """Return the lines kept, oldest first."""
        with self._lock:
            return [line for line, _ in self._lines]
