"""Run a private stack that lives as long as this process at most."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import SupervisorClient, WorkerExit
from pytest_manifest.stack.settings import INCLUDE, Settings, import_path
from pytest_manifest.stack.valkey import server_binary
from pytest_manifest.urls import StackAddress

__all__ = ["EmbeddedStack", "WorkerExit"]


class EmbeddedStack:
    """A broker and a supervised worker of our own, run by a supervisor process.

    ``workers``: how many processes the worker's pool has; those that die Celery replaces. They
    import modules from where this process does when it starts them.

    ``start`` returns at once; the ``wait_*`` methods say when what is ready. Everything ends with
    ``stop``, and also when this process ends in any other way.

    ``data``: a folder (made with mode 0700) in which the broker's data and the workers' spool
    outlive a crash. ``stop`` removes it; when this process or the supervisor is killed it stays,
    and a new stack on it continues with all queues, unacknowledged messages, results and streams.
    A folder that a live stack uses is refused: ``wait_broker`` raises the StackError. Without
    ``data`` all is in a temporary directory and goes with the stack. ``signing_key``: the private
    key, as PEM, that its workers sign their reports with.
    """

    def __init__(
        self,
        *,
        app: str,
        workers: int,
        cwd: Path,
        log_format: str = "text",
        log_level: str = "INFO",
        include: str = INCLUDE,
        data: Path | None = None,
        signing_key: str = "",
    ) -> None:
        self._app = app
        self._workers = workers
        self._cwd = cwd
        self._log_format = log_format
        self._log_level = log_level
        self._include = include
        self._data = data
        self._signing_key = signing_key
        self._client: SupervisorClient | None = None

    def start(self) -> None:
        """Spawn the supervisor. StackError where Valkey is not installed."""
        if self._client is not None:
            raise StackError("this embedded stack was started already: make a new one")
        self._client = SupervisorClient(
            Settings(
                app=self._app,
                workers=self._workers,
                cwd=str(self._cwd.resolve()),
                python=sys.executable,
                server=str(server_binary()),
                log_format=self._log_format,
                log_level=self._log_level,
                include=self._include,
                path=import_path(),
                data=str(self._data.absolute()) if self._data is not None else "",
                signing_key=self._signing_key,
            )
        )

    def wait_broker(self, timeout: float) -> StackAddress:
        """Wait until Valkey answers; StackError when it does not within ``timeout`` seconds."""
        return self._started().wait_broker(timeout)

    def wait_workers(self, timeout: float) -> None:
        """Wait until the worker takes jobs.

        StackError with its last log lines when it cannot start.
        """
        self._started().wait_workers(timeout)

    def begin_stop(self, *, keep_data: bool = False) -> None:
        """Tell everything to end, and return at once; ``stop`` then waits for the rest."""
        if self._client is not None:
            self._client.begin_stop(keep_data=keep_data)

    def stop(self, *, keep_data: bool = False) -> None:
        """End everything and remove the directory; returns when it is done. Idempotent.

        The data folder is removed, too, unless ``keep_data``, or the stack had failed before.
        """
        if self._client is not None:
            self._client.stop(keep_data=keep_data)

    @property
    def exits(self) -> list[WorkerExit]:
        """List each death of the worker so far, after which it was restarted."""
        return list(self._client.exits) if self._client is not None else []

    @property
    def worker_pid(self) -> int | None:
        """Give the worker's present pid; None between its death and its restart."""
        return self._client.worker_pid if self._client is not None else None

    @property
    def failure(self) -> str | None:
        """Say why the stack has ended without being stopped; else None."""
        return self._client.failure if self._client is not None else None

    @property
    def address(self) -> StackAddress | None:
        """Give its address, once the broker has answered."""
        return self._client.address if self._client is not None else None

    @property
    def directory(self) -> Path | None:
        """Give the directory with the logs, from the broker's first answer until ``stop``."""
        return self._client.directory if self._client is not None else None

    @property
    def supervisor_pid(self) -> int | None:
        return self._client.pid if self._client is not None else None

    def _started(self) -> SupervisorClient:
        if self._client is None:
            raise StackError("the embedded stack was not started")
        return self._client
