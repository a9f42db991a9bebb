"""The other end of a keeper's pipe: starts it, hears its events, tells it to end."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from loguru import logger

from pytest_manifest.errors import StackError
from pytest_manifest.log import hide, redact, redact_url
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.stack.child import tail
from pytest_manifest.stack.launch import failure_sentence, parse_event, spawn_keeper
from pytest_manifest.stack.ready import import_meanwhile, not_ready
from pytest_manifest.stack.settings import (
    READY_LINE,
    STOP_AND_KEEP_LINE,
    STOP_LINE,
    WORKER_PREFIX,
    Event,
    Settings,
)
from pytest_manifest.stack.valkey import listens

STOP_SECONDS: Final = 15.0
LAST_SECONDS: Final = 1.0
NOISE_LINES: Final = 20
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that died and was restarted.

    ``returncode`` is negative for a signal; ``tail`` holds its log's last lines, without passwords.
    """

    name: str
    pid: int
    returncode: int
    tail: tuple[str, ...] = ()


class KeeperClient:
    """Starts one keeper and follows it; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address: StackAddress | None = None
        self.directory: Path | None = None
        self.flower_url = ""
        self.pids: dict[str, int] = {}
        self.exits: list[WorkerExit] = []
        self.failure: str | None = None
        self._noise: list[str] = []
        self._told_to_stop = False
        self._changed = threading.Condition()
        self._silent = threading.Event()
        self._process = spawn_keeper(settings)
        threading.Thread(target=self._listen, name="manifest-stack", daemon=True).start()

    @property
    def pid(self) -> int:
        """The keeper's."""
        return self._process.pid

    def wait_broker(self, timeout: float) -> StackAddress:
        """Wait until Valkey answers; StackError when it does not within ``timeout`` seconds."""
        self._wait(lambda: self.address is not None, timeout)
        assert self.address is not None
        return self.address

    def wait_workers(self, timeout: float) -> None:
        """Wait until every worker takes jobs; StackError when one cannot start."""
        deadline = time.monotonic() + timeout
        self.wait_broker(timeout)
        import_meanwhile()
        while missing := self._not_ready():
            self._check()
            if time.monotonic() > deadline:
                raise StackError(self._late(missing, timeout))
            time.sleep(POLL_SECONDS)
        self._check()
        self._say(READY_LINE)
        logger.debug("{} workers are ready", self.settings.workers)

    def wait_flower(self, timeout: float) -> None:
        """Wait until Flower accepts connections; StackError when it does not."""
        deadline = time.monotonic() + timeout
        self._wait(lambda: bool(self.flower_url), timeout)
        port = urlsplit(self.flower_url).port or 0
        while not listens(port):
            self._check()
            if time.monotonic() > deadline:
                raise StackError(
                    f"Flower does not answer within {timeout:g} s: see {self.directory}/flower.log"
                )
            time.sleep(POLL_SECONDS)

    def begin_stop(self, *, keep_data: bool = False) -> None:
        """Tell the keeper to end everything, and do not wait for it; the first word counts."""
        with self._changed:
            if self._told_to_stop:
                return
            self._told_to_stop = True
        self._say(STOP_AND_KEEP_LINE if keep_data else STOP_LINE)

    def stop(self, *, keep_data: bool = False) -> None:
        """End everything, and wait until it is done; more than once does no harm."""
        self.begin_stop(keep_data=keep_data)
        # Its output ends when it does; wait() would look only every 50 ms.
        self._silent.wait(STOP_SECONDS)
        try:
            self._process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            # Its guard does the rest.
            self._process.kill()
            self._process.wait()
        self._hang_up()

    def detach(self) -> None:
        """Let a detached keeper go on alone."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            # A keeper that is gone, or was hung up on, cannot be told any more.
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()

    def _listen(self) -> None:
        """Take the keeper's events, in a thread of its own, until its output ends."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                event = parse_event(line)
                with self._changed:
                    if event is not None:
                        self._take(event)
                    elif line.strip():
                        self._noise = [*self._noise[1 - NOISE_LINES :], line.strip()]
                    self._changed.notify_all()
        with self._changed:
            if not self._told_to_stop and self.failure is None:
                said = f": {redact(self._noise[-1])}" if self._noise else ""
                self.failure = f"the stack's keeper (pid {self.pid}) has ended{said}"
            self._changed.notify_all()
        self._silent.set()

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "broker":
                self._take_broker(event["url"], Path(event["directory"]))
            case "worker_started":
                self.pids[event["name"]] = event["pid"]
            case "worker_exited":
                tail = tuple(redact(line) for line in event["tail"])
                died = WorkerExit(event["name"], event["pid"], event["returncode"], tail)
                self.pids.pop(died.name, None)
                self.exits.append(died)
                logger.warning(
                    "worker {} (pid {}) ended with code {}", died.name, died.pid, died.returncode
                )
            case "service_exited":
                logger.warning("{} ended with code {}", event["name"], event["returncode"])
            case "flower":
                self.flower_url = event["url"]
            case "failed":
                self.failure = failure_sentence(event)
            case "stopped":
                pass

    def _take_broker(self, url: str, directory: Path) -> None:
        hide(url.partition("://:")[2].partition("@")[0])
        self.directory = directory
        owned = not self.settings.detached
        self.address = StackAddress(
            url, url, app=self.settings.app, is_private=owned, is_managed=True
        )
        logger.debug("broker {} answers", redact_url(url))

    def _check(self) -> None:
        with self._changed:
            if self.failure is not None:
                raise StackError(self.failure)
            if self._told_to_stop:
                raise StackError("the stack was stopped")

    def _wait(self, check: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._check()
            with self._changed:
                if check():
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StackError(
                        f"the private Valkey server does not answer within {timeout:g} s: "
                        "is this machine overloaded?"
                    )
                if self.failure is None:
                    self._changed.wait(left)

    def _not_ready(self) -> list[str]:
        assert self.directory is not None
        names = [f"{WORKER_PREFIX}{number}" for number in range(1, self.settings.workers + 1)]
        with self._changed:
            return not_ready(self.directory, {name: self.pids.get(name) for name in names})

    def _late(self, missing: list[str], timeout: float) -> str:
        """The folder goes with the stack, so what the logs say last is told here."""
        assert self.directory is not None
        message = (
            f"{len(missing)} of {self.settings.workers} workers ({', '.join(missing)}) "
            f"did not take jobs within {timeout:g} s"
        )
        log = self.directory / f"worker-{missing[0].removeprefix(WORKER_PREFIX)}.log"
        return failure_sentence(Event(event="failed", message=message, tail=tail(log, NOISE_LINES)))
