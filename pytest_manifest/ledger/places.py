"""Where ledgers lie: their file systems, their connections, and the runs in a folder."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.rows import MERGED
from pytest_manifest.ledger.versions import LEDGER_VERSION, is_older, version_of

NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "9p", "afs", "gpfs", "beegfs", "orangefs"),
    *("sshfs", "s3fs", "goofys", "gcsfuse", "rclone", "juicefs", "davfs", "curlftpfs", "moosefs"),
    "autofs",
)
"""How the kinds begin where SQLite's WAL cannot rely on locks and shared memory, be they the
kernel's or FUSE's; an automounter counts where nothing is mounted on it."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""A space and the like in a list of mounts."""
_NUMBER = re.compile(r"[0-9]{1,15}")
DAMAGE_ERRORS = (sqlite3.Error, UnicodeError)
"""What SQLite's module raises of a damaged file: also where the message is no text."""
BUSY_SECONDS = 30.0
"""How long a connection waits for another process that writes."""
CACHE_KB = 32_000
"""How much of a ledger a connection that writes may keep in memory, where SQLite's own limit is
2,000: receipts come in no order, so each may touch another page of an index."""


def connect(path: Path, mode: Literal["rw", "ro"] = "rw") -> sqlite3.Connection:
    """A connection to an existing file; transactions are begun and ended by hand.

    Raises sqlite3.Error where there is no such file, or it is no database.
    """
    db = sqlite3.connect(sqlite_uri(path, mode), uri=True, timeout=BUSY_SECONDS)
    db.isolation_level = None
    try:
        if mode == "rw":
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def sqlite_uri(path: Path, mode: Literal["rw", "ro"]) -> str:
    """The file's address for SQLite, to be opened or attached."""
    alone = "&immutable=1" if mode == "ro" and _cannot_change(path) else ""
    return f"{path.resolve().as_uri()}?mode={mode}{alone}"


def _cannot_change(path: Path) -> bool:
    """Whether the file is whole and lies where nobody can write.

    SQLite reads a file in WAL mode there only when told so: it would make files beside it.
    """
    wal = path.with_name(f"{path.name}-wal")
    return path.is_file() and not wal.exists() and not os.access(path.parent, os.W_OK)


def find_runs_by_digest(folder: Path, sha256: str) -> list[Path]:
    """Ledgers in ``folder`` of runs of the manifest with this digest, oldest first."""
    return [path for path, noted in _runs(folder) if noted.get("sha256") == sha256]


def find_runs_of_manifest(folder: Path, manifest: Path) -> list[Path]:
    """Ledgers in ``folder`` of runs of the manifest at this path, whatever was in it then.

    Oldest first.
    """
    name = str(manifest.resolve())
    return [path for path, noted in _runs(folder) if noted.get("manifest") == name]


def _runs(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Every run in the folder and what is noted of it, oldest first.

    One of a version that cannot be read, or cut off at birth, is passed over; one of an older
    version is found, and stays as it is. A merged run is as old as the oldest that it is of, and
    comes after it. The clock has a say only between runs that have no number, or the same one, as
    those from different folders may have: it can be set back.
    """
    found: list[tuple[int, str, bool, Path, dict[str, str]]] = []
    for path in sorted(folder.glob("*.sqlite")):
        with suppress(*DAMAGE_ERRORS), closing(connect(path, "ro")) as db:
            version = version_of(db)
            if version == str(LEDGER_VERSION) or is_older(version):
                rows = db.execute("SELECT key, value FROM run").fetchall()
                noted = {str(key): str(value) for key, value in rows}
                age = run_number_of(noted), noted.get("created_at", ""), MERGED in noted
                found.append((*age, path, noted))
    return ((path, noted) for *_, path, noted in sorted(found, key=lambda one: one[:4]))


def run_number_of(noted: Mapping[str, str]) -> int:
    """A run's place in the order in which the runs of a folder began; 0: it has none."""
    text = noted.get("number", "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def next_run_number(folder: Path) -> int:
    """A number above those of all runs in the folder, also of those that cannot be read."""
    numbers = [run_number_of(noted) for _, noted in _runs(folder)]
    numbers += [run_number_of_lock(path) for path in folder.glob("*.lock")]
    return max(numbers, default=0) + 1


def run_number_of_lock(lock: Path) -> int:
    """The number of a run by its lock, where it is written down for when its ledger is damaged."""
    try:
        return run_number_of({"number": lock.read_text("ascii").strip()})
    except (OSError, ValueError):
        return 0


def refuse_network(folder: Path) -> None:
    """Raises LedgerError where the folder lies on a network file system."""
    kind = file_system(folder)
    if kind.removeprefix("fuse.").startswith(NETWORK_FILE_SYSTEMS):
        raise LedgerError(
            f"{folder}: lies on a network file system ({kind}), where a ledger is not safe; "
            "name a local folder with the ini option manifest_dir"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system a folder lies on; "" where the system does not tell."""
    if not mounts.is_file():
        return ""
    place = folder.resolve()
    with suppress(OSError):
        os.scandir(place).close()  # an automounter mounts what is looked into, and not before
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    around = [row for row in rows if place.is_relative_to(_ESCAPED.sub(_unescaped, row[1]))]
    # Of several on one place the last one is on top: an automounter's lies below what it mounts.
    return max(reversed(around), key=lambda row: len(row[1]))[2] if around else ""


def _unescaped(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))
