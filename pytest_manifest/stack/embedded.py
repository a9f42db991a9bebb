"""The client of a keeper: a private stack that lives as long as this process at most."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loguru import logger

from pytest_manifest.errors import StackError
from pytest_manifest.log import hide, redact, redact_url
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.stack.launch import failure_sentence, parse_event, spawn_keeper
from pytest_manifest.stack.ready import WorkerProbe
from pytest_manifest.stack.settings import INCLUDE, READY_LINE, STOP_LINE, Event, Settings
from pytest_manifest.stack.valkey import server_binary

STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that died and was restarted; ``returncode`` is negative for a signal."""

    name: str
    pid: int
    returncode: int


class EmbeddedStack:
    """A broker and supervised workers of our own, run by a keeper process.

    ``start`` returns at once; the ``wait_*`` methods say when what is ready. Everything ends with
    ``stop``, and also when this process ends in any other way.
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
    ) -> None:
        self._app = app
        self._workers = workers
        self._cwd = cwd
        self._log_format = log_format
        self._log_level = log_level
        self._include = include
        self._process: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._broker_url = ""
        self._directory: Path | None = None
        self._exits: list[WorkerExit] = []
        self._pids: dict[str, int] = {}
        self._failure: str | None = None
        self._noise: list[str] = []
        self._ended = False

    @property
    def exits(self) -> list[WorkerExit]:
        """The workers that died so far, and were restarted."""
        with self._changed:
            return list(self._exits)

    @property
    def worker_pids(self) -> dict[str, int]:
        """The present pid of each worker, by its name without the host (``manifest1``)."""
        with self._changed:
            return dict(self._pids)

    @property
    def directory(self) -> Path | None:
        """The private directory with the logs, once the broker answers; gone after ``stop``."""
        return self._directory

    @property
    def keeper_pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Spawn the keeper. StackError where Valkey is not installed."""
        if self._process is not None:
            raise StackError("this embedded stack was started already; make a new one")
        settings = Settings(
            app=self._app,
            workers=self._workers,
            cwd=str(self._cwd.resolve()),
            python=sys.executable,
            server=str(server_binary()),
            log_format=self._log_format,
            log_level=self._log_level,
            include=self._include,
        )
        self._process = spawn_keeper(settings)
        threading.Thread(target=self._listen, name="manifest-stack", daemon=True).start()

    def wait_broker(self, timeout: float) -> StackAddress:
        """Wait until Valkey answers; StackError when it does not within ``timeout`` seconds."""
        self._wait(lambda: bool(self._broker_url), timeout, "the private Valkey server")
        url = self._broker_url
        return StackAddress(broker_url=url, backend_url=url, app=self._app, owned=True)

    def wait_workers(self, timeout: float) -> None:
        """Wait until every worker has answered a ping; StackError when one cannot start."""
        deadline = time.monotonic() + timeout
        address = self.wait_broker(timeout)
        with WorkerProbe(address, self._workers) as probe:
            while not probe.complete:
                self._check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StackError(self._late(probe.answered, timeout))
                probe.ask(min(left, 0.5))
        self._say(READY_LINE)
        logger.debug("{} workers are ready", self._workers)

    def stop(self) -> None:
        """End everything and remove the directory; returns when it is done. Idempotent."""
        process = self._process
        if process is None or self._ended:
            return
        self._ended = True
        self._say(STOP_LINE)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # Its guard does the rest.
            process.kill()
            process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _say(self, line: str) -> None:
        stdin = self._process.stdin if self._process is not None else None
        if stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                stdin.write(f"{line}\n")
                stdin.flush()

    def _listen(self) -> None:
        """Take the keeper's events, in a thread of its own, until its output ends."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                event = parse_event(line)
                with self._changed:
                    if event is None:
                        self._noise = [*self._noise[-20:], line.rstrip()]
                    else:
                        self._take(event)
                    self._changed.notify_all()
        with self._changed:
            if not self._ended and self._failure is None:
                said = f": {redact(self._noise[-1])}" if self._noise else ""
                self._failure = f"the stack's keeper (pid {process.pid}) has ended{said}"
            self._changed.notify_all()

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "broker":
                hide(event["url"].partition("://:")[2].partition("@")[0])
                self._directory = Path(event["directory"])
                self._broker_url = event["url"]
                logger.debug("broker {} answers", redact_url(event["url"]))
            case "worker_started":
                self._pids[event["name"]] = event["pid"]
            case "worker_exited":
                name, pid, code = event["name"], event["pid"], event["returncode"]
                self._pids.pop(name, None)
                self._exits.append(WorkerExit(name, pid, code))
                logger.warning("worker {} (pid {}) ended with code {}", name, pid, code)
            case "service_exited":
                logger.warning("{} ended with code {}", event["name"], event["returncode"])
            case "failed":
                self._failure = failure_sentence(event)
            case _:
                pass

    def _check(self) -> None:
        with self._changed:
            if self._failure is not None:
                raise StackError(self._failure)
        if self._process is None:
            raise StackError("the embedded stack was not started")
        if self._ended:
            raise StackError("the embedded stack was stopped")

    def _wait(self, check: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._check()
            with self._changed:
                if check():
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StackError(f"{what} does not answer within {timeout:g} s")
                if self._failure is None:
                    self._changed.wait(min(left, 1.0))

    def _late(self, answered: set[str], timeout: float) -> str:
        missing = sorted(set(self.worker_pids) - {name.partition("@")[0] for name in answered})
        names = ", ".join(missing) or "all"
        return (
            f"no answer within {timeout:g} s from {self._workers - len(answered)} of "
            f"{self._workers} workers ({names}); their logs are in {self._directory}"
        )
