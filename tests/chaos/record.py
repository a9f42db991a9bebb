"""What a run left behind, read without any code of the plugin: its ledger and JUnit file."""

from __future__ import annotations

import json
import re
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.ledger_edits import make_readable

# An entry is lost, too, where one of its descendants is: its own message was not, then.
OWN = """
    CASE WHEN json_extract({0}, '$.mismatches[0].path') IS 'descendants'
    THEN 'as its descendant' ELSE {1} END
"""
ATTEMPTS = f"""
    SELECT task_id, entry, attempt, state, {OWN.format("verdict", "kind")} FROM (
        SELECT a.task_id, a.entry, a.attempt, a.state,
            coalesce(v.status, replace(b.reason, 'lost in flight', 'unknown')) AS kind, v.verdict
        FROM attempts a LEFT JOIN verdicts v ON v.seq = (
            SELECT max(seq) FROM verdicts w WHERE w.job = a.n AND w.status IS NOT NULL
        )
        LEFT JOIN attempts b ON b.entry = a.entry AND b.attempt = a.attempt + 1
    )
"""
"""An attempt that was sent again without a verdict is called what that was done for: lost where no
worker had begun it; of what was begun and lost in flight nobody says how far it came."""
TOLD = f"""
    SELECT entry, attempt, was, told_at FROM corrections UNION ALL
    SELECT entry, attempt, {OWN.format("verdict", "kind")}, settled_at FROM settled
"""
DESCENDANTS = """
    SELECT d.task_id, a.entry, d.kind, d.root FROM descendants d
    JOIN attempts a ON a.task_id = d.root
"""


@dataclass(frozen=True, slots=True)
class Told:
    """An entry's verdict; ``at`` is the wall clock, in seconds."""

    kind: str
    sentence: str
    at: float


def read_verdicts(ledgers: Iterable[Path]) -> dict[str, Told]:
    """The verdicts of all runs by entry; a later run's replaces an earlier one's."""
    found: dict[str, Told] = {}
    for path in ledgers:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT entry, kind, verdict, settled_at FROM settled ORDER BY seq")
            for entry, kind, verdict, settled_at in rows:
                at = datetime.fromisoformat(settled_at).timestamp()
                found[entry] = Told(kind, str(json.loads(verdict)["sentence"]), at)
    return found


@dataclass(frozen=True, slots=True)
class Announced:
    """What a worker said right before it began a job; ``at`` is the wall clock, in seconds."""

    entry: str
    task_id: str
    pid: int
    at: float


def read_starts(ledgers: Iterable[Path]) -> list[Announced]:
    """Every start that workers announced, of all runs, where they gave its time and process.

    Those of what an entry's job has started are the entry's.
    """
    query = (
        "SELECT entry, s.task_id, pid, started_at FROM starts s "
        "LEFT JOIN descendants d ON d.task_id = s.task_id "
        "JOIN attempts a ON a.task_id = coalesce(d.root, s.task_id) "
        "WHERE pid IS NOT NULL AND started_at IS NOT NULL"
    )
    found: list[Announced] = []
    for path in ledgers:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            found += [
                Announced(entry, task_id, pid, datetime.fromisoformat(at).timestamp())
                for entry, task_id, pid, at in db.execute(query)
            ]
    return found


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that a ledger knows of, an attempt's or a descendant's.

    ``kind``: what became of it by the newest verdict, "" where nobody said; ``told``: all that it
    was ever called, by the wall clock (s); ``state``: the attempt's, "sent" for a descendant's;
    ``root``: the attempt whose job has started a descendant, "" for an attempt itself.
    """

    task_id: str
    entry: str
    state: str
    kind: str
    told: Mapping[str, float] = field(default_factory=dict)
    root: str = ""


def read_sendings(ledgers: Iterable[Path]) -> list[Sending]:
    """Every message of all runs, whether it left or not."""
    found: list[Sending] = []
    for path in ledgers:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            told: dict[tuple[str, int], dict[str, float]] = {}
            make_readable(db)
            for entry, attempt, kind, at in db.execute(TOLD):
                told.setdefault((entry, attempt), {})[kind] = datetime.fromisoformat(at).timestamp()
            found += [
                Sending(task_id, entry, state, kind or "", told.get((entry, attempt), {}))
                for task_id, entry, attempt, state, kind in db.execute(ATTEMPTS)
            ]
            found += [
                Sending(task_id, entry, "sent", kind or "", root=root)
                for task_id, entry, kind, root in db.execute(DESCENDANTS)
            ]
    return found


def outcome_of(kind: str) -> str:
    """How a report must show a verdict: what could not be told is an error, never a failure."""
    if kind == "passed":
        return kind
    if kind in ("skipped", "cancelled", "withdrawn"):
        return "skipped"
    return "error" if kind in ("lost", "unknown", "pending") else "failed"


def read_outcomes(junit: Path) -> dict[str, str]:
    """What the JUnit file shows of each entry: passed, failed, error or skipped."""
    if not junit.exists():
        return {}
    found: dict[str, str] = {}
    for case in ET.parse(junit).getroot().iter("testcase"):
        match = re.fullmatch(r"entry\[(.+)\]", case.get("name", ""))
        if match is not None:
            tags = {child.tag for child in case}
            shown = next((tag for tag in ("failure", "error", "skipped") if tag in tags), "passed")
            found[match.group(1)] = "failed" if shown == "failure" else shown
    return found
