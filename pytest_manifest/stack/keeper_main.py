"""The keeper's program: ``python -m pytest_manifest.stack.keeper_main``, fed by a pipe.

Only the standard library is imported, so that it is up in some 30 ms.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pytest_manifest.errors import StackError
from pytest_manifest.stack.data import DataFolder
from pytest_manifest.stack.guard import Guard
from pytest_manifest.stack.keeper import Keeper
from pytest_manifest.stack.locks import take_lock
from pytest_manifest.stack.report import refuse
from pytest_manifest.stack.settings import Settings

# Others look for a moment whether the lock is held.
LOCK_SECONDS = 1.0


def _read_settings() -> Settings:
    """The first line of standard input, read byte by byte: what follows is for the selector."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("the keeper got no settings")
        line += byte
    return Settings.load(line.decode())


def _claim(settings: Settings) -> DataFolder | None:
    """Hold, for as long as this process and its guard live, what others must not use as well."""
    if settings.lock_file and take_lock(Path(settings.lock_file), LOCK_SECONDS) is None:
        refuse("another stack is up already: see manifest-stack status")
    try:
        return DataFolder.claim(Path(settings.data)) if settings.data else None
    except StackError as error:
        refuse(str(error))


def _make_directory() -> Path:
    """Make the stack's private directory; from here on complaints go into a file in it."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="manifest-stack-"))
        log = os.open(directory / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        refuse(
            f"no temporary directory for the embedded stack can be made ({error.strerror}): free "
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
    guard = Guard()
    guard.add_path(directory)
    if settings.state_file:
        guard.add_path(Path(settings.state_file))
    Keeper(settings, directory, guard, data).run()


if __name__ == "__main__":
    main()
