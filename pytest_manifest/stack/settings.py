"""Define a supervisor's settings and the protocol between it and its client.

Only the standard library, like all that the supervisor imports: it must be up in some 30 ms.

The client writes one line of settings to the supervisor's standard input, then ``ready`` once the
worker takes jobs, and ``stop`` to end it, with the data, or ``stop, keep the data``. The end
of input means that the client is gone: all ends, unless the supervisor is detached, and a data
folder is kept. The supervisor writes what of its state has changed, one JSON object a line, to
standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

READY_LINE = "ready"
STOP_LINE = "stop"
STOP_AND_KEEP_LINE = "stop, keep the data"
WORKER = "manifest1"
FLOWER_USER = "manifest"


class Settings(NamedTuple):
    """The settings of a supervisor; paths are absolute."""

    app: str
    workers: int
    cwd: str
    # The program Valkey; who starts the supervisor fills it in.
    server: str = ""
    log_format: str = "text"
    log_level: str = "INFO"
    # The folders from which the client imports modules, the app among them.
    path: tuple[str, ...] = ()
    # The folder in which the broker's data outlive a crash; empty: a temporary one.
    data: str = ""
    # The directory of the state by which others find it, of a stack that outlives its client.
    detached: str = ""
    # The private key that its workers sign with, as PEM; empty: those of a detached stack sign with
    # what the environment names, if it does, and others with none.
    signing_key: str = ""
    flower: bool = False
    # Flower's port on loopback; 0: any that is free.
    flower_port: int = 0

    def dump(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def load(cls, line: str) -> Settings:
        fields = json.loads(line)
        return cls(**{**fields, "path": tuple(fields["path"])})


def import_path() -> tuple[str, ...]:
    """Return the folders from which this process imports an app, for its workers to do likewise.

    Those of pytest's ``pythonpath`` and of conftest files are among them; the working folder comes
    first where it is none of them, as in ``celery -A``.
    """
    here = str(Path.cwd())
    path = tuple(str(Path(one).absolute()) for one in sys.path)
    return path if here in path else (here, *path)


class WorkerExit(NamedTuple):
    """The end of a process that is started again, as the worker is.

    ``returncode`` is negative for a signal; ``tail``: the last lines of its log.
    """

    name: str
    pid: int
    returncode: int
    tail: Sequence[str] = ()


class Failure(TypedDict):
    """The reason for a stack's end, in a sentence; ``tail``: the last lines of the log about it."""

    message: str
    tail: list[str]


class State(TypedDict, total=False):
    """The state of a stack, of which each line of a supervisor has what has changed.

    A detached one has its own in a file; it holds passwords, hence its mode 0600. ``pids``: the
    boot and PID namespace that pids are of (:func:`processes.pid_scope`). ``broker``, ``worker``
    and ``flower`` are pids, 0 for none, as between death and restart. ``died`` and ``failed`` are
    in no file.
    """

    keeper: int
    pids: str
    app: str
    cwd: str
    directory: str
    broker: int
    broker_url: str
    worker: int
    flower: int
    flower_url: str
    flower_password: str
    died: WorkerExit
    failed: Failure


def ready_file(directory: Path) -> Path:
    """Name the file to which the worker writes its pid once it takes jobs."""
    return directory / "worker.ready"


def worker_log(directory: Path) -> Path:
    """Name the file to which the worker and its processes log."""
    return directory / "worker-1.log"
