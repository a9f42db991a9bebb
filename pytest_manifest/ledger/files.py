"""Name the files of a run, open its ledger, and find the runs of a folder."""

from __future__ import annotations

import fnmatch
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_manifest.errors import LedgerError, no_access
from pytest_manifest.ledger.tables import LEDGER_VERSION, version_of
from pytest_manifest.text import listed

NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "9p", "afs", "gpfs", "beegfs", "orangefs"),
    *("sshfs", "s3fs", "goofys", "gcsfuse", "rclone", "juicefs", "davfs", "curlftpfs", "moosefs"),
    "autofs",
)
"""Prefixes of file system types on which SQLite's WAL cannot rely on locks and shared memory, the
kernel's or FUSE's; an automounter counts where nothing is mounted on it."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""An escaped character, such as a space, in a list of mounts."""
_NUMBER = re.compile(r"[0-9]{1,15}")
_NUMBER_FIELD = re.compile(rb'"number": ?([0-9]{1,15})')
DAMAGE_ERRORS = (sqlite3.Error, UnicodeError)
"""What the sqlite3 module raises on a damaged file; UnicodeError where the message is no text."""
BUSY_SECONDS = 30.0
"""Seconds that a connection waits for another process that writes."""
CACHE_KB = 32_000
"""How much of a ledger a writing connection may cache, in kB; SQLite's default is 2,000. Receipts
come in no order, so each may touch another page of an index."""


