"""A private broker's data, kept beyond its end: what it held last, it has written down itself."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

AOF = "appendonlydir"
POLL_SECONDS = 0.05


class KeptData:
    """Opens the files of each broker below a folder as they come, until it is stopped.

    A file that is open stays readable when it has been removed; so the broker need not be asked,
    and notices nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._brokers: dict[int, dict[str, int]] = {}
        self._directories: dict[int, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let go of everything."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()
        files = [one for some in self._brokers.values() for one in some.values()]
        for descriptor in (*files, *self._directories.values()):
            os.close(descriptor)
        self._brokers.clear()
        self._directories.clear()

    def held(self) -> list[str]:
        """The beginning of every file that is open."""
        files = [one for some in [*self._brokers.values()] for one in [*some.values()]]
        return [os.pread(one, 1000, 0).decode("utf-8", "replace") for one in files]

    def copies(self, into: Path) -> list[Path]:
        """Write what each broker held when it ended into a folder of its own."""
        self._end.set()
        self._thread.join()
        self._look()
        found = []
        for number, files in enumerate(self._brokers.values()):
            copy = into / f"kept-{number}"
            (copy / AOF).mkdir(parents=True)
            for name, descriptor in files.items():
                with os.fdopen(os.dup(descriptor), "rb") as source:
                    source.seek(0)
                    with (copy / AOF / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
            found.append(copy)
        return found

    def _watch(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        with suppress(OSError):  # one is being removed; the others are there the next time
            for directory in self._folder.glob(f"*/{AOF}"):
                self._open_all(directory)

    def _open_all(self, directory: Path) -> None:
        """Open what is new in a directory. Open ones do not share their numbers with new ones."""
        opened = os.open(directory, os.O_RDONLY)
        number = os.fstat(opened).st_ino
        if number in self._directories:
            os.close(opened)
        else:
            self._directories[number] = opened
            self._brokers[number] = {}
        files, folder = self._brokers[number], self._directories[number]
        for name in os.listdir(folder):  # noqa: PTH208 - by its descriptor
            known = files.get(name)
            at = os.stat(name, dir_fd=folder)
            if known is not None and os.fstat(known).st_ino == at.st_ino:
                continue
            files[name] = os.open(name, os.O_RDONLY, dir_fd=folder)
            if known is not None:
                os.close(known)
