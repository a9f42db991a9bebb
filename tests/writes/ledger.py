"""Write a ledger on a disk that fails at the n-th call, for every n.

``python -m tests.writes.ledger SCRATCH FAULT FIRST STEP``, started with the environment of that
disk; of every call FIRST is 1 and STEP is 1.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from tests.unit.ledger_processes import write_batch
from tests.unit.ledger_support import INFO, is_sound
from tests.unit.test_ledger_crashes import whole_batches
from tests.writes.disk import FAULTS, FailingDisk, Fault

BATCHES = 3


class Writer:
    """Writes one ledger, and notes in a file elsewhere how many batches were acknowledged."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self.path = folder / "run.sqlite"
        self._acknowledged = notes
        self._acknowledged.write_bytes(b"")

    @property
    def acknowledged(self) -> int:
        return self._acknowledged.stat().st_size

    def write(self) -> None:
        """Make the ledger, write the batches, and close it as a session does."""
        with Ledger.create(self.path, INFO) as ledger:
            self._write(ledger)
        with Ledger.open(self.path, write=True) as ledger:
            ledger.compact()

    def _write(self, ledger: Ledger) -> None:
        for number in range(self.acknowledged, BATCHES):
            write_batch(ledger, number)
            with self._acknowledged.open("ab") as file:
                file.write(b"+")

    def write_stubbornly(self) -> str:
        """Write, and try once more what has failed; return what was said of it."""
        try:
            ledger = Ledger.create(self.path, INFO)
        except LedgerError as error:
            assert not self.path.exists(), "a ledger that could not be made is there"
            return str(error)
        said = ""
        with ledger:
            for _ in range(2):
                try:
                    self._write(ledger)
                except LedgerError as error:
                    said = str(error)
        try:
            with Ledger.open(self.path, write=True) as ledger:
                ledger.compact()
        except LedgerError as error:
            said = str(error)
        return said

    def check(self) -> Iterator[str]:
        """Yield what is wrong with the ledger, on a disk that is in order again; then go on."""
        if not self.path.exists():
            if self.acknowledged:
                yield "the ledger is gone"
            return
        acknowledged = self.acknowledged
        with Ledger.open(self.path) as reader:
            found = whole_batches(reader)
        if not acknowledged <= found <= acknowledged + 1:
            yield f"{acknowledged} batches were acknowledged and {found} are there"
        with Ledger.open(self.path, write=True) as ledger:
            write_batch(ledger, found)
            if whole_batches(ledger) != found + 1:
                yield "it cannot be resumed"
        if not is_sound(self.path):
            yield "SQLite finds it damaged"


def trial(disk: FailingDisk, folder: Path, fault: Fault, at: int) -> tuple[bool, list[str]]:
    """Return whether there is a call ``at``, and what was wrong when it failed."""
    folder.mkdir(parents=True)
    writer = Writer(folder, folder.parent.with_name("acknowledged"))
    wrong: list[str] = []
    disk.begin(fault, at)
    if fault.mode == "kill":
        _die(writer)
    else:
        try:
            said = writer.write_stubbornly()
            if disk.calls() and said and writer.path.name not in said:
                wrong.append(f"it does not name the file: {said}")
        except (sqlite3.Error, OSError, AssertionError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    reached = disk.count >= at
    disk.heal()
    try:
        wrong += writer.check()
    except (LedgerError, sqlite3.Error, AssertionError) as error:
        wrong.append(f"it cannot be read: {error}")
    shutil.rmtree(folder)
    return reached, wrong


def _die(writer: Writer) -> None:
    """Write in a child, which the disk kills."""
    child = os.fork()
    if child == 0:
        try:
            writer.write()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)


def fail_each_call(
    scratch: Path, fault: Fault, first: int = 1, step: int = 1
) -> tuple[int, list[str]]:
    """Run this module for a fault in a new folder; return how many calls have failed, and what was
    wrong when one did.

    ``step``: from the ``first`` call on each so manieth one.
    """
    scratch.mkdir(parents=True)
    environment = dict(os.environ) | FailingDisk(scratch, []).environment
    command = [sys.executable, "-m", "tests.writes.ledger", str(scratch), fault.name]
    command += [str(first), str(step)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    *wrong, calls = done.stdout.splitlines()
    return int(calls), wrong


def main() -> None:
    """Print a line for each call whose failing was wrong, and at last how many have failed."""
    scratch, name, first, step = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    (fault,) = (one for one in FAULTS if one.name == name)
    ledgers = scratch / "ledgers"
    disk = FailingDisk(scratch, [ledgers])
    for failed, at in enumerate(count(first, step)):
        reached, wrong = trial(disk, ledgers / str(at), fault, at)
        if not reached:
            print(failed)
            return
        if wrong:
            print(f"call {at}: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
