"""A disk that fails at the n-th call, for processes that are started with its environment."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.c_compiler import COMPILER, can_compile

SOURCE = Path(__file__).with_name("disk.c")
Mode = Literal["count", "once", "on", "torn", "kill"]
"""``once``: the call fails; ``on``: and each after it; ``torn``: half of a write arrives, then it
fails; ``kill``: half of a write arrives, then the process is killed."""
MODES: Sequence[Mode] = ("count", "once", "on", "torn", "kill")
_HEAD = struct.Struct("=QQQii")
_FOLDERS = 4
_NAME = 512
_SIZE = _HEAD.size + (_FOLDERS + 1) * _NAME


@dataclass(frozen=True)
class Fault:
    """How the call fails."""

    name: str
    mode: Mode
    error: int = 0


FAULTS: Sequence[Fault] = (
    Fault("no space, once", "once", errno.ENOSPC),
    Fault("no space from then on", "on", errno.ENOSPC),
    Fault("I/O error, once", "once", errno.EIO),
    Fault("I/O error from then on", "on", errno.EIO),
    Fault("a torn page and an I/O error", "torn", errno.EIO),
    Fault("a torn page and the process killed", "kill"),
)


@dataclass(frozen=True)
class Call:
    """A call that changes what is on the disk."""

    number: int
    what: str
    pid: int
    path: str


def is_possible() -> bool:
    """Return whether the library can be built here."""
    return os.uname().sysname == "Linux" and can_compile()


class FailingDisk:
    """What is below ``folders``, to processes that are started with :attr:`environment`.

    ``scratch``: an existing folder for the library and what it shares with those processes.
    """

    def __init__(self, scratch: Path, folders: Sequence[Path]) -> None:
        assert len(folders) <= _FOLDERS
        library, state = scratch / "disk.so", scratch / "disk.state"
        if not library.exists():
            command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)
        self._log = scratch / "disk.log"
        names = [str(folder.resolve()) for folder in folders]
        names += [""] * (_FOLDERS - len(folders)) + [str(self._log.resolve())]
        assert all(len(name.encode()) < _NAME for name in names)
        text = b"".join(name.encode().ljust(_NAME, b"\0") for name in names)
        if not state.exists():
            state.write_bytes(bytes(_SIZE))
        with state.open("r+b") as file:  # in place: this process itself may look into it
            self._state = mmap.mmap(file.fileno(), _SIZE)
        self._state[_HEAD.size :] = text
        self.environment = {"LD_PRELOAD": str(library), "FAILING_DISK": str(state)}

    def begin(self, fault: Fault | None = None, at: int = 0) -> None:
        """Count from 0 on; have the call ``at`` fail."""
        self._log.unlink(missing_ok=True)
        mode = MODES.index("count" if fault is None else fault.mode)
        error = 0 if fault is None else fault.error
        self._state[: _HEAD.size] = _HEAD.pack(0, at if fault else 0, 0, mode, error)

    def heal(self) -> None:
        """Let every call succeed from now on."""
        self._state[: _HEAD.size] = _HEAD.pack(0, 1 << 62, 0, 0, 0)

    @property
    def count(self) -> int:
        """Return how many calls there have been."""
        return int(_HEAD.unpack(self._state[: _HEAD.size])[0])

    def calls(self) -> list[Call]:
        """Return the calls: all that were counted without a fault, else those that failed."""
        if not self._log.exists():
            return []
        rows = [line.split("\t", 3) for line in self._log.read_text("utf-8").splitlines()]
        return [Call(int(number), what, int(pid), path) for number, what, pid, path in rows]