def connect(
    path: Path, mode: Literal["rw", "ro"] = "rw", *, keep_journal: bool = False
) -> sqlite3.Connection:
    """Connect to an existing file, without automatic transactions.

    ``keep_journal``: the kind of journal stays as it is, so that a file of which nothing comes is
    not changed. Raises sqlite3.Error where there is no such file, or it is no database.
    """
    if path.exists() and not path.is_file():  # SQLite would wait for a pipe's writer
        raise sqlite3.OperationalError("it is no regular file")
    db = sqlite3.connect(sqlite_uri(path, mode), uri=True, timeout=BUSY_SECONDS)
    db.isolation_level = None
    try:
        if mode == "rw" and not keep_journal:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def refuse_cut(path: Path, db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the file's last page is not whole.

    SQLite reads what is missing of it as zeros. While a write-ahead log is there, it may hold that
    page.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return
    (page_size,) = db.execute("PRAGMA page_size").fetchone()
    if path.stat().st_size % page_size:
        raise sqlite3.DatabaseError("it is cut off within a page")


def sqlite_uri(path: Path, mode: Literal["rw", "ro"]) -> str:
    """Return the file's URI for SQLite, to open or attach it by."""
    alone = "&immutable=1" if mode == "ro" and _cannot_change(path) else ""
    # Not resolve(), which raises RuntimeError of links that lead to themselves.
    return f"{Path(os.path.realpath(path)).as_uri()}?mode={mode}{alone}"


def _cannot_change(path: Path) -> bool:
    """Return whether the file is complete and in a folder that is not writable.

    SQLite reads a file in WAL mode there only as immutable: else it would create files beside it.
    """
    wal = path.with_name(f"{path.name}-wal")
    return path.is_file() and not wal.exists() and not os.access(path.parent, os.W_OK)


def find_runs(folder: Path, manifest: Path | None = None, sha256: str | None = None) -> list[Path]:
    """Return the ledgers in ``folder`` that can be read, oldest first.

    With ``manifest`` those of runs of the one at this path, whatever was in it; with ``sha256``
    those of a manifest with this digest, wherever it was; with both either.
    """
    name = None if manifest is None else str(manifest.resolve())
    wanted = (manifest, sha256) == (None, None)
    return [
        path
        for path, noted, digest, _ in _runs(folder)
        if wanted or (name is not None and noted == name) or (sha256 and digest == sha256)
    ]


_OF_RUN = """
    SELECT number, created_at, (SELECT count(*) FROM run WHERE n > 1), manifest, sha256
    FROM run WHERE n = 1
"""


def _runs(folder: Path) -> Iterator[tuple[Path, str | None, str | None, int]]:
    """Yield each run in the folder with its manifest, that one's digest and the run's number.

    Oldest first. Ledgers of other versions, or cut off at creation, are skipped. A merged run is as
    old as the oldest of its runs, and comes after it. Creation times decide only between runs with
    the same number (from different folders), because a clock can be set back.
    """
    found: list[tuple[int, str, bool, Path, str | None, str | None]] = []
    for path in ledgers_in(folder):
        with suppress(OSError, *DAMAGE_ERRORS), closing(connect(path, "ro")) as db:
            if version_of(db) == str(LEDGER_VERSION):
                number, created_at, merged, manifest, digest = db.execute(_OF_RUN).fetchone()
                number = number if isinstance(number, int) else 0
                age = number, str(created_at or ""), bool(merged)
                found.append((*age, path, manifest, digest))
    return (
        (path, manifest, digest, number)
        for number, _, _, path, manifest, digest in sorted(found, key=lambda one: one[:4])
    )


def next_run_number(folder: Path) -> int:
    """Return a number above those of all runs in the folder, unreadable ones included."""
    numbers = [number for *_, number in _runs(folder)]
    numbers += [run_number_of_lock(path) for path in folder.glob("*.lock")]
    # Of runs that were dropped their digests remain, which are ordered by it.
    numbers += [_number_of_digest(path) for path in digests_in(folder)]
    return max(numbers, default=0) + 1


def _number_of_digest(path: Path) -> int:
    """Return the number at the head of a digest, without reading the rest; 0: it has none."""
    with suppress(OSError), path.open("rb") as file:
        found = _NUMBER_FIELD.search(file.read(500))
        return 0 if found is None else int(found[1])
    return 0


def run_number_of_lock(lock: Path) -> int:
    """Read a run's number from its lock file, which has it for when the ledger is damaged; 0: it
    has none."""
    try:
        text = lock.read_text("ascii").strip()
    except (OSError, ValueError):
        return 0
    return int(text) if _NUMBER.fullmatch(text) else 0


def refuse_network(folder: Path) -> None:
    """Raise LedgerError where the folder is on a network file system."""
    kind = file_system(folder)
    if kind.removeprefix("fuse.").startswith(NETWORK_FILE_SYSTEMS):
        raise LedgerError(
            f"{folder}: lies on a network file system ({kind}), where a ledger is not safe; "
            "name a local folder with the ini option manifest_dir"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of a folder's file system; "" where the system does not tell."""
    if not mounts.is_file():
        return ""
    place = folder.resolve()
    with suppress(OSError):
        os.scandir(place).close()  # an automounter mounts a folder when it is read
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    around = [row for row in rows if place.is_relative_to(_ESCAPED.sub(_unescaped, row[1]))]
    # The last of several mounts on one path is on top: an automounter's is below what it mounts.
    return max(reversed(around), key=lambda row: len(row[1]))[2] if around else ""


def _unescaped(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))


# The files of a run, all of them beside its ledger

WORKER_LOGS = "worker-*.log"
"""The pattern of the workers' logs in the folder of a stack."""
DIGEST = ".digest.json"
UNMADE = ".new"
"""What the name of a ledger ends with until it is whole."""
_UNMADE_RUN = re.compile(rf"\d{{8}}T\d{{6}}-[0-9a-f]{{8}}\.sqlite{re.escape(UNMADE)}")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Name the files of the run with this ledger."""

    ledger: Path

    @classmethod
    def of(cls, folder: Path, run: str) -> RunFiles:
        """Name the files of a run in this folder."""
        return cls(folder / f"{run}.sqlite")

    @property
    def unmade(self) -> Path:
        """Return where the ledger is written until it is whole."""
        return self.ledger.with_name(f"{self.ledger.name}{UNMADE}")

    @property
    def lock(self) -> Path:
        return self.ledger.with_suffix(".lock")

    @property
    def log(self) -> Path:
        return self.ledger.with_suffix(".log")

    @property
    def output(self) -> Path:
        """Return what a pytest prints whose run was left to it by ``--manifest-detach``."""
        return self.ledger.with_suffix(".out")

    @property
    def receipts(self) -> Path:
        """Return where the receipts are exported to."""
        return self.ledger.with_suffix(".receipts.jsonl")

    @property
    def summary(self) -> Path:
        """Return where the summary as a JSON document is."""
        return self.ledger.with_suffix(".summary.json")

    @property
    def digest(self) -> Path:
        """Return where the digest is, which stays when the ledger is dropped."""
        return self.ledger.with_suffix(DIGEST)

    def worker_log(self, name: str) -> Path:
        """Return where a worker's log of this name is kept."""
        return self.ledger.with_suffix(f".{name}")

    @property
    def worker_logs_pattern(self) -> Path:
        """Return the path with a wildcard that all kept logs of workers match."""
        return self.worker_log(WORKER_LOGS)

    def worker_logs(self) -> list[Path]:
        """Return the logs of workers that were kept, sorted."""
        return sorted(self.ledger.parent.glob(self.worker_logs_pattern.name))

    def manifest(self, sha256: str) -> Path:
        """Return where the run keeps the manifest with this digest."""
        return self.ledger.with_suffix(f".{sha256[:12]}.manifest.jsonl")

    def all(self) -> list[Path]:
        """Return all files of the run, its ledger first: without it the others belong to none."""
        beside = sorted(self.ledger.parent.glob(f"{self.ledger.stem}.*"))
        return [self.ledger, *(path for path in beside if path != self.ledger)]

    def forget_manifest(self, sha256: str) -> None:
        """Stop counting the run as one of this manifest: rename its copy."""
        copy = self.manifest(sha256)
        copy.rename(copy.with_suffix(".given-up"))


def ledgers_in(folder: Path) -> list[Path]:
    """Return the ledgers in a folder, sorted by name, which is by age; none where it is missing.

    Raises LedgerError where it cannot be read: it may hold any.
    """
    return _files_in(folder, "*.sqlite")


def digests_in(folder: Path) -> list[Path]:
    """Return the digests of runs in a folder, sorted by name; see :func:`ledgers_in`."""
    return _files_in(folder, f"*{DIGEST}")


def _files_in(folder: Path, pattern: str) -> list[Path]:
    # Not glob(): it takes a folder that may not be read for an empty one, or raises.
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, to be matched
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LedgerError(
            f"{no_access(folder, error, 'read')}; have it readable for this one, or name another "
            "folder by the ini option manifest_dir"
        ) from error
    return sorted(folder / name for name in fnmatch.filter(names, pattern))


def unmade_runs(folder: Path) -> list[RunFiles]:
    """Name the files of the runs in a folder whose ledgers are being made, or never will be."""
    begun = _files_in(folder, f"*.sqlite{UNMADE}")
    named = [RunFiles(path.with_suffix("")) for path in begun if _UNMADE_RUN.fullmatch(path.name)]
    return [files for files in named if not files.ledger.exists()]


def find_ledger(folder: Path, run: str) -> Path | None:
    """Return the ledger of the run with this id, or of the only one whose id begins like that.

    None where there is none in the folder. Raises LedgerError where several begin like that.
    """
    exact = RunFiles.of(folder, run).ledger
    if "/" not in run and exact.is_file():
        return exact
    found = [path for path in reversed(ledgers_in(folder)) if run and path.stem.startswith(run)]
    if len(found) > 1:
        some = listed([path.stem for path in found], 5)
        raise LedgerError(f"{run!r} begins several runs ({some}); write more of the id")
    return found[0] if found else None


def runs_by_copy(folder: Path, sha256: str) -> list[Path]:
    """Return the ledgers in ``folder`` that have a copy of this manifest, readable or not, oldest
    first.

    Where there is no ledger nothing was sent.
    """
    copies = _files_in(folder, f"*.{sha256[:12]}.manifest.jsonl")
    ledgers = [RunFiles.of(folder, copy.name.split(".")[0]).ledger for copy in copies]
    return [path for path in ledgers if path.exists()]
