"""Start a supervisor, handle its events, and order its end: the other end of its pipe."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from loguru import logger

from pytest_manifest.compat.older import way_to_redis
from pytest_manifest.errors import StackError
from pytest_manifest.files import remove
from pytest_manifest.processes import kill_group
from pytest_manifest.redaction.texts import hide, redact, redact_url
from pytest_manifest.stack import settings as stack_settings
from pytest_manifest.stack.services import tail as tail_of
from pytest_manifest.stack.settings import WorkerExit
from pytest_manifest.stack.valkey import FLUSH_SECONDS, is_listening, server_binary
from pytest_manifest.urls import StackAddress

STOP_SECONDS: Final = 15.0
LAST_SECONDS: Final = 1.0
NOISE_LINES: Final = 20
POLL_SECONDS: Final = 0.005


class EmbeddedStack:
    """A broker and a supervised worker of our own, run by a supervisor process.

    ``settings``: which app, by how many processes (those that die Celery replaces), and so on; all
    of it imports modules from where this process does when it starts it. ``start`` returns at once;
    the ``wait_*`` methods say when what is ready. Everything ends with ``stop``, and also when this
    process ends in any other way. It is safe to use from several threads.

    ``settings.data`` is a folder (made with mode 0700) in which the broker's data and the worker's
    spool outlive a crash. ``stop`` removes it; when this process or the supervisor is killed it
    stays, and a new stack on it continues with all queues, unacknowledged messages, results and
    streams. A folder that a live stack uses is refused: ``wait_broker`` raises the StackError.

    ``exits``: each death of the worker so far, after which it was restarted; ``worker_pid``: its
    present pid, None between its death and its restart. ``address``: where jobs are sent, once the
    broker has answered; ``directory`` has the logs from then on, until ``stop``. ``failure``: why
    the stack has ended without being stopped.
    """

    def __init__(self, settings: stack_settings.Settings) -> None:
        self.settings = settings
        self.address: StackAddress | None = None
        self.directory: Path | None = None
        self.flower_url = ""
        self.worker_pid: int | None = None
        self.exits: list[WorkerExit] = []
        self.failure: str | None = None
        self._stop_requested = False
        self._first_word = threading.Lock()
        self._silent = threading.Event()
        self._groups: dict[str, int] = {}
        """The groups of the processes that the supervisor has started, by what they are."""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Spawn the supervisor. StackError where Valkey is not installed."""
        if self._process is not None:
            raise StackError("this stack was started already: make a new one")
        self.settings = self.settings._replace(
            server=str(server_binary()), path=stack_settings.import_path()
        )
        self._process = spawn_supervisor(self.settings)
        threading.Thread(target=self._listen, name="manifest-stack", daemon=True).start()

    @property
    def supervisor_pid(self) -> int | None:
        """Give the supervisor's pid; None before it is started."""
        return None if self._process is None else self._process.pid

    def wait_broker(self, timeout: float) -> StackAddress:
        """Wait until Valkey answers; StackError when it does not within ``timeout`` seconds."""
        late = (
            f"the private Valkey server does not answer within {timeout:g} s: is this machine "
            "overloaded?"
        )
        self._wait(lambda: self.address is not None, timeout, lambda: late)
        assert self.address is not None
        return self.address

    def wait_workers(self, timeout: float) -> None:
        """Wait until the worker takes jobs; StackError when it cannot start."""
        deadline = time.monotonic() + timeout
        self.wait_broker(timeout)
        import kombu.transport.redis  # noqa: F401 - as long as a worker boots, and needed next

        left = deadline - time.monotonic()
        self._wait(self._is_ready, left, lambda: self._late(timeout))
        self._say(stack_settings.READY_LINE)
        logger.debug("the worker is ready, with {} processes", self.settings.workers)

    def wait_flower(self, timeout: float) -> None:
        """Wait until Flower accepts connections; StackError when it does not."""
        late = f"Flower does not answer within {timeout:g} s: see {self.directory}/flower.log"

        def answers() -> bool:
            return bool(self.flower_url) and is_listening(urlsplit(self.flower_url).port or 0)

        self._wait(answers, timeout, lambda: late)

    def begin_stop(self, *, keep_data: bool = False) -> None:
        """Tell the supervisor to end everything, and do not wait for it; the first word counts."""
        with self._first_word:
            if self._stop_requested or self._process is None:
                return
            self._stop_requested = True
        self._say(stack_settings.STOP_AND_KEEP_LINE if keep_data else stack_settings.STOP_LINE)

    def stop(self, *, keep_data: bool = False) -> None:
        """End everything, and wait until it is done; more than once does no harm."""
        self.begin_stop(keep_data=keep_data)
        if self._process is None:
            return
        # Its output ends when it does; wait() would look only every 50 ms.
        self._silent.wait(STOP_SECONDS)
        try:
            self._process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._end_groups()
        self.detach()

    def detach(self) -> None:
        """Hang up: a detached supervisor goes on alone."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            # a supervisor that is gone, or was hung up on, is not known any more.
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()

    def _listen(self) -> None:
        """Take the supervisor's events, in a thread of its own, until its output ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        noise = ""
        with self._process.stdout as lines:
            for line in lines:
                if (news := parse_state(line)) is not None:
                    self._take(news)
                elif line.strip():
                    noise = line.strip()
        if not self._stop_requested and self.failure is None:
            said = f": {redact(noise)}" if noise else ""
            self.failure = f"the stack's supervisor (pid {self._process.pid}) has ended{said}"
        if self._process.wait() < 0:
            self._end_groups()
        self._silent.set()

    def _end_groups(self) -> None:
        """End what a supervisor that was killed has left, and remove its directory.

        A broker whose data are kept may write first; one that is paused is ended all the same.
        """
        broker = self._groups.pop("broker", 0) if self.settings.data else 0
        for group in self._groups.values():
            kill_group(group)
        deadline = time.monotonic() + FLUSH_SECONDS
        while broker and kill_group(broker, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if broker:
            kill_group(broker)
        if self.directory is not None:
            remove(self.directory)

    def _take(self, news: stack_settings.State) -> None:
        pids = {"broker": news.get("broker"), "worker": news.get("worker")}
        pids["flower"] = news.get("flower")
        self._groups |= {what: pid for what, pid in pids.items() if pid}
        if (pid := pids["worker"]) is not None:
            self.worker_pid = pid or None
        if directory := news.get("directory"):
            self.directory = Path(directory)
        if url := news.get("broker_url"):
            hide(url.partition("://:")[2].partition("@")[0])
            app, owned = self.settings.app, not self.settings.detached
            self.address = StackAddress(url, url, app=app, is_private=owned, is_managed=True)
            logger.debug("broker {} answers", redact_url(url))
        self.flower_url = news.get("flower_url", self.flower_url)
        if died := news.get("died"):
            name, pid, code, tail = died
            logger.warning("{} (pid {}) ended with code {}", name, pid, code)
            if name == "worker":
                shown = tuple(map(redact, tail))
                self.exits.append(WorkerExit(stack_settings.WORKER, pid, code, shown))
        if failed := news.get("failed"):
            self.failure = failure_message(failed)

    def _wait(self, check: Callable[[], bool], timeout: float, late: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout
        while True:
            is_done = check()
            if self._process is None:
                raise StackError("the stack was not started")
            if self.failure is not None:
                raise StackError(self.failure)
            if self._stop_requested:
                raise StackError("the stack was stopped")
            if is_done:
                return
            if time.monotonic() > deadline:
                raise StackError(late())
            time.sleep(POLL_SECONDS)

    def _is_ready(self) -> bool:
        """Tell whether the present worker takes jobs; one that was started anew says it again."""
        assert self.directory is not None
        try:
            said = stack_settings.ready_file(self.directory).read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        return said == str(self.worker_pid)

    def _late(self, timeout: float) -> str:
        """Word a time-out with the log's last lines, as the folder goes with the stack."""
        assert self.directory is not None
        message = (
            f"worker {stack_settings.WORKER} did not take jobs within {timeout:g} s; is this "
            "machine overloaded, or does the app take that long to import?"
        )
        lines = tail_of(stack_settings.worker_log(self.directory), NOISE_LINES)
        return failure_message(stack_settings.Failure(message=message, tail=lines))


TAIL_LINES = 10
SUPERVISOR = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from pytest_manifest.stack.supervisor import main; main()"
)
"""Runs without the working folder on the path, as Python's -P does from 3.11 on: a module of the
project must not shadow one of the standard library."""


def spawn_supervisor(settings: stack_settings.Settings) -> subprocess.Popen[str]:
    """Start a supervisor in a session of its own, so that a Ctrl-C in the terminal is not for it.

    Its output is a pipe: events, and whatever Python says should the supervisor not even start.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env=os.environ | own_pythonpath(),
    )
    assert process.stdin is not None
    process.stdin.write(settings.dump() + "\n")
    process.stdin.flush()
    return process


def own_pythonpath() -> dict[str, str]:
    """Give the ``PYTHONPATH`` by which new processes find this package if not installed."""
    root = str(Path(__file__).parents[2])
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    present = os.environ.get("PYTHONPATH")
    if present and root in present.split(os.pathsep):
        return {}
    return {"PYTHONPATH": f"{present}{os.pathsep}{root}" if present else root}


def parse_state(line: str) -> stack_settings.State | None:
    """Parse a line of the supervisor's output; None for one that is not of its own."""
    try:
        news = json.loads(line)
    except ValueError:
        return None
    # The supervisor is the same version of this package.
    known = stack_settings.State.__annotations__.keys()
    is_known = isinstance(news, dict) and news and news.keys() <= known
    return cast("stack_settings.State", news) if is_known else None


def failure_message(failed: stack_settings.Failure) -> str:
    """Word a failure, with the last log lines below it, if there are any that say something."""
    tail = [redact(line) for line in failed["tail"]]
    reason = tail[-1].strip() if tail else ""
    message = failed["message"]
    if not reason:
        return message
    shown = "".join(f"\n    {line}" for line in tail[-TAIL_LINES:])
    way = way_to_redis(reason)
    said = f"{reason} ({way})" if way else reason
    return f"{message}{'' if message.endswith('?') else ':'} {said}{shown}"
