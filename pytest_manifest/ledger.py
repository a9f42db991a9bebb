"""The ledger: a SQLite file a run, the record of what was planned, sent, started and judged.

One process writes (the one that dispatches or audits); any number may read while it does. A record
is committed before anyone acts on it, so a reader sees nothing that would not survive a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, get_args

from pytest_manifest.errors import LedgerError
from pytest_manifest.schema import Receipt, Verdict

LEDGER_VERSION = 1
# Where SQLite's WAL cannot rely on locks and shared memory.
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "glusterfs", "lustre", "9p", "fuse.sshfs")
SendState = Literal["planned", "intent", "sent", "uncertain", "withheld"]
"""planned: selected, not sent; intent: about to be published; sent: the broker has it; uncertain:
the broker failed while it was being published; withheld: never sent, as its task is unknown."""
RunStatus = Literal["running", "finished", "stopped", "detached"]

_TABLES = """
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts (
    task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT
) WITHOUT ROWID;
CREATE INDEX attempts_by_entry ON attempts (entry, attempt);
CREATE TABLE starts (
    task_id TEXT NOT NULL, execution TEXT NOT NULL, started_at TEXT, retries INTEGER NOT NULL,
    worker TEXT, host TEXT, pid INTEGER, redelivered INTEGER NOT NULL,
    PRIMARY KEY (task_id, execution)
) WITHOUT ROWID;
CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, execution TEXT,
    receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
);
CREATE INDEX receipts_by_task ON receipts (task_id);
CREATE TABLE settled (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
    kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
);
"""

_ATTEMPTS = """
SELECT task_id, entry, attempt, ordinal, state, sent_at, note FROM attempts
ORDER BY ordinal, attempt
"""
_UNSETTLED = """
SELECT task_id, entry, attempt, ordinal, state, sent_at, note FROM attempts
WHERE entry NOT IN (SELECT entry FROM settled WHERE kind NOT IN ('pending', 'unknown'))
ORDER BY ordinal, attempt
"""
"""Attempts of entries without a verdict, or with one that a later look at the stack may change."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run is about; ``broker`` and ``backend`` without their passwords."""

    run: str
    manifest: Path
    sha256: str
    workflow: str | None
    mode: str | None
    entries: int
    created_at: datetime
    broker: str
    backend: str
    owned: bool
    stream_ttl: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One sending of one entry; ``sent_at`` is UTC."""

    task_id: str
    entry: str
    attempt: int
    ordinal: int
    state: SendState
    sent_at: datetime | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Start:
    """A worker began an execution of an attempt."""

    task_id: str
    execution: str
    started_at: datetime | None
    retries: int
    worker: str | None
    host: str | None
    pid: int | None
    redelivered: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry that has its verdict; ``seq`` grows in the order in which entries settled."""

    seq: int
    verdict: Verdict
    receipt: Receipt | None


