"""The tables of a ledger, and the views by which they are read; ``docs/reference/ledger.md``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Final

from pytest_manifest.schema.facts import Kind

LEDGER_VERSION: Final = 1
_NUMBERS: Final = "ledger seq entries is_private stream_ttl number takes_one unsent"
_TEXTS: Final = """
    id status manifest sha256 workflow mode created_at broker backend shard reused_runs
    receipt_keys worker_processes accepted clock key_limits over_budget secrets
    stream_position stack_data to_reuse trace celery
"""
RUN: Final = {
    **dict.fromkeys(_NUMBERS.split(), "INTEGER"),
    **dict.fromkeys(_TEXTS.split(), "TEXT"),
    "budget": "REAL",
}
"""The columns of ``run`` with their types. The ledger's own run is number 1; those that were merged
into it follow."""

RARE: Final = f"kind NOT IN ({Kind.STARTED:d}, {Kind.ENDED:d}, {Kind.STORED:d})"
"""Of which facts the kind is in an index: a query has to say this of what it looks for, too."""

TABLES: Final[Sequence[str]] = (
    f"""
    CREATE TABLE run (
        n INTEGER PRIMARY KEY, {", ".join(f"{name} {kind}" for name, kind in RUN.items())}
    )
    """,
    """
    CREATE TABLE segments (
        n INTEGER PRIMARY KEY, run INTEGER NOT NULL, started TEXT NOT NULL, stopped TEXT
    )
    """,
    # An entry's number is that of its first job, and stands in all of its jobs. What is only named,
    # as what was announced and is looked for, has neither an attempt's number nor a parent.
    """
    CREATE TABLE jobs (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, entry INTEGER NOT NULL,
        run INTEGER NOT NULL DEFAULT 1, seq INTEGER NOT NULL DEFAULT 0,
        name TEXT, attempt INTEGER, position INTEGER, cause TEXT, reason TEXT,
        asked_for INTEGER NOT NULL DEFAULT 0, state TEXT, sending INTEGER NOT NULL DEFAULT 0,
        sent_at TEXT, note TEXT, reused_from TEXT,
        root INTEGER, parent TEXT, task TEXT, how TEXT, queue TEXT, fulfils TEXT, spawned_at TEXT,
        chords TEXT, due TEXT, broker TEXT, status TEXT, verdict TEXT
    )
    """,
    "CREATE INDEX jobs_by_name ON jobs (name, attempt) WHERE name IS NOT NULL",
    "CREATE INDEX jobs_by_entry ON jobs (entry)",
    # Who follows a run finds by it what was sent since; the last number comes last.
    "CREATE INDEX jobs_by_sending ON jobs (sending) WHERE sending > 0",
    "CREATE INDEX jobs_by_root ON jobs (root, status) WHERE root IS NOT NULL",
    # aside: what did not count when it was reported, or contradicts what had been.
    """
    CREATE TABLE facts (
        seq INTEGER PRIMARY KEY, run INTEGER NOT NULL, job INTEGER NOT NULL, kind INTEGER NOT NULL,
        at INTEGER NOT NULL, source INTEGER NOT NULL, aside INTEGER NOT NULL DEFAULT 0,
        execution TEXT, hop INTEGER, retries INTEGER, redelivered INTEGER, worker TEXT,
        pid INTEGER, host TEXT, boot TEXT, namespace TEXT, started_at TEXT, how TEXT,
        receipt TEXT, data TEXT
    )
    """,
    "CREATE INDEX facts_by_job ON facts (job)",
    f"CREATE INDEX facts_by_kind ON facts (kind) WHERE {RARE}",
    # alone: on an attempt that another one follows; the entry has none by it.
    """
    CREATE TABLE verdicts (
        seq INTEGER PRIMARY KEY, entry INTEGER NOT NULL, job INTEGER NOT NULL,
        alone INTEGER NOT NULL DEFAULT 0, status TEXT, at INTEGER NOT NULL, corrects INTEGER,
        "end" INTEGER, added TEXT, verdict TEXT
    )
    """,
    "CREATE INDEX verdicts_by_entry ON verdicts (entry)",
    # What operators ask for, from processes of their own: its numbers are no part of the order.
    """
    CREATE TABLE commands (
        n INTEGER PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, action TEXT NOT NULL,
        reason TEXT NOT NULL, data TEXT NOT NULL, answered_at INTEGER, answer TEXT
    )
    """,
)

_TIME: Final = "strftime('%Y-%m-%dT%H:%M:%f+00:00', {} / 1e6, 'unixepoch')"
_LATER: Final = "SELECT 1 FROM verdicts w WHERE w.entry = v.entry AND NOT w.alone AND w.seq > v.seq"
RECEIPT: Final = """CASE WHEN v.added IS NULL THEN f.receipt WHEN v."end" IS NULL THEN v.added
            ELSE json_patch(f.receipt, v.added) END"""
"""The receipt of a verdict ``v`` whose end is the fact ``f``."""
PRESENT: Final = """(
        SELECT w.seq FROM verdicts w WHERE w.entry = {} AND NOT w.alone ORDER BY w.seq DESC LIMIT 1
    )"""
"""The last verdict of an entry, by its number; one without a status is taken up again."""
VIEWS: Final[Sequence[str]] = (
    f"""
    CREATE VIEW settled AS SELECT v.seq, a.name AS entry, a.attempt, v.status AS kind, v.verdict,
        {RECEIPT} AS receipt, v.at, {_TIME.format("v.at")} AS settled_at, v.entry AS number, v.job,
        v."end", v.added
    FROM verdicts v JOIN jobs a ON a.n = v.job AND a.entry = v.entry AND a.name IS NOT NULL
    LEFT JOIN facts f ON f.seq = v."end"
    WHERE NOT v.alone AND v.status IS NOT NULL AND NOT EXISTS ({_LATER})
    """,  # noqa: S608 - fixed text
    """
    CREATE VIEW attempts AS SELECT a.n, a.id AS task_id, a.name AS entry, a.attempt,
        a.position AS ordinal, a.state, a.sent_at, a.note, a.reason, a.cause, a.reused_from, a.seq,
        a.sending, a.asked_for, a.entry AS number
    FROM jobs a WHERE a.name IS NOT NULL
    """,
    f"""
    CREATE VIEW starts AS SELECT f.seq, j.id AS task_id, f.execution, f.started_at, f.retries,
        f.worker, f.host, f.pid, f.redelivered, f.boot, f.namespace, f.hop, f.job, f.at
    FROM facts f JOIN jobs j ON j.n = f.job WHERE f.kind = {Kind.STARTED:d} AND NOT f.aside
    """,  # noqa: S608 - fixed text
    f"""
    CREATE VIEW receipts AS SELECT f.seq, j.id AS task_id, f.execution, f.receipt,
        f.at AS arrived_at, f.job, (
            SELECT max(b.attempt) FROM jobs b
            WHERE b.entry = j.entry AND b.name IS NOT NULL AND b.seq < f.seq
        ) AS newest_attempt, EXISTS (
            SELECT 1 FROM verdicts v WHERE v.entry = j.entry AND NOT v.alone AND v.seq < f.seq
                AND v.status IS NOT NULL AND NOT EXISTS ({_LATER} AND w.seq < f.seq)
        ) AS after_verdict
    FROM facts f JOIN jobs j ON j.n = f.job
    WHERE f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d}) AND f.receipt IS NOT NULL AND (
        NOT f.aside OR EXISTS (
            SELECT 1 FROM verdicts v WHERE v.entry = j.entry AND v."end" = f.seq
        )
    )
    """,  # noqa: S608 - fixed text
    """
    CREATE VIEW descendants AS SELECT d.id AS task_id, r.id AS root, d.parent, d.task, d.how,
        d.queue, d.fulfils, d.spawned_at, d.status AS kind, d.verdict, d.chords, d.due, d.broker,
        d.seq, d.n
    FROM jobs d JOIN jobs r ON r.n = d.root WHERE d.root IS NOT NULL AND d.how IS NOT NULL
    """,
    # For other people's SQL: docs/reference/ledger.md has their columns.
    """
    CREATE VIEW v_entries AS SELECT s.entry, a.position, r.id AS run, s.kind AS status,
        json_extract(s.verdict, '$.reason.code') AS code, s.attempt, (
            SELECT count(*) FROM jobs b WHERE b.name = s.entry AND b.state <> 'reused'
        ) AS attempts, s.settled_at AS judged_at,
        s.seq, s.verdict, s.receipt
    FROM settled s JOIN jobs a ON a.n = s.job JOIN run r ON r.n = a.run
    """,
    f"""
    CREATE VIEW v_attempts AS SELECT a.name AS entry, a.attempt, a.id AS task_id, r.id AS run,
        a.state, a.cause AS why, a.asked_for, a.sent_at, v.status,
        json_extract(v.verdict, '$.reason.code') AS code, (
            SELECT count(*) FROM facts f WHERE f.job = a.n AND f.kind = {Kind.STARTED:d}
                AND NOT f.aside
        ) AS starts, (
            SELECT count(*) FROM jobs d WHERE d.root = a.n AND d.how IS NOT NULL
        ) AS descendants
    FROM jobs a JOIN run r ON r.n = a.run LEFT JOIN verdicts v ON v.seq = (
        SELECT max(w.seq) FROM verdicts w
        WHERE w.entry = a.entry AND w.job = a.n AND w.status IS NOT NULL
    ) WHERE a.name IS NOT NULL
    """,  # noqa: S608 - fixed text
    """
    CREATE VIEW v_causes AS SELECT s.entry, s.kind AS status,
        json_extract(s.verdict, '$.reason.code') AS code,
        json_extract(s.receipt, '$.error.type') AS error,
        json_extract(m.value, '$.path') AS path
    FROM settled s
    LEFT JOIN json_each(coalesce(json_extract(s.verdict, '$.mismatches'), '[]')) m
    WHERE s.kind <> 'passed'
    """,
)


@lru_cache(maxsize=1)
def type_queries() -> Mapping[str, str]:
    """Return, for each table, a query for a value that is not of its column's type.

    SQLite keeps values of any type in any column. What is found is the column's name.
    """
    found = {}
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in TABLES:
            db.execute(statement)
        tables = [str(row[0]) for row in db.execute(_TABLE_NAMES)]
        for table in tables:
            columns = db.execute(f"PRAGMA table_info({table})").fetchall()
            tests = [
                (name, f"typeof(\"{name}\") NOT IN ('{kind.lower()}'{'' if needed else _OR_NULL})")
                for _, name, kind, needed, _, _ in columns
            ]
            which = " ".join(f"WHEN {test} THEN '{name}'" for name, test in tests)
            where = " OR ".join(test for _, test in tests)
            found[table] = f"SELECT CASE {which} END FROM {table} WHERE {where} LIMIT 1"  # noqa: S608 - fixed text
    return found


_TABLE_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
_OR_NULL = ", 'null'"


def version_of(db: sqlite3.Connection) -> str | None:
    """Return the version that a ledger states, None where it states none.

    Raises sqlite3.Error where the file is no ledger.
    """
    row = db.execute("SELECT ledger FROM run WHERE n = 1").fetchone()
    return None if row is None else str(row[0])
