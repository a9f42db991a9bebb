"""Make folders and files that only their owner can read, whatever the umask is.

The supervisor and the workers import this: nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_BLOCK: Final = 1 << 20
_OWN_NAME: Final = ".manifest"


MODE_HINT: Final = (
    "give the mode of a file in octal digits that its owner can read and write and nobody can "
    "execute, like 600, 640 or 644"
)


def parsed_mode(text: str) -> int | None:
    """Return the mode that these octal digits name; None where a report cannot have it."""
    if not re.fullmatch("0?[0-7]{3}", text):
        return None
    mode = int(text, 8)
    return mode if mode & ~0o66 == FILE_MODE else None


def private_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder and its missing parents, each with this mode; leave those that exist as found.

    ``Path.mkdir(mode, parents=True)`` gives the parents what the umask says: in one that others may
    write to, they can put a folder of theirs in the place of ours. Raises OSError.
    """
    try:
        path.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        if path.parent == path:
            raise
        private_folder(path.parent, mode)
        private_folder(path, mode)
    except OSError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)  # whatever the umask has taken from it


def own_folder(path: Path) -> None:
    """Make a folder that is, and stays, for this user alone. Raises OSError where it is not."""
    private_folder(path)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(1, "it is not a directory of this user", str(path))
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(FOLDER_MODE)


def remove(path: Path) -> None:
    """Remove a folder or a file, whatever is left of it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def git_ignored_folder(path: Path) -> None:
    """Make a private folder with a ``.gitignore`` for all that is in it.

    One that is there is left as it is, unless it has our own name: it may be the project's. An
    OSError is left to whoever writes there next.
    """
    ignored = path / ".gitignore"
    with suppress(OSError):
        if not path.exists():
            private_folder(path)
        elif path.name != _OWN_NAME or ignored.exists():
            return
        write_whole(ignored, b"*\n")


def folder_of(path: Path, mode: int) -> None:
    """Make a file's folder: who may read a file of this mode may look into it. Raises OSError."""
    private_folder(path.parent, mode | (mode & 0o444) >> 2)


def new_file(path: Path, mode: int | None = FILE_MODE) -> IO[bytes]:
    """Open a new file with this mode to write and read it; ``mode`` None: what the umask leaves.

    At no moment others can open what they must not read. Raises OSError, also where the file
    exists.
    """
    if mode is None:
        return path.open("x+b")
    return open(path, "x+b", opener=lambda name, flags: _opened(name, flags, mode))


def write_whole(path: str | Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Write a file of this mode with few system calls, over an earlier one. Raises OSError."""
    descriptor = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def copy_privately(source: Path, target: Path) -> None:
    """Copy a file to one of mode 0600, over an earlier one. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with source.open("rb") as file, os.fdopen(_opened(target, flags, FILE_MODE), "wb") as copy:
        shutil.copyfileobj(file, copy, _BLOCK)


def append(path: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Append to a file, which is made with this mode where it is missing. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "ab") as file:
        file.write(content)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _opened(path: str | Path, flags: int, mode: int) -> int:
    """Open a file, made for its owner alone first; that of a device or of another user is left."""
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if is_ours and stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
