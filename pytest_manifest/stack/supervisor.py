"""Start the whole stack from one process, watch it, and end it.

``python -m pytest_manifest.stack.supervisor`` is the program, fed by a pipe; ``settings.py`` has
the protocol. Only the standard library is imported, so that it is up in some 30 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from pytest_manifest.errors import StackError
from pytest_manifest.files import remove
from pytest_manifest.processes import take_lock
from pytest_manifest.stack import services, valkey
from pytest_manifest.stack.settings import (
    READY_LINE,
    STOP_AND_KEEP_LINE,
    STOP_LINE,
    WORKER,
    Failure,
    Settings,
    State,
    WorkerExit,
)
from pytest_manifest.stack.state import StateWriter, failure_message, lock_file, refuse
from pytest_manifest.stack.valkey import DataFolder

BROKER_SECONDS = 10.0
PORT_ATTEMPTS = 10
GRACE_SECONDS = 5.0  # in which an app's own handlers of the end have run
END_CHECK_SECONDS = 0.02
CHECK_SECONDS = 0.05
# A worker that dies this often before it was ever ready will never be.
BOOT_DEATHS = 3
# Valkey that dies this often, each time before PROVEN_SECONDS, is not helped by another start.
BROKER_DEATHS = 8
# celery's command line ends with 2 when it cannot find or import the app: no use to try again.
USAGE_ERROR = 2
# A worker that was up this long has been ready, whether or not anybody asked it.
PROVEN_SECONDS = 10.0
# By the number of deaths within the last 10 s: a job that kills each worker must not melt the CPU.
RECENT_SECONDS = 10.0
RESTART_DELAYS = (0.0, 0.0, 0.2, 0.5, 1.0, 2.0)


class Supervisor:
    """Run the processes of one stack, and own its directory.

    Where it is killed, its client, the kernel and the next ``manifest stack`` end what is left.
    """

    def __init__(self, settings: Settings, directory: Path, data: DataFolder | None) -> None:
        self.settings = settings
        self.directory = directory
        self.data = data
        self.keeps_data = data is not None
        self.report = StateWriter(settings, directory)
        self.parent = os.getppid()
        self.password = os.urandom(18).hex()
        self.port = 0
        self.children: dict[str, services.Child] = {}
        self.ready = False
        self.stopping = False
        self._input = b""
        self._has_input = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop_requested)

    def run(self) -> None:
        """Start everything, keep it up until told otherwise, then end it."""
        try:
            self._start_broker()
            if not self.stopping:
                self._start_rest()
            while not self.stopping:
                self._wait(CHECK_SECONDS)
                self._check_children()
        except Exception as error:
            self._fail(failure_message(error, self.directory), [])
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            self._end()

    # Starting

    def _start_broker(self) -> None:
        if self.data is not None:
            self.data.begin(self.directory)
        for _ in range(PORT_ATTEMPTS):
            self.port = valkey.free_port()
            broker = services.broker_child(
                self.settings, self.directory, self.port, self.password, self.data
            )
            self._start(broker)
            if self._broker_answers(broker) or self.stopping:
                break
            # Mostly another process was quicker to take the port.
        else:
            message = f"the private Valkey server does not start in {self.directory}"
            if self.data is not None:
                message += (
                    f", with the data in {self.data.path} (move that folder away to start without "
                    "them)"
                )
            self._fail(message, services.tail(broker.log))
            return
        if self.data is not None and not self.stopping:
            valkey.forget_nodes(self.port, self.password)
        url = services.broker_url(self.port, self.password)
        self.report.say({"broker_url": url})

    def _broker_answers(self, broker: services.Child) -> bool:
        deadline = time.monotonic() + BROKER_SECONDS
        while time.monotonic() < deadline and not self.stopping:
            if broker.process is None or broker.process.poll() is not None:
                break
            said = valkey.ping(self.port, self.password)
            if said == "ready":
                return True
            if said == "loading":
                # Much data take long; how long to wait for them the client knows.
                deadline = time.monotonic() + BROKER_SECONDS
            self._wait(0.002)
        broker.signal_group()
        return False

    def _start_rest(self) -> None:
        url = services.broker_url(self.port, self.password)
        self._start(services.worker_child(self.settings, self.directory, url, self.data))
        if self.settings.flower:
            port, password = self.settings.flower_port or valkey.free_port(), os.urandom(18).hex()
            self._start(services.flower_child(self.settings, self.directory, url, port, password))
            url = f"http://{valkey.HOST}:{port}"
            self.report.say({"flower_url": url, "flower_password": password})

    def _start(self, child: services.Child) -> None:
        self.children[child.name] = child
        self.report.say(cast("State", {child.name: child.start()}))

    # Watching

    def _stop_requested(self, *_: object) -> None:
        self.stopping = True

    def _wait(self, seconds: float) -> None:
        if select.select([0] if self._has_input else [], [], [], seconds)[0]:
            self._read_input()
        # The pipe stays open where the client had forked before it was killed; this does not.
        if not self.settings.detached and os.getppid() != self.parent:
            self.stopping = True

    def _read_input(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self._has_input = False
            # A detached stack stays, once its client has seen it ready.
            if not (self.settings.detached and self.ready):
                self.stopping = True
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            if line in (STOP_LINE.encode(), STOP_AND_KEEP_LINE.encode()):
                self.stopping = True
                self.keeps_data = self.keeps_data and line != STOP_LINE.encode()
            elif line == READY_LINE.encode():
                self.ready = True

    def _check_children(self) -> None:
        for child in [*self.children.values()]:
            pid = child.pid or 0
            code = child.reap()
            if code is not None:
                self._on_exit(child, pid, code)
            if self.stopping:
                return
            if child.restart_at is not None and child.restart_at <= time.monotonic():
                self._start(child)

    def _on_exit(self, child: services.Child, pid: int, code: int) -> None:
        """Tell of a death, and plan the restart, or give up on a worker that cannot start."""
        tail = services.tail(child.log)
        self.report.say(cast("State", {child.name: 0}))
        self.report.mention({"died": WorkerExit(child.name, pid, code, tail)})
        now = time.monotonic()
        if now - child.started_at > PROVEN_SECONDS:
            child.deaths = []
        booting = not self.ready and child.name == "worker"
        if booting and (code == USAGE_ERROR or len(child.deaths) >= BOOT_DEATHS):
            self._fail(f"worker {WORKER} cannot start (it ended with code {code})", tail)
            return
        if child.name == "broker" and len(child.deaths) >= BROKER_DEATHS:
            self._fail(f"the private Valkey server ends again and again (with code {code})", tail)
            return
        recent = sum(1 for death in child.deaths if now - death <= RECENT_SECONDS)
        child.restart_at = now + RESTART_DELAYS[min(recent, len(RESTART_DELAYS) - 1)]

    # Ending

    def _fail(self, message: str, tail: list[str]) -> None:
        self.report.mention({"failed": Failure(message=message, tail=tail)})
        self.stopping = True

    def _end(self) -> None:
        self.stopping = True
        broker = self.children.pop("broker", None)
        clients = [*self.children.values()]
        gently = self.settings.detached or self.keeps_data
        for child in clients:
            if gently:
                # What runs may end, and its receipt is kept.
                child.send(signal.SIGTERM)
            else:
                # The pool's children, too: a private stack ends with its broker, so what is still
                # running can answer nobody.
                child.signal_group(signal.SIGTERM)
        release = partial(valkey.unblock_clients, self.port, self.password)
        # Not while jobs may go on: one of them may be waiting for something in the broker.
        self._wait_ended(clients, GRACE_SECONDS, meanwhile=None if gently else release)
        if broker is not None:
            self._end_broker(broker)
        self.report.close()
        if self.data is not None and not self.keeps_data:
            self.data.remove()
        remove(self.directory)

    def _end_broker(self, broker: services.Child) -> None:
        if self.keeps_data:
            broker.send(signal.SIGTERM)
            self._wait_ended([broker], valkey.FLUSH_SECONDS)
            if self.data is not None and broker.returncode == 0:
                self.data.end()
        broker.signal_group()
        self._wait_ended([broker], GRACE_SECONDS)

    def _wait_ended(
        self,
        children: list[services.Child],
        seconds: float,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        deadline = time.monotonic() + seconds
        left = children
        while left and time.monotonic() < deadline:
            left = [child for child in left if child.process is not None and child.reap() is None]
            if left:
                if meanwhile is not None:
                    meanwhile()
                self._wait(END_CHECK_SECONDS)
        for child in left:
            child.signal_group()
            if child.process is not None:
                child.process.wait()


# Others look for a moment whether the lock is held.
LOCK_SECONDS = 1.0


def _read_settings() -> Settings:
    """Read the first line of standard input byte by byte: the rest is for the selector."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("the supervisor got no settings")
        line += byte
    return Settings.load(line.decode())


def _claim(settings: Settings) -> DataFolder | None:
    """Lock state and data for as long as this process lives."""
    directory = Path(settings.detached)
    if settings.detached and take_lock(lock_file(directory), LOCK_SECONDS) is None:
        refuse("another stack is up already: see manifest stack status")
    try:
        return DataFolder.claim(Path(settings.data)) if settings.data else None
    except StackError as error:
        refuse(str(error))


def _make_directory() -> Path:
    """Make the stack's private directory; from here on complaints go into a file in it."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="manifest-stack-"))
        log = os.open(directory / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        refuse(
            f"no temporary directory for the private stack can be made ({error.strerror}): free "
            "some space, or set TMPDIR to a folder that has some and that you can write to"
        )
    os.dup2(log, 2)
    os.close(log)
    return directory


def main() -> None:
    """Run one stack until it is told to end."""
    settings = _read_settings()
    data = _claim(settings)
    directory = _make_directory()
    Supervisor(settings, directory, data).run()


if __name__ == "__main__":
    main()
