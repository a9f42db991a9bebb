"""Define a supervisor's settings and the protocol between it and its client.

Only the standard library, like all that the supervisor imports: it must be up in some 30 ms.

The client writes one line of settings to the supervisor's standard input, then ``ready`` once the
worker takes jobs, and ``stop`` to end it, with the data, or ``stop, keep the data``. The end
of input means that the client is gone: all ends, unless the supervisor is detached, and a data
folder is kept. The supervisor writes events, one JSON object a line, to standard output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from typing_extensions import NotRequired

READY_LINE = "ready"
STOP_LINE = "stop"
STOP_AND_KEEP_LINE = "stop, keep the data"
WORKER = "manifest1"
FLOWER_USER = "manifest"
INCLUDE = "pytest_manifest.worker"


class Settings(NamedTuple):
    """The settings of a supervisor; paths are absolute."""

    app: str
    workers: int
    cwd: str
    # The programs Python and Valkey; who starts the supervisor fills them in.
    python: str = ""
    server: str = ""
    log_format: str = "text"
    log_level: str = "INFO"
    include: str = INCLUDE
    # The folders from which the client imports modules, the app among them.
    path: tuple[str, ...] = ()
    # The folder in which the broker's data outlive a crash; empty: a temporary one.
    data: str = ""
    detached: bool = False
    # Detached only: the file that tells others of this stack, and the lock held while it is up.
    state_file: str = ""
    lock_file: str = ""
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


class WorkerState(TypedDict):
    """A worker process as the supervisor knows it; ``pid`` is None between death and restart."""

    name: str
    pid: int | None
    log: str


class State(TypedDict):
    """The state file of a detached stack; it holds passwords, hence its mode 0600.

    ``pids``: the boot and PID namespace that its pids are of (:func:`processes.pid_scope`);
    an older one does not say.
    """

    keeper: int
    pids: NotRequired[str]
    app: str
    cwd: str
    directory: str
    broker: int
    broker_url: str
    backend_url: str
    workers: list[WorkerState]
    flower_url: str
    flower_password: str


class Event(TypedDict, total=False):
    """A message of a supervisor. ``event`` is always there, the rest depends on it.

    broker: ``url``, ``directory``, ``pid``. worker_started: ``name``, ``pid``, ``log``.
    worker_exited, service_exited (broker or Flower): ``name``, ``pid``, ``returncode``, ``tail``
    (the log's last lines). flower: ``url``, ``pid``. failed: ``message``, ``tail``. stopped: no
    more.
    """

    event: Literal[
        "broker",
        "worker_started",
        "worker_exited",
        "service_exited",
        "flower",
        "failed",
        "stopped",
    ]
    url: str
    directory: str
    name: str
    pid: int
    log: str
    returncode: int
    message: str
    tail: list[str]
