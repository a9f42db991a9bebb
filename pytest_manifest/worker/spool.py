"""Keep a running task's log lines and evidence on disk, for when its process is killed.

One file an execution, ``TASK_ID.EXECUTION.log``, made at its first line and removed when it ends:
JSON documents a line, ``{"line"}``, ``{"dropped"}``, ``{"evidence"}``, and ``{"earlier"}`` for the
evidence of a process that died before its worker had heard that it began the same execution, which
the pool then gives to another one. A retry has its own, as it may begin before the process that has
asked for it is through.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape
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
_EXECUTION = "[0-9a-f]" * 16
_SAFE_NAME = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9_.@=+-]{0,99}")


@dataclass(slots=True)
class TaskOutput:
    """A task's log lines and evidence; ``dropped``: how many lines are missing."""

    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    evidence: dict[str, JsonValue] = field(default_factory=dict)


def with_earlier(
    earlier: Mapping[str, JsonValue], evidence: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return the evidence of two processes of one execution: the later one's word, both costs."""
    costs = [one["cost"] for one in (earlier, evidence) if "cost" in one]
    numbers = [one for one in costs if isinstance(one, (int, float))]
    return {**earlier, **evidence, **({"cost": sum(numbers)} if len(numbers) > 1 else {})}


def spool_directory() -> Path:
    """Return the directory of ``MANIFEST_SPOOL``, else this user's temporary one."""
    given = os.environ.get(processes.SPOOL)
    if given:
        return Path(given)
    return Path(tempfile.gettempdir()) / f"pytest-manifest-spool-{os.getuid()}"


def spool_path(task_id: str, execution: str) -> Path:
    """Return an execution's file; ids that are no safe file name (they come from outside) are
    hashed."""
    return spool_directory() / f"{_safe(task_id)}.{_safe(execution)}.log"


def _safe(name: str) -> str:
    if _SAFE_NAME.fullmatch(name):
        return name
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()


@dataclass(slots=True, eq=False)
class Spool:
    """The file of one running task. A file that cannot be written is given up with a warning.

    ``earlier``: the evidence of a process that died in this execution, once this one has any.
    """

    _task_id: str
    _execution: str
    earlier: dict[str, JsonValue] = field(default_factory=dict)
    _descriptor: int | None = None
    _size: int = 0
    _room: int = REWRITE_BYTES
    _given_up: bool = False
    _began: float = field(default_factory=time.time)

    def add_line(self, line: str, lines: Lines) -> None:
        """Append a line; rewrite a file that has grown far beyond ``lines`` from them."""
        if self._size > self._room:
            self._rewrite(lines)
        else:
            self._append({"line": line})

    def add_evidence(self, values: Mapping[str, JsonValue]) -> None:
        self._append({"evidence": dict(values)})

    def close(self, *, stale: bool = False) -> None:
        """Remove the file. ``stale``: a worker that died may have left one of another execution."""
        if self._descriptor is None and not stale:
            return
        path = spool_path(self._task_id, self._execution)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _remove(path)
        if stale:
            for one in path.parent.glob(f"{escape(_safe(self._task_id))}.{_EXECUTION}.log"):
                with contextlib.suppress(OSError):
                    # What is newer is of one that runs: a retry, say.
                    if one.stat().st_mtime < self._began:
                        one.unlink()

    def _append(self, *documents: Mapping[str, JsonValue]) -> None:
        if self._given_up:
            return
        try:
            if self._descriptor is None:
                path = spool_path(self._task_id, self._execution)
                self.earlier = take_output(self._task_id, self._execution).evidence
                self._descriptor = self._open(path)
                if self.earlier:
                    documents = {"earlier": self.earlier}, *documents
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
        kept, earlier = _read(spool_path(self._task_id, self._execution))
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        self._size = 0
        texts = ({"line": line} for line in lines.as_list())
        self._append(
            {"dropped": lines.dropped}, {"earlier": earlier}, {"evidence": kept.evidence}, *texts
        )
        self._room = self._size + REWRITE_BYTES  # evidence alone may be as large


def take_output(task_id: str, execution: str) -> TaskOutput:
    """Return a killed task's output and remove its file; empty where there is none."""
    path = spool_path(task_id, execution)
    output, earlier = _read(path)
    _remove(path)
    output.evidence = with_earlier(earlier, output.evidence)
    return output


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _read(path: Path) -> tuple[TaskOutput, dict[str, JsonValue]]:
    """Return what a process has said, and the evidence of one before it."""
    lines, output, earlier = Lines(), TaskOutput(), dict[str, "JsonValue"]()
    for document in _documents(path):
        line, dropped = document.get("line"), document.get("dropped")
        if isinstance(line, str):
            lines.add(line)
        if isinstance(dropped, int):
            lines.dropped += dropped
        for name, known in (("evidence", output.evidence), ("earlier", earlier)):
            if isinstance(values := document.get(name), dict):
                known.update(values)
    output.lines, output.dropped = lines.as_list(), lines.dropped
    return output, earlier


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
