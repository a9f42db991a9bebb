"""The ledger under kill -9, beside readers, and on a full or read-only disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from tests.conftest import missing
from tests.reports import all_receipts, starts_by_task
from tests.unit.ledger_processes import BATCH, write_batch
from tests.unit.ledger_support import INFO, ROOT, is_sound

SEEDS = 25
MODULE = [sys.executable, "-m", "tests.unit.ledger_processes"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each seed, with the ledger of a writer that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run(
        [*MODULE, "die-writing", str(folder), str(SEEDS)], cwd=ROOT, check=True, timeout=120
    )
    return folder


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_killed_writer_leaves_whole_transactions(killed: Path, seed: int) -> None:
    """All that was acknowledged is there, of the rest all or nothing, and the run can go on."""
    path = killed / str(seed) / "run.sqlite"
    acknowledged = (killed / str(seed) / "acknowledged").stat().st_size
    with Ledger.open(path) as reader:
        batches = whole_batches(reader)
    assert batches in (acknowledged, acknowledged + 1)
    with Ledger.open(path, write=True) as ledger:
        write_batch(ledger, batches)
        assert whole_batches(ledger) == batches + 1
    assert is_sound(path)


def whole_batches(ledger: Ledger) -> int:
    """How many batches the ledger holds, every table of it; fails where one holds part of one."""
    batches = int(ledger.info.get_meta("unsent") or "0")
    entries = [f"b{number}-{n}" for number in range(batches) for n in range(BATCH)]
    tasks = [f"t-{entry}" for entry in entries]
    assert [(row.entry, row.state, row.status) for row in ledger.attempts.all()] == [
        (entry, "sent", "passed") for entry in entries
    ]
    assert sorted(starts_by_task(ledger)) == sorted(tasks)
    assert [task for task, _, _ in all_receipts(ledger)] == tasks
    assert [settled.verdict.entry for settled in ledger.queries.all_verdicts()] == entries
    return batches


def test_a_ledger_is_read_while_another_process_writes_it(tmp_path: Path) -> None:
    """A reader sees each transaction once it is committed, and a look begun stays as it was."""
    path = tmp_path / "run.sqlite"
    batches = 12
    writer = subprocess.Popen(
        [*MODULE, "write", str(path), str(batches)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer, contextlib.ExitStack() as stack:
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            for expected in range(1, batches + 1):
                assert writer.stdout.readline() == f"{expected - 1}\n"
                if expected == 1:
                    reader = stack.enter_context(Ledger.open(path))
                    long_look = stack.enter_context(Ledger.open(path)).attempts.all()
                    first = next(long_look)
                assert whole_batches(reader) == expected
                writer.stdin.write("\n")
                writer.stdin.flush()
            assert writer.wait(60) == 0
            assert len([first, *long_look]) == BATCH
        finally:
            writer.kill()


def write_until_full(ledger: Ledger) -> None:
    for number in range(1, 100):  # some room is left in the last pages
        write_batch(ledger, number)


@dataclass(frozen=True)
class SmallDisk:
    """A folder on a file system of its own, or, where none can be mounted, just a folder."""

    folder: Path
    mounted: bool

    def fill(self, ledger: Ledger) -> None:
        """Leave no room for the ledger."""
        if not self.mounted:
            (pages,) = ledger._db.connection.execute("PRAGMA page_count").fetchone()
            ledger._db.connection.execute(f"PRAGMA max_page_count = {pages}")
            return
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", 0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self, ledger: Ledger) -> None:
        """Give it room again."""
        if self.mounted:
            (self.folder / "ballast").unlink()
        else:
            ledger._db.connection.execute("PRAGMA max_page_count = 100000")

    def make_read_only(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)
        elif os.geteuid() == 0:
            missing("root writes everywhere, and cannot mount here")
        else:
            self.folder.chmod(0o555)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )
    try:
        yield SmallDisk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)
        else:
            folder.chmod(0o755)


def test_a_full_disk_takes_nothing_of_a_transaction(disk: SmallDisk) -> None:
    """What was committed stays; the rest is refused, and goes in once there is room."""
    with Ledger.create(disk.folder / "run.sqlite", INFO) as ledger:
        write_batch(ledger, 0)
        disk.fill(ledger)
        with pytest.raises(
            LedgerError, match=r"cannot be written \(.*full\); free some.*--manifest-resume"
        ):
            write_until_full(ledger)
        written = int(ledger.info.get_meta("unsent") or "0")
        assert whole_batches(ledger) == written
        with pytest.raises(LedgerError, match="full"):
            write_batch(ledger, written)
        disk.free(ledger)
        write_batch(ledger, written)
        assert whole_batches(ledger) == written + 1
    assert is_sound(ledger.path)
    with Ledger.open(ledger.path) as reader:
        assert whole_batches(reader) == written + 1


def test_a_read_only_medium_is_read(disk: SmallDisk) -> None:
    """A ledger that is one file is read there."""
    path = disk.folder / "run.sqlite"
    with Ledger.create(path, INFO) as ledger:
        write_batch(ledger, 0)
        ledger.compact()
    disk.make_read_only()
    with Ledger.open(path) as reader:
        assert whole_batches(reader) == 1
        with pytest.raises(LedgerError, match="cannot be written"):
            reader.info.set_meta("accepted", "value")
    with pytest.raises(LedgerError, match=r"run\.sqlite: cannot be written.*writable"):
        Ledger.open(path, write=True)
