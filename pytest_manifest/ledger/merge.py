"""Merge ledgers into one: SQLite copies their rows, in constant memory."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import private_folder
from pytest_manifest.ledger.descendants import ANNOUNCED_COLUMNS, DESCENDANT_COLUMNS
from pytest_manifest.ledger.files import TABLES, refuse_network, sqlite_uri
from pytest_manifest.ledger.rows import HANDED_ON_COLUMNS, SEQ, START_COLUMNS, last_seq_query
from pytest_manifest.manifest import sync

MAX_ATTACHED: Final = 8
"""Ledgers copied at a time: SQLite attaches at most ten files to a connection."""
# The file becomes visible only when complete and synced, so it needs no journal.
_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536")
_COLUMNS: Final = {
    "attempts": (
        "task_id, entry, attempt, ordinal, state, sent_at, note, reason, kind, verdict, "
        "reused_from, starts_lost, set_back, cause"
    ),
    "starts": START_COLUMNS,
    "handed_on": HANDED_ON_COLUMNS,
    "receipts": "task_id, execution, receipt, arrived_at, newest_attempt, after_verdict",
    "settled": "entry, attempt, kind, verdict, receipt, settled_at",
    "descendants": f"{DESCENDANT_COLUMNS}, starts_lost",
    "announced": ANNOUNCED_COLUMNS,
    "corrections": "entry, attempt, was, kind, told_at, corrected_at",
    "numbers": "kind, name",
    "facts": "kind, at, source, execution, hop, retries, redelivered, worker, pid, data",
}
_ORDER: Final = {"corrections": "ORDER BY corrected_at"}
"""Tables whose rows are numbered anew, by time."""
_SHIFTED: Final = {
    **dict.fromkeys(
        ("starts", "handed_on", "receipts", "settled", "descendants", "announced"), ("seq",)
    ),
    "attempts": ("seq", "sending"),
    "numbers": ("n",),
    "facts": ("seq", "entry", "job"),
}
"""Columns with numbers of a ledger's own: each ledger's come after those of the ledgers before."""


def merge_files(
    target: Path,
    sources: Sequence[Path],
    metadata: Iterable[tuple[str, str]],
) -> None:
    """Create at ``target`` a ledger with all rows of ``sources``, which stay as they are.

    ``metadata``: keys and values of its table ``run``. All are of the present version. Raises
    LedgerError where an entry is in two of them, or the file cannot be written; then ``target``
    does not exist.
    """
    try:
        private_folder(target.parent)
        refuse_network(target.parent)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            scratch = Path(folder)
            pending, level = list(sources), 0
            while len(pending) > MAX_ATTACHED:
                pending = [
                    _merge_into(
                        scratch / f"{level}-{first}.sqlite",
                        pending[first : first + MAX_ATTACHED],
                    )
                    for first in range(0, len(pending), MAX_ATTACHED)
                ]
                level += 1
            made = _merge_into(scratch / target.name, pending, metadata)
            sync(made)
            made.chmod(0o600)
            made.replace(target)
    except _DuplicateEntryError as error:
        raise LedgerError(_duplicate_message(error.entry, sources)) from None
    except _DuplicateJobError as error:
        raise LedgerError(
            f"entries {error.entries[0]!r} and {error.entries[1]!r} were both reused from one job "
            "of an earlier run, which can be of one of them alone; run one of their shards again, "
            "without --manifest-reuse, and merge that"
        ) from None
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{target}: the merged ledger cannot be written ({error}); name a local folder that is "
            "writable and has free space"
        ) from error


class _DuplicateEntryError(Exception):
    """Raised where an entry is in two ledgers."""

    def __init__(self, entry: str) -> None:
        super().__init__(entry)
        self.entry = entry


class _DuplicateJobError(Exception):
    """Raised where one job is in two ledgers, as the one of two entries."""

    def __init__(self, entries: tuple[str, str]) -> None:
        super().__init__(*entries)
        self.entries = entries


def _merge_into(
    path: Path,
    sources: Sequence[Path],
    metadata: Iterable[tuple[str, str]] = (),
) -> Path:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rwc", uri=True)) as db:
        db.isolation_level = None
        for setting in _SETTINGS:
            db.execute(f"PRAGMA {setting}")
        names = [f"part{number}" for number in range(len(sources))]
        for name, source in zip(names, sources, strict=True):
            db.execute(f"ATTACH ? AS {name}", (sqlite_uri(source, "ro"),))
        db.execute("BEGIN")
        _refuse_duplicates(db, names)
        for statement in TABLES:
            db.execute(statement)
        before = _numbers_before(db, names)
        for table, columns in _COLUMNS.items():
            shifted = _SHIFTED.get(table, ())
            rows = " UNION ALL ".join(
                f"SELECT {', '.join([f'{one} + {before[name]}' for one in shifted] + [columns])} "  # noqa: S608 - fixed text
                f"FROM {name}.{table}"
                for name in names
            )
            target = ", ".join([*shifted, columns])
            db.execute(f"INSERT INTO main.{table} ({target}) {rows} {_ORDER.get(table, '')}")
        noted = dict(metadata) | {SEQ: str(before[""])}
        db.executemany("INSERT INTO run VALUES (?, ?)", noted.items())
        db.execute("COMMIT")
        for name in names:
            db.execute(f"DETACH {name}")
        db.execute("PRAGMA journal_mode = WAL")
    return path


def _numbers_before(db: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
    """Return, for each ledger, the highest number of those before it; for "", that of all."""
    found, highest = dict[str, int](), 0
    for name in names:
        found[name] = highest
        (numbers,) = db.execute(f"SELECT coalesce(max(n), 0) FROM {name}.numbers").fetchone()  # noqa: S608 - fixed text
        (seq,) = db.execute(last_seq_query(name)).fetchone()
        highest += max(numbers, seq)
    return found | {"": highest}


def _refuse_duplicates(db: sqlite3.Connection, names: Sequence[str]) -> None:
    each = " UNION ALL ".join(
        f"SELECT DISTINCT entry FROM {name}.attempts"  # noqa: S608 - fixed text
        for name in names
    )
    query = f"SELECT entry FROM ({each}) GROUP BY entry HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - fixed text
    row = db.execute(query).fetchone()
    if row is not None:
        raise _DuplicateEntryError(str(row[0]))
    jobs = " UNION ALL ".join(
        f"SELECT task_id, entry FROM {name}.attempts WHERE state = 'reused'"  # noqa: S608 - fixed text
        for name in names
    )
    query = (
        f"SELECT min(entry), max(entry) FROM ({jobs}) GROUP BY task_id HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - fixed text
    )
    row = db.execute(query).fetchone()
    if row is not None:
        raise _DuplicateJobError((str(row[0]), str(row[1])))


def _duplicate_message(entry: str, sources: Sequence[Path]) -> str:
    """Build the message that names the ledgers with this entry."""
    found: list[str] = []
    for source in sources:
        with closing(sqlite3.connect(sqlite_uri(source, "ro"), uri=True)) as db:
            if db.execute("SELECT 1 FROM attempts WHERE entry = ? LIMIT 1", (entry,)).fetchone():
                found.append(str(source))
    return (
        f"entry {entry!r} is in {' and in '.join(found[:2])}: it was sent twice, and which of the "
        "two counts is not known; leave one of these ledgers out"
    )