def utc_now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class Ledger:
    """A run's ledger. Use one instance per thread; see :meth:`create` and :meth:`open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> Ledger:
        """Begin a new ledger at ``path``.

        Raises LedgerError where the file exists or cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _refuse_network(path.parent)
            path.touch(mode=0o600, exist_ok=False)
            db = _connect(path)
            with db:
                db.executescript("BEGIN;" + _TABLES)
                db.executemany("INSERT INTO run VALUES (?, ?)", _info_rows(info))
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{path}: the ledger cannot be created ({error}); "
                "choose a writable local folder with the ini option manifest_dir"
            ) from error
        return cls(path, db)

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Ledger:
        """Open an existing ledger, by default for reading only.

        Raises LedgerError where it is missing, of another version, or not a ledger.
        """
        try:
            db = _connect(path, mode="rw" if write else "ro")
            row = db.execute("SELECT value FROM run WHERE key = 'ledger'").fetchone()
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: this is not a ledger that can be read ({error})") from error
        if row is None or row[0] != str(LEDGER_VERSION):
            db.close()
            raise LedgerError(
                f"{path}: the ledger has version {row and row[0]}, this program reads version "
                f"{LEDGER_VERSION}; use the version of pytest-celery-manifest that wrote it"
            )
        return cls(path, db)

    def close(self) -> None:
        self._db.close()

    def compact(self) -> None:
        """Bring everything into the one file, so that a copy of it is whole."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside is committed together, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # What the run is

    def info(self) -> RunInfo:
        values = dict(self._db.execute("SELECT key, value FROM run").fetchall())
        return RunInfo(
            run=values["run"],
            manifest=Path(values["manifest"]),
            sha256=values["sha256"],
            workflow=values.get("workflow"),
            mode=values.get("mode"),
            entries=int(values["entries"]),
            created_at=datetime.fromisoformat(values["created_at"]),
            broker=values["broker"],
            backend=values["backend"],
            owned=values["owned"] == "1",
            stream_ttl=int(values["stream_ttl"]),
        )

    @property
    def status(self) -> RunStatus:
        row = self._db.execute("SELECT value FROM run WHERE key = 'status'").fetchone()
        value = row[0]
        if value not in get_args(RunStatus):
            raise LedgerError(f"{self.path}: the ledger holds an unknown run status {value!r}")
        return value  # type: ignore[no-any-return]  # checked against the literal's values above

    def set_status(self, status: RunStatus) -> None:
        self.note("status", status)

    def note(self, key: str, value: str) -> None:
        """Keep a fact about the run, such as the position in its receipts stream."""
        self._db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    # Sending

    def plan(self, rows: Iterable[tuple[str, str, int, int]]) -> None:
        """Record ``(task_id, entry, attempt, ordinal)`` of everything that is to be sent."""
        self._db.executemany(
            "INSERT INTO attempts (task_id, entry, attempt, ordinal, state) "
            "VALUES (?, ?, ?, ?, 'planned')",
            rows,
        )

    def mark(
        self,
        task_ids: Iterable[str],
        state: SendState,
        *,
        sent_at: datetime | None = None,
        note: str | None = None,
    ) -> None:
        """Set the sending state of attempts; ``sent_at`` and ``note`` are kept where not given."""
        moment = _text(sent_at)
        self._db.executemany(
            "UPDATE attempts SET state = ?, sent_at = coalesce(?, sent_at), "
            "note = coalesce(?, note) WHERE task_id = ?",
            ((state, moment, note, task_id) for task_id in task_ids),
        )

    def attempts(self, *, unsettled: bool = False) -> Iterator[AttemptRow]:
        """All attempts in the manifest's order, or those of entries that have no final verdict."""
        query = _UNSETTLED if unsettled else _ATTEMPTS
        for task_id, entry, attempt, ordinal, state, sent_at, note in self._db.execute(query):
            yield AttemptRow(task_id, entry, attempt, ordinal, state, _moment(sent_at), note)

    def has_unsettled(self) -> bool:
        """Whether some entry has no final verdict."""
        return self._db.execute(_UNSETTLED).fetchone() is not None

    def send_states(self) -> Mapping[str, int]:
        """How many attempts are in each sending state."""
        return dict(self._db.execute("SELECT state, count(*) FROM attempts GROUP BY state"))

    # Starts and receipts

    def add_starts(self, starts: Iterable[Start]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO starts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    s.task_id,
                    s.execution,
                    _text(s.started_at),
                    s.retries,
                    s.worker,
                    s.host,
                    s.pid,
                    int(s.redelivered),
                )
                for s in starts
            ),
        )

    def starts(self, task_id: str) -> list[Start]:
        """Every execution of an attempt that a worker began, oldest first."""
        rows = self._db.execute(
            "SELECT task_id, execution, started_at, retries, worker, host, pid, redelivered "
            "FROM starts WHERE task_id = ? ORDER BY started_at",
            (task_id,),
        )
        return [Start(r[0], r[1], _moment(r[2]), r[3], r[4], r[5], r[6], bool(r[7])) for r in rows]

    def add_receipts(self, receipts: Iterable[tuple[str, str | None, Receipt]]) -> None:
        """Keep ``(task_id, execution, receipt)`` as they arrived, second ones too."""
        now = _text(utc_now())
        self._db.executemany(
            "INSERT INTO receipts (task_id, execution, receipt, arrived_at) VALUES (?, ?, ?, ?)",
            ((task_id, execution, r.model_dump_json(), now) for task_id, execution, r in receipts),
        )

    # Verdicts

    def settle(self, verdicts: Iterable[tuple[Verdict, Receipt | None]]) -> None:
        """Record the verdicts of entries; an earlier verdict of the same entry is replaced."""
        now = _text(utc_now())
        self._db.executemany(
            "INSERT OR REPLACE INTO settled (entry, attempt, kind, verdict, receipt, settled_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    v.entry,
                    v.attempt,
                    v.verdict,
                    v.model_dump_json(),
                    None if r is None else r.model_dump_json(),
                    now,
                )
                for v, r in verdicts
            ),
        )

    def reopen(self) -> None:
        """Take back the verdicts that a new look at the stack may change."""
        self._db.execute("DELETE FROM settled WHERE kind IN ('pending', 'unknown')")

    def settled_since(self, seq: int) -> list[tuple[int, str]]:
        """``(seq, entry)`` of what settled after ``seq``, in order."""
        rows = self._db.execute("SELECT seq, entry FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        return [(int(row[0]), str(row[1])) for row in rows]

    def settled(self, entry: str) -> Settled | None:
        row = self._db.execute(
            "SELECT seq, verdict, receipt FROM settled WHERE entry = ?", (entry,)
        ).fetchone()
        return None if row is None else _settled(row)

    def all_settled(self) -> Iterator[Settled]:
        """Every entry's verdict and receipt, in the manifest's order."""
        for row in self._db.execute(
            "SELECT s.seq, s.verdict, s.receipt FROM settled s "
            "LEFT JOIN attempts a ON a.entry = s.entry AND a.attempt = coalesce(s.attempt, 1) "
            "ORDER BY a.ordinal"
        ):
            yield _settled(row)

    def verdict_counts(self) -> Mapping[str, int]:
        return dict(self._db.execute("SELECT kind, count(*) FROM settled GROUP BY kind"))


def find_runs(folder: Path, sha256: str) -> list[Path]:
    """Ledgers in ``folder`` of runs of the manifest with this digest, oldest first."""
    found: list[tuple[str, Path]] = []
    for path in sorted(folder.glob("*.sqlite")):
        with suppress(LedgerError), Ledger.open(path) as ledger:
            # One of another version, or cut off at birth, is passed over: it is no run of this.
            if ledger.noted("sha256") == sha256:
                found.append((ledger.noted("created_at") or "", path))
    return [path for _, path in sorted(found)]


def _refuse_network(folder: Path) -> None:
    kind = file_system(folder)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise LedgerError(
            f"{folder}: lies on a network file system ({kind}), where a ledger is not safe; "
            "name a local folder with the ini option manifest_dir"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system a folder lies on; "" where the system does not tell."""
    if not mounts.is_file():
        return ""
    place = folder.resolve()
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    around = [row for row in rows if place.is_relative_to(row[1].replace("\\040", " "))]
    return max(around, key=lambda row: len(row[1]))[2] if around else ""


def _connect(path: Path, mode: Literal["rw", "ro"] = "rw") -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30)
    db.isolation_level = None
    if mode == "rw":
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    return db


def _settled(row: Sequence[str]) -> Settled:
    receipt = None if row[2] is None else Receipt.model_validate_json(row[2])
    return Settled(int(row[0]), Verdict.model_validate_json(row[1]), receipt)


def _info_rows(info: RunInfo) -> list[tuple[str, str]]:
    rows = {
        "ledger": str(LEDGER_VERSION),
        "status": "running",
        "run": info.run,
        "manifest": str(info.manifest),
        "sha256": info.sha256,
        "workflow": info.workflow,
        "mode": info.mode,
        "entries": str(info.entries),
        "created_at": info.created_at.isoformat(),
        "broker": info.broker,
        "backend": info.backend,
        "owned": "1" if info.owned else "0",
        "stream_ttl": str(info.stream_ttl),
    }
    return [(key, value) for key, value in rows.items() if value is not None]
