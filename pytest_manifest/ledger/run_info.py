"""Keep a run's metadata: its description, status and segments, and which records may be missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, get_args

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.tables import RUN
from pytest_manifest.manifest import Shard
from pytest_manifest.redaction.texts import SHORTEST_SECRET, manifest_secret
from pytest_manifest.schema.tracing import RunTrace
from pytest_manifest.schema.wire import RUN8_LENGTH

SHARD: Final = "shard"
"""The column of a run's shard, its note; empty where it has the whole manifest."""
KEY_LIMITS: Final = "key_limits"
"""The column of the limits of keys, a JSON object; empty where there are none."""
_OWN: Final = f"SELECT {', '.join(RUN)} FROM run WHERE n = 1"  # noqa: S608 - fixed text
_OF_RUN: Final = f"SELECT {', '.join(RUN)} FROM run WHERE id = ? ORDER BY n DESC LIMIT 1"  # noqa: S608 - fixed text
_SEGMENTS: Final = """
    SELECT started, stopped FROM segments
    WHERE run = coalesce((SELECT max(n) FROM run WHERE id = ?), 1) ORDER BY n
"""


def key_of(key: str, run: str) -> str:
    """Return the key under which a merged ledger has what is known of one of its runs."""
    return f"{key}:{run}"


def _place(key: str) -> tuple[str, str, list[str]]:
    """Return the column of a key, which row has it, and the values of that condition."""
    column, _, run = key.partition(":")
    return (column, "id = ? AND n > 1", [run]) if run else (column, "n = 1", [])


def setting(key: str, value: str | int | None) -> tuple[str, list[str | int | float | None]]:
    """Return the statement that sets a column of ``run``, and its values."""
    column, which, run = _place(key)
    given: str | int | float | None = value
    if isinstance(value, str) and RUN[column] != "TEXT":
        given = (int if RUN[column] == "INTEGER" else float)(value) if value else None
    return f"UPDATE run SET {column} = ? WHERE {which}", [given, *run]  # noqa: S608 - names of the table


