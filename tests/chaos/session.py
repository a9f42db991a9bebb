"""The command under test: pytest in a process group of its own, and everything it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support import eventually

MARK = "MANIFEST_CHAOS_FAMILY"
GONE_SECONDS = 20.0


class Family:
    """Processes that share a mark in their environment, whoever their parents are by now."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex

    def environment(self) -> dict[str, str]:
        """The environment for a member: nothing of the surrounding session reaches into it."""
        foreign = ("CELERY_", "MANIFEST_", "PYTEST_", "COV_")
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(foreign) and n != "CI"}
        return inherited | {MARK: self.mark, "PYTHONDONTWRITEBYTECODE": "1"}

    def members(self) -> list[psutil.Process]:
        """Those that are alive now, without this process."""
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def end(self, within: float = GONE_SECONDS) -> list[str]:
        """Wait until all have ended; kill the rest by pid, and name it."""
        with suppress(AssertionError):
            eventually(lambda: not self.members(), within=within)
        left = self.members()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        return [f"{process.pid} {' '.join(_command(process))[:80]}" for process in left]

    def _is_member(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == self.mark
        return False


class Session:
    """One run of pytest; its output goes into a file, so that a paused one blocks nobody."""

    def __init__(self, folder: Path, family: Family, number: int, options: Sequence[str]) -> None:
        self.folder = folder
        self.junit = folder / f"junit-{number}.xml"
        self.log = folder / f"pytest-{number}.txt"
        command = [sys.executable, "-m", "pytest", "-q", "-rA"]
        command += [f"--manifest={path.name}" for path in sorted(folder.glob("m*.jsonl"))]
        command += [f"--junitxml={self.junit}", "-p", "no:cacheprovider", *options]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=family.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait(self, bound: float) -> bool:
        """Whether it ended by itself within so many seconds."""
        try:
            self.process.wait(bound)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """kill -9 of pytest alone: what it started must notice by itself."""
        self.process.kill()
        self.process.wait(GONE_SECONDS)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped for the length of the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def children(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def end(self) -> None:
        """Let nothing of it run on."""
        if not self.has_ended:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


@contextmanager
def suspended(processes: Sequence[psutil.Process], seconds: float) -> Iterator[None]:
    """SIGSTOP for that long, then SIGCONT, also where the block fails."""
    for process in processes:
        process.suspend()
    try:
        yield
        time.sleep(seconds)
    finally:
        for process in processes:
            with suppress(psutil.Error):
                process.resume()


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []
