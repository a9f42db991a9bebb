"""Claim the folder in which a stack's data outlive a crash. Standard library only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pytest_manifest.errors import StackError
from pytest_manifest.processes import boot_id, has_ended, take_lock
from pytest_manifest.stack.watchdog import remove_path

# What a stack whose client was killed may take to end its workers and to flush its broker's data.
WIND_DOWN_SECONDS = 20.0
# The file is named before its holders are: a moment for that.
FIRST_TRY_SECONDS = 0.5
# Present while a broker works on the data, and names the start of the machine in which it does.
IN_USE_MARK = "boot"


class DataFolder:
    """Valkey's append-only files and the workers' spool, for one stack at a time.

    ``lock`` is a descriptor: whoever inherits it holds the folder, too.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def claim(cls, path: Path) -> DataFolder:
        """Make the folder (mode 0700), or take the one that a dead stack has left.

        A stack that is winding down is waited for. StackError: it cannot be made or written to,
        is not this user's, or a live stack uses it.
        """
        try:
            try:
                lock = _make_and_lock(path)
            except FileNotFoundError:
                # Its last holder has removed it in this moment.
                lock = _make_and_lock(path)
        except OSError as error:
            raise StackError(
                f"the folder for the broker's data, {path}, cannot be used ({error.strerror}): "
                "see that there is room on its disk, and that it is yours and can be written to"
            ) from error
        if lock is None:
            raise StackError(
                f"the broker's data in {path} are in use by another stack "
                f"({_holders_text(path / 'lock')}): end that one first"
            )
        return cls(path, lock)

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def is_old(self) -> bool:
        """Tell whether a broker has written here before."""
        return (self.path / "appendonlydir").exists()

    @property
    def may_be_truncated(self) -> bool:
        """Tell whether the machine went down while a broker was writing here.

        It leaves the disk to the kernel, so what it was told last may be gone: that a message was
        taken from its queue, and that its job was begun.
        """
        try:
            return (self.path / IN_USE_MARK).read_text() != (boot_id() or "")
        except FileNotFoundError:
            return False  # the last one came to an end in good order, or there was none

    def begin(self) -> None:
        """Mark the folder as in use by a broker, until :meth:`end`."""
        (self.path / IN_USE_MARK).write_text(boot_id() or "")

    def end(self) -> None:
        """Remove the mark: the broker has written everything."""
        (self.path / IN_USE_MARK).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it with all that is in it; the lock is held on."""
        remove_path(self.path)


def _make_and_lock(path: Path) -> int | None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(1, "it is not a directory of this user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)
    return _lock(path / "lock")


def _lock(path: Path) -> int | None:
    lock = take_lock(path, FIRST_TRY_SECONDS)
    if lock is None:
        lock = take_lock(path, WIND_DOWN_SECONDS, hopeless=lambda: _is_alive(path))
    if lock is not None:
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()} {os.getppid()}\n".encode())
    return lock


def _holders(path: Path) -> list[int]:
    """Read the pids of the supervisor that holds this lock, and of its client."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _is_alive(path: Path) -> bool:
    """Tell whether supervisor and client both live: one without the other is about to end."""
    holders = _holders(path)
    return len(holders) == 2 and not any(has_ended(pid) for pid in holders)


def _holders_text(path: Path) -> str:
    holders = _holders(path)
    if len(holders) != 2:
        return "still ending"
    return f"of process {holders[1]}, supervisor {holders[0]}"