class RunMetadata(LedgerPart):
    """The run's metadata: its description, its status, its manifest's digest."""

    def read(self) -> rows.RunInfo:
        with self._db.parse_errors():
            return rows.info_of(self._row(_OWN))

    def read_run(self, run: str) -> rows.RunInfo:
        """Return the description of one of the runs whose attempts the ledger has."""
        own, found = self._row(_OWN), self._row(_OF_RUN, (run,))
        described = {key: found[key] for key in DESCRIBED if found and found[key] is not None}
        with self._db.parse_errors():
            return rows.info_of(own | described | {"id": run})

    def _row(self, query: str, values: Sequence[str] = ()) -> dict[str, object]:
        row = self._db.read_one(query, values)
        return {} if row is None else dict(zip(RUN, row, strict=True))

    def hide_secrets(self) -> None:
        """Hide in this process what was registered as a secret of this run."""
        for secret in self.texts(SECRETS):
            if len(secret) >= SHORTEST_SECRET:
                manifest_secret(secret)

    @property
    def status(self) -> rows.RunStatus:
        value = self.get_meta("status")
        if value not in get_args(rows.RunStatus):
            raise LedgerError(f"{self._db.path}: the ledger holds an unknown run status {value!r}")
        return value  # type: ignore[return-value]  # checked against the literal's values above

    def set_status(self, status: rows.RunStatus) -> None:
        self.set_meta("status", status)

    def set_meta(self, key: str, value: str) -> None:
        """Set a column of the run, such as the position in its receipts stream.

        Or of one of those that it was merged of, by its :func:`key_of`.
        """
        with self._db.writing() as db:
            db.execute(*setting(key, value))

    def get_meta(self, key: str) -> str | None:
        column, which, run = _place(key)
        query = f"SELECT {column} FROM run WHERE {column} IS NOT NULL AND {which}"  # noqa: S608 - a name of the table
        row = self._db.read_one(query, run)
        return None if row is None else str(row[0])

    def of_run(self, key: str, run: str | None = None) -> str | None:
        """Return what is known under a key of one of the runs whose attempts the ledger has.

        A merged ledger has it of each run; of all others it is the ledger's own. Without ``run``
        what is known of any of them.
        """
        keys = [key_of(key, one) for one in (self.merged() if run is None else (run,))]
        found = map(self.get_meta, [*keys, key])
        return next((value for value in found if value is not None), None)

    def segments(self, run: str = "") -> list[rows.RunSegment]:
        """Return the segments of time in which the run was worked on, oldest first.

        ``run``: one of those whose attempts the ledger has; without, those of the whole.
        """

        def made(row: rows.Row) -> rows.RunSegment:
            return rows.RunSegment(datetime.fromisoformat(row[0]), rows.moment(row[1]))

        return list(self._db.build_each(made, _SEGMENTS, (run,)))

    def begin_segment(self, began: datetime) -> None:
        """Record that work on the run begins, for the first time or again."""
        with self._db.writing() as db:
            db.execute("INSERT INTO segments (run, started) VALUES (1, ?)", (rows.text(began),))

    def stop_segment(self, stopped: datetime) -> None:
        """Record that the present segment, and its running jobs, end before all is done."""
        with self._db.writing() as db:
            if not self.segments():
                self.begin_segment(self.read().created_at)
            db.execute(
                "UPDATE segments SET stopped = ? "
                "WHERE n = (SELECT max(n) FROM segments WHERE run = 1)",
                (rows.text(stopped),),
            )

    def all_meta(self) -> dict[str, str]:
        """Return all columns of the run that have a value, by their names."""
        return {key: str(value) for key, value in self._row(_OWN).items() if value is not None}

    def shard(self) -> Shard | None:
        """Return the run's shard of the manifest, None where it has the whole manifest."""
        noted = self.get_meta(SHARD)
        with self._db.parse_errors():
            return None if noted is None else Shard.from_note(noted)

    def merged(self) -> Sequence[str]:
        """Return the ids of the runs that this one was merged of; none for a dispatched run."""
        query = "SELECT id FROM run WHERE n > 1 ORDER BY n"
        return list(self._db.build_each(lambda row: rows.identifier(row[0]), query))

    def reused_runs(self) -> frozenset[str]:
        """Return the ids of the runs that attempts were reused from; none for most runs."""
        with self._db.parse_errors():
            return frozenset(map(rows.identifier, self.texts(REUSED_RUNS)))

    def shards(self) -> Sequence[Shard | None]:
        """Return the shards that the run has entries of, None for the whole manifest."""
        query = "SELECT shard FROM run WHERE n > 1 ORDER BY n"

        def made(row: rows.Row) -> Shard | None:
            return None if row[0] is None else Shard.from_note(row[0])

        return list(self._db.build_each(made, query)) or [self.shard()]

    def trace(self) -> RunTrace:
        """Return the trace of the run."""
        info = self.read()
        return RunTrace.noted(info.run, info.entries, self.get_meta(TRACE))

    def task_runs(self) -> TaskRuns:
        """Return what tells the runs whose attempts the ledger has."""
        return TaskRuns(self.read().run, [*self.merged(), *self.reused_runs()])

    def texts(self, key: str) -> frozenset[str]:
        """Return the texts that the JSON list under a key has; none where there is no list."""
        with self._db.parse_errors():
            return frozenset(map(str, json.loads(self.get_meta(key) or "[]")))

    def add_texts(self, key: str, texts: Iterable[str]) -> None:
        """Add texts to those under a key."""
        with self._db.writing():
            before = self.texts(key)
            after = before.union(texts)
            if after != before:
                self.set_meta(key, json.dumps(sorted(after)))

    def set_key_limits(self, limits: Mapping[str, int]) -> None:
        """Record how many jobs may be in flight of each value of a key, by the key's name."""
        self.set_meta(KEY_LIMITS, json.dumps(dict(sorted(limits.items()))))

    def key_limits(self) -> Mapping[str, int]:
        """Return what :meth:`set_key_limits` has recorded last; nothing where it never has."""
        with self._db.parse_errors():
            noted = json.loads(self.get_meta(KEY_LIMITS) or "{}")
            return {str(name): int(most) for name, most in noted.items()}

    def sent_on_request(self) -> frozenset[str]:
        """Return the task ids of attempts that the user had sent though one may have run."""
        return frozenset(
            str(row[0]) for row in self._db.read("SELECT id FROM jobs WHERE asked_for")
        )

    def add_sent_on_request(self, task_ids: Iterable[str]) -> None:
        """Record attempts that the user has sent though one before them may have run."""
        with self._db.writing() as db:
            db.executemany(
                "UPDATE jobs SET asked_for = 1 WHERE id = ?", ((one,) for one in task_ids)
            )


RECEIPT_KEYS: Final = "receipt_keys"
"""The column of the public keys that receipts must be signed by, as PEM."""
SECRETS: Final = "secrets"
"""The column of the values that were registered as secrets, a JSON list."""
REUSED_RUNS: Final = "reused_runs"
"""The column of the runs that attempts were reused from: their ids, JSON."""
TO_REUSE: Final = "to_reuse"
"""The column of the runs that attempts are to be reused from; empty once that is done."""
ACCEPTED: Final = "accepted"
"""The column of risks that the settings accept, in sentences, a JSON list."""
TRACE: Final = "trace"
"""The column of what trace the run is part of; see ``schema.tracing.trace_note``."""
UNITED_KEYS: Final = (
    SECRETS,
    REUSED_RUNS,
    ACCEPTED,
)
"""Keys of lists of texts; a merged ledger has the texts of all its runs."""
DESCRIBED: Final = ("created_at", "is_private", "broker", "backend", "stream_ttl")
"""Keys of a run's description that its jobs are judged by."""


class TaskRuns:
    """The runs whose attempts a ledger has: its own, and those that it has attempts of."""

    def __init__(self, run: str, others: Iterable[str]) -> None:
        self._run = run
        self._others = {one[-RUN8_LENGTH:]: one for one in others}

    def run_of(self, task_id: str) -> str:
        """Return the id of the run that sent an attempt; else the ledger's own run.

        A run's task ids begin with the last characters of its id.
        """
        return self._others.get(task_id[:RUN8_LENGTH], self._run)
