"""Write the supervisor's events for its client, and a detached stack's state file."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from pytest_manifest.processes import pid_scope
from pytest_manifest.stack.child import Child
from pytest_manifest.stack.settings import Event, Settings, State, WorkerState
from pytest_manifest.stack.valkey import HOST
from pytest_manifest.stack.watchdog import remove_path

STDOUT = 1
# A file cannot grow: no room on the disk or in the quota, a medium or a limit that forbids it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def refuse(message: str) -> NoReturn:
    """Tell the client in a sentence why there is no stack at all, and end."""
    os.write(STDOUT, json.dumps(Event(event="failed", message=message, tail=[])).encode() + b"\n")
    sys.exit(1)


def failure_message(error: Exception, directory: Path) -> str:
    """Word an unforeseen error of the supervisor for users; ``directory`` is the stack's."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return (
            f"the embedded stack cannot write to {error.filename or directory} ({error.strerror}): "
            "free some space there, or set TMPDIR to a folder that has some"
        )
    return f"the stack's supervisor failed: {type(error).__name__}: {error}"


class EventWriter:
    """Writes events to standard output and, for a detached stack, keeps its state file current."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._path = Path(settings.state_file) if settings.state_file else None
        self._broken = False
        # A client that stopped reading must not stop the supervisor: lose events, not workers.
        os.set_blocking(STDOUT, False)
        self._state: State = {
            "keeper": os.getpid(),
            "pids": pid_scope(),
            "app": settings.app,
            "cwd": settings.cwd,
            "directory": str(directory),
            "broker": 0,
            "broker_url": "",
            "backend_url": "",
            "workers": [],
            "flower_url": "",
            "flower_password": "",
        }

    def broker_started(self, pid: int) -> None:
        self._state["broker"] = pid
        self._save()

    def broker_answers(self, url: str) -> None:
        self._state.update({"broker_url": url, "backend_url": url})
        pid = self._state["broker"]
        self._say({"event": "broker", "url": url, "pid": pid, "directory": self._directory})

    def flower(self, port: int, password: str, pid: int) -> None:
        url = f"http://{HOST}:{port}"
        self._state.update({"flower_url": url, "flower_password": password})
        self._say({"event": "flower", "url": url, "pid": pid})

    def worker_started(self, worker: Child, workers: list[Child]) -> None:
        self._update_workers(workers)
        pid = worker.pid or 0
        self._say(
            {"event": "worker_started", "name": worker.name, "pid": pid, "log": str(worker.log)}
        )

    def exited(
        self, child: Child, pid: int, code: int, tail: list[str], workers: list[Child]
    ) -> None:
        self._update_workers(workers)
        self._say(
            {
                "event": "worker_exited" if child in workers else "service_exited",
                "name": child.name,
                "pid": pid,
                "returncode": code,
                "tail": tail,
            }
        )

    def failed(self, message: str, tail: list[str]) -> None:
        self._tell({"event": "failed", "message": message, "tail": tail})

    def stopped(self) -> None:
        self._tell({"event": "stopped"})

    def close(self) -> None:
        """Remove the state file: the stack is over."""
        if self._path is not None:
            remove_path(self._path)
            self._path = None

    @property
    def _directory(self) -> str:
        return self._state["directory"]

    def _update_workers(self, workers: list[Child]) -> None:
        self._state["workers"] = [
            WorkerState(name=worker.name, pid=worker.pid, log=str(worker.log)) for worker in workers
        ]

    def _say(self, event: Event) -> None:
        self._save()
        self._tell(event)

    def _tell(self, event: Event) -> None:
        if self._broken:
            return
        try:
            os.write(STDOUT, json.dumps(event).encode() + b"\n")
        except BlockingIOError:
            pass
        except OSError:
            self._broken = True

    def _save(self) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._state, file, indent=1)
        temporary.replace(self._path)
