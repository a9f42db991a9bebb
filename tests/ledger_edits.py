"""Edit a ledger as by hand: make its views take INSERT, UPDATE and DELETE, in one connection.

The tables' own columns are named here alone. A view is edited as what it shows: a receipt that is
deleted is gone from the facts, and a correction that is added is a verdict before the present one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.facts import Kind

_NAMED: Final = """
    INSERT INTO jobs (id, entry)
    SELECT NEW.task_id, 0 WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = NEW.task_id);
"""
_FIRST: Final = "(SELECT min(0, coalesce(min(seq), 0)) - 1 FROM facts)"
"""A number before all others: what is added by hand was there when all else came."""
_NEXT: Final = (
    "(SELECT 1 + max(coalesce((SELECT max(seq) FROM facts), 0), "
    "coalesce((SELECT max(seq) FROM verdicts), 0)))"
)
_JOB: Final = "(SELECT n FROM jobs WHERE id = NEW.task_id)"
_NUMBER: Final = """coalesce(
    (SELECT entry FROM jobs WHERE name = NEW.entry LIMIT 1), (SELECT 1 + max(n) FROM jobs)
)"""
_KIND: Final = (
    f"CASE WHEN coalesce(json_extract(NEW.receipt, '$.source'), 'worker') = 'worker' "
    f"THEN {Kind.ENDED:d} ELSE {Kind.STORED:d} END"
)
_CHANGED: Final = """(
    SELECT json_patch(coalesce(OLD.added, '{}'), json_group_object(n.key, CASE
        WHEN n.type IN ('object', 'array') THEN json(n.value)
        WHEN n.type IN ('true', 'false') THEN json(n.type) ELSE n.value END))
    FROM json_each(NEW.receipt) n LEFT JOIN json_each(coalesce(OLD.receipt, '{}')) o
        ON o.key = n.key WHERE n.value IS NOT o.value OR n.type IS NOT o.type
)"""
_PRESENT: Final = (
    "(SELECT s.seq FROM settled s WHERE s.entry = NEW.entry AND s.attempt IS NEW.attempt)"
)
_BEFORE: Final = f"""(
    SELECT max(w.seq) FROM verdicts v JOIN verdicts w ON w.job = v.job AND w.seq < v.seq
    WHERE v.seq = {_PRESENT} AND w.status = NEW.was AND w.corrects IS NOT NULL
)"""
"""What an earlier correction of the same entry has made of it."""

VIEWS: Final = (
    f"""
    CREATE TEMP VIEW IF NOT EXISTS handed_on AS SELECT f.seq, j.id AS task_id, f.execution, f.how,
        json_extract(f.data, '$.ended_at') AS ended_at, f.job
    FROM facts f JOIN jobs j ON j.n = f.job WHERE f.kind = {Kind.HANDED_ON:d}
    """,
    f"""
    CREATE TEMP VIEW IF NOT EXISTS announced AS SELECT r.id AS root,
        json_extract(f.data, '$.key') AS "key",
        json_extract(f.data, '$.announcer') AS announcer, f.how,
        json_extract(f.data, '$.task') AS task, json_extract(f.data, '$.number') AS number,
        coalesce(json_extract(f.data, '$.task_ids'), '[]') AS task_ids,
        coalesce(json_extract(f.data, '$.is_off'), 0) AS is_off, f.seq, f.at
    FROM facts f JOIN jobs r ON r.n = f.job WHERE f.kind = {Kind.ANNOUNCED:d}
    """,
    """
    CREATE TEMP VIEW IF NOT EXISTS corrections AS SELECT v.seq, a.name AS entry, a.attempt,
        w.status AS was, v.status AS kind,
        strftime('%Y-%m-%dT%H:%M:%f+00:00', w.at / 1e6, 'unixepoch') AS told_at,
        v.at AS corrected_at
    FROM verdicts v JOIN verdicts w ON w.seq = v.corrects JOIN jobs a ON a.n = v.job
    """,
)
"""What tests read and edit as tables, and the package does not."""

EDITS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "starts",
        "INSERT",
        f"""{_NAMED} INSERT INTO facts (seq, run, job, kind, at, source, execution, started_at,
            retries, worker, host, pid, redelivered, boot, namespace, hop)
        VALUES ({_FIRST}, 1, {_JOB}, {Kind.STARTED:d}, 0, 2, NEW.execution, NEW.started_at,
            NEW.retries, NEW.worker, NEW.host, NEW.pid, coalesce(NEW.redelivered, 0), NEW.boot,
            NEW.namespace, coalesce(NEW.hop, 0));""",
    ),
    (
        "starts",
        "UPDATE",
        f"""UPDATE facts SET job = {_JOB}, execution = NEW.execution, started_at = NEW.started_at,
            retries = NEW.retries, worker = NEW.worker, host = NEW.host, pid = NEW.pid,
            redelivered = NEW.redelivered, hop = NEW.hop WHERE seq = OLD.seq;""",
    ),
    ("starts", "DELETE", "DELETE FROM facts WHERE seq = OLD.seq;"),
    (
        "handed_on",
        "INSERT",
        f"""{_NAMED} INSERT INTO facts (seq, run, job, kind, at, source, execution, how, data)
        VALUES ({_FIRST}, 1, {_JOB}, {Kind.HANDED_ON:d}, 0, 2, NEW.execution, NEW.how,
            json_object('ended_at', NEW.ended_at));""",
    ),
    (
        "receipts",
        "INSERT",
        f"""{_NAMED} INSERT INTO facts (seq, run, job, kind, at, source, execution, receipt)
        VALUES ({_FIRST}, 1, {_JOB}, {_KIND}, coalesce(NEW.arrived_at, 0), 2, NEW.execution,
            NEW.receipt);""",
    ),
    (
        "receipts",
        "UPDATE",
        f"""UPDATE facts SET receipt = NEW.receipt, kind = {_KIND}, at = NEW.arrived_at,
            execution = NEW.execution
            WHERE seq = OLD.seq;
        UPDATE verdicts SET "end" = {_NEXT} WHERE "end" = OLD.seq
            AND NEW.after_verdict AND NOT OLD.after_verdict;
        UPDATE facts SET seq = {_NEXT} WHERE seq = OLD.seq
            AND NEW.after_verdict AND NOT OLD.after_verdict;""",
    ),
    ("receipts", "DELETE", "DELETE FROM facts WHERE seq = OLD.seq;"),
    (
        "settled",
        "INSERT",
        f"""INSERT INTO verdicts (seq, entry, job, status, at, verdict)
        VALUES ({_NEXT}, -1, -1, NEW.kind, 0, json_set(NEW.verdict, '$.entry', NEW.entry));""",
    ),
    (
        "settled",
        "UPDATE",
        f"""UPDATE verdicts SET status = NEW.kind, verdict = NEW.verdict,
            job = CASE WHEN NEW.attempt IS OLD.attempt AND NEW.entry IS OLD.entry THEN job ELSE
                coalesce((SELECT n FROM jobs WHERE name = NEW.entry AND attempt IS NEW.attempt), -1)
                END,
            entry = CASE WHEN NEW.entry IS OLD.entry THEN entry ELSE
                coalesce((SELECT entry FROM jobs WHERE name = NEW.entry), -1) END,
            "end" = CASE WHEN NEW.receipt IS NULL THEN NULL ELSE "end" END,
            added = CASE WHEN NEW.receipt IS NULL THEN NULL
                WHEN NEW.receipt IS OLD.receipt THEN added ELSE {_CHANGED} END
        WHERE seq = OLD.seq;""",
    ),
    ("settled", "DELETE", "DELETE FROM verdicts WHERE seq = OLD.seq;"),
    (
        "attempts",
        "INSERT",
        f"""INSERT INTO jobs (id, name, attempt, position, state, sent_at, note, reason,
            reused_from, entry)
        VALUES (NEW.task_id, NEW.entry, NEW.attempt, NEW.ordinal, NEW.state, NEW.sent_at, NEW.note,
            NEW.reason, NEW.reused_from, {_NUMBER});""",
    ),
    (
        "attempts",
        "UPDATE",
        """UPDATE jobs SET id = NEW.task_id, name = NEW.entry, attempt = NEW.attempt,
            position = NEW.ordinal, state = NEW.state, sent_at = NEW.sent_at, note = NEW.note,
            reason = NEW.reason, reused_from = NEW.reused_from
        WHERE n = OLD.n;""",
    ),
    (
        "attempts",
        "DELETE",
        """DELETE FROM verdicts WHERE job = OLD.n AND seq NOT IN (SELECT seq FROM settled);
        UPDATE jobs SET name = NULL, attempt = NULL WHERE n = OLD.n;""",
    ),
    (
        "descendants",
        "INSERT",
        """INSERT INTO jobs (id, entry, root, parent, task, how, queue, fulfils, spawned_at, status,
            verdict)
        SELECT NEW.task_id, r.entry, r.n, NEW.parent, NEW.task, NEW.how, NEW.queue, NEW.fulfils,
            NEW.spawned_at, NEW.kind, NEW.verdict FROM jobs r WHERE r.id = NEW.root;""",
    ),
    (
        "descendants",
        "UPDATE",
        """UPDATE jobs SET parent = NEW.parent, how = NEW.how, fulfils = NEW.fulfils,
            task = NEW.task, spawned_at = NEW.spawned_at, status = NEW.kind, verdict = NEW.verdict,
            chords = NEW.chords, due = NEW.due
        WHERE n = OLD.n;""",
    ),
    ("descendants", "DELETE", "UPDATE jobs SET root = NULL, how = NULL WHERE n = OLD.n;"),
    (
        "announced",
        "INSERT",
        f"""INSERT INTO facts (seq, run, job, kind, at, source, how, data)
        SELECT {_FIRST}, 1, n, {Kind.ANNOUNCED:d}, 0, 2, NEW.how, json_object('key', NEW.key,
            'announcer', NEW.announcer, 'task', NEW.task, 'number', NEW.number, 'task_ids',
            json(NEW.task_ids), 'is_off', json(CASE WHEN NEW.is_off THEN 'true' ELSE 'false' END))
        FROM jobs WHERE id = NEW.root;""",
    ),
    (
        "announced",
        "UPDATE",
        """UPDATE facts SET job = (SELECT n FROM jobs WHERE id = NEW.root), data = json_set(data,
            '$.number', NEW.number, '$.task_ids', json(NEW.task_ids), '$.is_off',
            json(CASE WHEN NEW.is_off THEN 'true' ELSE 'false' END))
        WHERE seq = OLD.seq;""",
    ),
    (
        "corrections",
        "INSERT",
        f"""INSERT INTO verdicts (seq, entry, job, at, corrects, verdict)
            SELECT {_NEXT}, -1, -1, 0, -1,
                json_object('entry', NEW.entry, 'attempt', NEW.attempt)
            WHERE {_PRESENT} IS NULL;
        UPDATE verdicts SET seq = seq * 1000 WHERE seq = {_PRESENT};
        INSERT INTO verdicts (seq, entry, job, status, at, verdict)
            SELECT v.seq - 2, v.entry, v.job, NEW.was, 0,
                json_set(v.verdict, '$.verdict', NEW.was)
            FROM verdicts v WHERE v.seq = {_PRESENT} AND {_BEFORE} IS NULL;
        INSERT INTO verdicts (seq, entry, job, status, at, corrects, verdict)
            SELECT v.seq - 1, v.entry, v.job, NEW.kind, 0, coalesce({_BEFORE}, v.seq - 2),
                json_set(v.verdict, '$.verdict', NEW.kind)
            FROM verdicts v WHERE v.seq = {_PRESENT} AND v.status <> NEW.kind;
        UPDATE verdicts SET corrects = coalesce({_BEFORE}, seq - 2)
            WHERE seq = {_PRESENT} AND status = NEW.kind;""",
    ),
)
"""What is done instead of an INSERT, UPDATE or DELETE of a view."""


def make_editable(db: sqlite3.Connection) -> None:
    """Let this connection edit the views of a ledger."""
    make_readable(db)
    for view, how, statements in EDITS:
        of = "temp" if f" {view} AS" in "".join(VIEWS) else "main"
        db.execute(
            f"CREATE TEMP TRIGGER IF NOT EXISTS {how.lower()}_{view} INSTEAD OF {how} "
            f"ON {of}.{view} BEGIN {statements} END"
        )


def make_readable(db: sqlite3.Connection) -> None:
    """Let this connection read what is handed on, announced and corrected as tables."""
    for view in VIEWS:
        db.execute(view)


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """Edit a ledger's file; it is committed at the end."""
    with closing(sqlite3.connect(path)) as db, db:
        make_editable(db)
        yield db


def edit(path: Path, statements: str) -> None:
    """Run statements on a ledger's file."""
    with closing(sqlite3.connect(path)) as db:
        make_editable(db)
        db.executescript(statements)


def add_merged(ledger: Ledger, run: str, **columns: str | int) -> None:
    """Let a ledger be a merged one, of this run too, with these columns."""
    names, marks = ", ".join(["id", *columns]), ", ".join("?" * (1 + len(columns)))
    with ledger.writing() as db:
        db.execute(f"INSERT INTO run ({names}) VALUES ({marks})", [run, *columns.values()])
