"""Run a private stack that lives as long as this process at most."""

from __future__ import annotations

from pathlib import Path

from pytest_manifest.stack.client import SupervisorClient, WorkerExit
from pytest_manifest.stack.settings import INCLUDE, Settings

__all__ = ["EmbeddedStack", "WorkerExit"]


class EmbeddedStack(SupervisorClient):
    """A broker and a supervised worker of our own, run by a supervisor process.

    ``workers``: how many processes the worker's pool has; those that die Celery replaces. They
    import modules from where this process does when it starts them.

    ``start`` returns at once; the ``wait_*`` methods say when what is ready. Everything ends with
    ``stop``, and also when this process ends in any other way.

    ``data``: a folder (made with mode 0700) in which the broker's data and the worker's spool
    outlive a crash. ``stop`` removes it; when this process or the supervisor is killed it stays,
    and a new stack on it continues with all queues, unacknowledged messages, results and streams.
    A folder that a live stack uses is refused: ``wait_broker`` raises the StackError. Without
    ``data`` all is in a temporary directory and goes with the stack. ``signing_key``: the private
    key, as PEM, that its worker signs its reports with.
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
        super().__init__(
            Settings(
                app=app,
                workers=workers,
                cwd=str(cwd.resolve()),
                log_format=log_format,
                log_level=log_level,
                include=include,
                data=str(data.absolute()) if data is not None else "",
                signing_key=signing_key,
            )
        )
