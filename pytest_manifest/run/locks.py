"""Lock a run's ledger, and the dispatch of a manifest, between pytest processes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.errors import DispatchError, no_access
from pytest_manifest.files import private_folder
from pytest_manifest.ledger.files import unmade_runs
from pytest_manifest.processes import locked, take_lock


class RunLock:
    """Hold the right to write a run's ledger: one process at a time has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, run: str) -> None:
        """Take the lock, or raise DispatchError where another process has it, or nobody can.

        A process that only tests whether it is held is waited for.
        """
        with _lock_errors(self._path):
            # A run may be linked into a folder.
            descriptor = take_lock(self._path, follows_links=True)
        if descriptor is None:
            raise DispatchError(
                f"run {run} is being followed by another pytest at this moment; "
                "wait until that has ended"
            )
        self._descriptor = descriptor

    def inscribe(self, text: str) -> None:
        """Write this text into the lock file, while it is held."""
        assert self._descriptor is not None
        with _lock_errors(self._path):
            os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Release the lock; harmless when it is not held. The file stays."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def remove_unmade_runs(folder: Path) -> None:
    """Remove what processes have left that were killed while they made a ledger.

    Who makes one holds the run's lock. Without a ledger nothing was sent. What cannot be removed
    stays: it hinders nobody.
    """
    for files in unmade_runs(folder):
        lock = RunLock(files.lock)
        # A DispatchError: it is being made at this moment, or this user may not write here.
        with contextlib.suppress(DispatchError, OSError):
            lock.acquire(files.ledger.stem)
            if files.unmade.exists() and not files.ledger.exists():  # else it was made meanwhile
                for path in files.all():
                    path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def one_dispatch_at_a_time(folder: Path, sha256: str) -> Iterator[None]:
    """Hold off other processes that would dispatch the same manifest from the same folder.

    Held from the look for earlier runs until the new one has its ledger, so that of two that begin
    together the second sees the first. Raises DispatchError where this user may not write there.
    """
    with contextlib.ExitStack() as stack:
        lock = folder / f".{sha256[:16]}.lock"
        with _lock_errors(lock):
            private_folder(folder)
            stack.enter_context(locked(lock))
        yield


@contextlib.contextmanager
def _lock_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of making or writing a lock's file into a DispatchError."""
    try:
        yield
    except PermissionError as error:
        raise DispatchError(
            f"{no_access(path, error)}; nothing was sent: have it belong to this one, or name "
            "another folder by the ini option manifest_dir"
        ) from error
    except OSError as error:
        advice = "free some space"
        if isinstance(error, FileExistsError | NotADirectoryError) or error.errno == errno.ELOOP:
            advice = f"{error.filename} is no folder, nor a link to one: put one there"
        raise DispatchError(
            f"{path}: cannot be written ({error.strerror}), so nothing was sent; {advice}, "
            "or name another folder by the ini option manifest_dir"
        ) from error
