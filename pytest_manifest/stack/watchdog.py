"""End the stack when the supervisor is killed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from pytest_manifest.processes import has_ended, kill_group

GONE_SECONDS = 5.0
# A broker that was told to end writes what it has not written yet.
FLUSH_SECONDS = 10.0


class Watchdog:
    """A forked process that holds a pipe to the supervisor and outlives it just long enough.

    It knows the process groups and paths of the stack. When the pipe closes it kills those groups
    and removes those paths; a group that is to end gently is told to first, after all others are
    gone. After an orderly stop there is nothing left for it to do. Being forked it shares the
    supervisor's locks: they are free when it is done, not before.
    """

    def __init__(self) -> None:
        self._groups: dict[int, bool] = {}
        self._paths: set[str] = set()
        self._pipe = -1
        self.pid = 0
        self.start()

    def start(self) -> None:
        """Fork the watchdog; again when it was killed."""
        if self._pipe >= 0:
            os.close(self._pipe)
        reader, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._pipe)
                _watch(reader)
            finally:
                os._exit(0)
        os.close(reader)
        for group, gently in self._groups.items():
            self._send_group(group, gently)
        for path in self._paths:
            self._tell(f"path {path}")

    def add_group(self, group: int, *, gently: bool = False) -> None:
        self._groups[group] = gently
        self._send_group(group, gently)

    def drop_group(self, group: int) -> None:
        self._groups.pop(group, None)
        self._tell(f"-{group}")

    def add_path(self, path: Path) -> None:
        self._paths.add(str(path))
        self._tell(f"path {path}")

    def close(self) -> None:
        """Let it go, and wait for it."""
        os.close(self._pipe)
        self._pipe = -1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _send_group(self, group: int, gently: bool) -> None:
        self._tell(f"{'~' if gently else '+'}{group}")

    def _tell(self, line: str) -> None:
        # A dead twin is noticed by SIGCHLD and replaced, and the new one is told everything.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, f"{line}\n".encode())


def remove_path(path: Path) -> None:
    """Remove a directory or a file, whatever is left of it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _watch(reader: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        # The client waits for the end of the supervisor's output, so only it may hold that open.
        os.dup2(null, descriptor)
    groups, gentle, paths = _read(reader)
    _kill(groups)
    for group in gentle:
        kill_group(group, signal.SIGTERM)
    deadline = time.monotonic() + FLUSH_SECONDS
    while time.monotonic() < deadline and not all(map(has_ended, gentle)):
        time.sleep(0.01)
    _kill(gentle)
    for path in paths:
        remove_path(Path(path))


def _kill(groups: set[int]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while groups and time.monotonic() < deadline:
        groups = {group for group in groups if kill_group(group)}
        time.sleep(0.01)


def _read(reader: int) -> tuple[set[int], set[int], list[str]]:
    """Read groups to kill, groups to terminate gently, and paths to remove."""
    groups: set[int] = set()
    gentle: set[int] = set()
    paths: list[str] = []
    with os.fdopen(reader, encoding="utf-8", errors="surrogateescape") as lines:
        for raw in lines:
            line = raw.rstrip("\n")
            if line.startswith("+"):
                groups.add(int(line[1:]))
            elif line.startswith("~"):
                gentle.add(int(line[1:]))
            elif line.startswith("-"):
                groups.discard(int(line[1:]))
                gentle.discard(int(line[1:]))
            elif line.startswith("path "):
                paths.append(line[5:])
    return groups, gentle, paths
