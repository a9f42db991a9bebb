"""The processes of a stack: their commands, each in a group of its own. Standard library only.

Secrets reach them by a file or the environment alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_manifest import processes
from pytest_manifest.broker.celery_settings import environment
from pytest_manifest.files import write_whole
from pytest_manifest.processes import kill_group
from pytest_manifest.signing import SIGNING_KEY_VARIABLE
from pytest_manifest.stack.private import READY_VARIABLE, URL_VARIABLE
from pytest_manifest.stack.settings import FLOWER_USER, WORKER, Settings, ready_file, worker_log
from pytest_manifest.stack.valkey import HOST, DataFolder, write_configuration

TAIL_BYTES = 3000
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A command that may be started again and again; its output is appended to one log file.

    ``gently``: it is told to end, not killed, when the supervisor dies. It inherits ``holds``,
    descriptors of locks.
    """

    name: Literal["broker", "worker", "flower"]
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    gently: bool = False
    holds: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    returncode: int | None = None
    deaths: list[float] = field(default_factory=list)
    started_at: float = 0.0
    restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def start(self) -> int:
        """Start it, and return its pid, which is its group's number too."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.restart_at = self.returncode = None
        self.started_at = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=self.holds,
                preexec_fn=_in_own_group(signal.SIGTERM if self.gently else signal.SIGKILL),
            )
        finally:
            os.close(descriptor)
        return self.process.pid

    def reap(self) -> int | None:
        """Give its return code if it has ended since its start, and kill the rest of its group.

        Negative codes are signals, as with ``subprocess``.
        """
        if self.process is None:
            return None
        code = self.process.poll()
        if code is None:
            return None
        # A pool child that outlives its worker would go on with a job unheard.
        kill_group(self.process.pid)
        self.process, self.returncode = None, code
        self.deaths.append(time.monotonic())
        return code

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself, not its group; nothing where it has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def signal_group(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the process and all of its group."""
        if self.process is not None:
            kill_group(self.process.pid, number)


def tail(path: Path, lines: int = 12) -> list[str]:
    """Read the last lines of a file that are not empty; at most 3,000 bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def _in_own_group(number: signal.Signals) -> Callable[[], None]:
    """Give the child a group of its own, and have Linux signal it when the supervisor is killed.

    Where the client lives it ends the groups, too: see ``client.py``.
    """
    if sys.platform != "linux":
        return lambda: os.setpgid(0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


# Flower's own choice leaves out what tells one job from another.
FLOWER_COLUMNS = "name,kwargs,args,state,received,runtime,worker,uuid"
CELERY = ("-m", "pytest_manifest.stack.celery_program", "celery")
# Levels that loguru has and celery has not.
CELERY_LEVELS = {"TRACE": "DEBUG", "SUCCESS": "INFO"}


def broker_url(port: int, password: str) -> str:
    return f"redis://:{password}@{HOST}:{port}/0"


def broker_child(
    settings: Settings, directory: Path, port: int, password: str, data: DataFolder | None
) -> Child:
    """Make the private Valkey, with its files in the data folder or in ``directory``."""
    kept = data.path if data is not None else directory
    command = [settings.server, str(write_configuration(directory, port, password, data=kept))]
    child = Child("broker", command, _without_key(), directory, directory / "valkey.log")
    if data is not None:
        # Without a supervisor it still holds the folder until it has written all.
        child.gently, child.holds = True, [data.lock]
    return child


def worker_child(settings: Settings, directory: Path, url: str, data: DataFolder | None) -> Child:
    """Make a stock celery worker as a user starts it, with a pool of so many processes."""
    spool = data.spool if data is not None else directory / "spool"
    spool.mkdir(mode=0o700, exist_ok=True)
    env = _environment(url, settings) | {
        processes.SUPERVISED: "1",
        processes.LOG_FORMAT: settings.log_format,
        processes.LOG_LEVEL: settings.log_level,
        processes.SPOOL: str(spool),
        READY_VARIABLE: str(ready_file(directory)),
    }
    if settings.signing_key:
        key = directory / "signing.key"
        write_whole(key, settings.signing_key.encode("ascii"))
        env[SIGNING_KEY_VARIABLE] = str(key)
    elif settings.detached and (named := os.environ.get(SIGNING_KEY_VARIABLE)):
        env[SIGNING_KEY_VARIABLE] = named
    if not settings.detached:  # its log is not followed while it runs
        env[processes.LOG_JOBS] = "0"
    return Child(
        "worker", _worker_command(settings), env, Path(settings.cwd), worker_log(directory)
    )


def flower_child(settings: Settings, directory: Path, url: str, port: int, password: str) -> Child:
    """Make Flower on loopback, behind the stack's password."""
    env = _environment(url, settings) | {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}"}
    env.setdefault("FLOWER_TASKS_COLUMNS", FLOWER_COLUMNS)
    command = [sys.executable, *CELERY, "-A", settings.app, "flower"]
    # Above a flowerconfig.py of the project's, which knows another broker and other files.
    command += [f"--address={HOST}", f"--port={port}", "--persistent=False", "--broker-api="]
    return Child("flower", command, env, Path(settings.cwd), directory / "flower.log")


def _environment(url: str, settings: Settings) -> dict[str, str]:
    given = {URL_VARIABLE: url, processes.PATH: json.dumps(settings.path)}
    return _without_key() | environment(url, os.environ) | given


def _without_key() -> dict[str, str]:
    """Return this process's environment without the key by which its user may sign work orders."""
    return {name: one for name, one in os.environ.items() if name != SIGNING_KEY_VARIABLE}


def _worker_command(settings: Settings) -> list[str]:
    return [
        sys.executable,
        *CELERY,
        # The banner is not JSON.
        *(["--quiet"] if settings.log_format == "json" else []),
        "-A",
        settings.app,
        "worker",
        f"--concurrency={settings.workers}",
        "--pool=prefork",
        "--prefetch-multiplier=1",
        "--without-gossip",
        "--without-mingle",
        # Flower lives on events, and by their heartbeats it knows which workers are alive.
        "--task-events" if settings.flower else "--without-heartbeat",
        "-n",
        f"{WORKER}@%h",
        f"--loglevel={CELERY_LEVELS.get(settings.log_level, settings.log_level)}",
        "-I",
        "pytest_manifest.worker",
    ]
