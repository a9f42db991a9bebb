"""Reports of workers as tests write them: starts, ends after which a job goes on, and receipts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_manifest.ledger import Ledger, RunInfo, utc_now
from pytest_manifest.ledger.facts import FACT_COLUMNS, end_of, fact_of_row
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.run.connections import NodeFinding
from pytest_manifest.run.fact_log import was_emptied
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.facts import Announced, FactSource, HandedOn, Started
from pytest_manifest.schema.run_facts import (
    JobFact,
    NodeFact,
    PlaceFact,
    RunFact,
    RunOver,
    StoreFact,
)

UNDATED: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""When a report arrived of which that is of no account."""


def run_info(run: str, at: datetime, manifest: Manifest | Path, **fields: Any) -> RunInfo:
    """A run of this manifest on a private stack of no address, but for what is given."""
    known: dict[str, Any] = {"manifest": manifest, "sha256": "0" * 64, "entries": 2}
    if not isinstance(manifest, Path):
        path, sha256 = manifest.path.resolve(), manifest.sha256
        known = {"manifest": path, "sha256": sha256, "entries": len(manifest)}
    known |= dict.fromkeys(("broker", "backend"), fields.pop("url", ""))
    known |= {"workflow": None, "mode": None, "is_private": True, "stream_ttl": 3600}
    return RunInfo(run=run, created_at=at, **known | fields)


def started(
    task_id: str,
    execution: str,
    started_at: datetime | None = None,
    retries: int = 0,
    worker: str | None = "w@h",
    host: str | None = "h",
    pid: int | None = 1,
    redelivered: bool = False,
    boot: str | None = None,
    namespace: str | None = None,
    hop: int = 0,
) -> Started:
    return Started(
        seq=0,
        at=UNDATED,
        source=FactSource.WORKER,
        job=task_id,
        execution=execution,
        started_at=started_at,
        retries=retries,
        hop=hop,
        redelivered=redelivered,
        worker=worker,
        host=host,
        pid=pid,
        boot=boot,
        namespace=namespace,
    )


def handed_on(
    task_id: str,
    execution: str,
    how: str,
    ended_at: datetime | None = None,
    next_at: datetime | None = None,
    cost: float | None = None,
) -> HandedOn:
    return HandedOn(
        seq=0,
        at=UNDATED,
        source=FactSource.WORKER,
        job=task_id,
        execution=execution,
        how=how,
        ended_at=ended_at,
        next_at=next_at,
        cost=cost,
    )


def announced(
    root: str,
    key: str,
    announcer: str,
    how: str,
    task: str,
    number: int,
    task_ids: Sequence[str] = (),
    *,
    is_off: bool = False,
) -> Announced:
    return Announced(
        seq=0,
        at=UNDATED,
        source=FactSource.WORKER,
        job=root,
        key=key,
        announcer=announcer,
        how=how,
        task=task,
        number=number,
        task_ids=tuple(task_ids),
        is_off=is_off,
    )


def add_starts(ledger: Ledger, starts: Iterable[Started], at: datetime | None = None) -> int:
    """Record starts as they arrive now, or then."""
    return ledger.events.add(replace(one, at=at or utc_now()) for one in starts)


def add_receipts(
    ledger: Ledger,
    receipts: Iterable[tuple[str, str | None, Receipt]],
    at: datetime | None = None,
) -> int:
    """Record ``(task_id, execution, receipt)`` as they arrive now, or then."""
    return ledger.events.add(
        end_of(0, at or utc_now(), task_id, receipt, execution)
        for task_id, execution, receipt in receipts
    )


def starts_of(ledger: Ledger, task_id: str) -> list[Started]:
    """Return the starts of a job, without their numbers and when they arrived."""
    return [replace(one, seq=0, at=UNDATED) for one in ledger.events.starts(task_id)]


def starts_by_task(ledger: Ledger) -> dict[str, list[Started]]:
    """Return all starts by task id, oldest first, without their numbers and times of arrival."""
    names = [str(row[0]) for row in ledger.invariants.rows(_STARTED)]
    return {name: starts_of(ledger, name) for name in names}


_STARTED: Final = "SELECT DISTINCT task_id FROM starts ORDER BY task_id"


def tree_counts(ledger: Ledger, root: str | None = None) -> Mapping[VerdictStatus | None, int]:
    """Count the descendants of all attempts, or of one, by status; None: without a verdict."""
    which = "" if root is None else f"WHERE root = '{root}'"
    rows = ledger.invariants.rows(f"SELECT kind, count(*) FROM descendants {which} GROUP BY kind")
    return {kind: int(count) for kind, count in rows}


def note(ledger: Ledger, *facts: NodeFact | StoreFact | RunOver | PlaceFact) -> None:
    """Record facts of the run."""
    ledger.facts.append((None, one) for one in facts)


def node(name: str, what: NodeFinding) -> NodeFact:
    return NodeFact(seq=0, at=UNDATED, name=name, what=what)


EMPTIED: Final = StoreFact(seq=0, at=UNDATED, what="emptied")
GAVE_UP: Final = RunOver(seq=0, at=UNDATED, why="gave_up")


def is_emptied(ledger: Ledger) -> bool:
    return was_emptied(ledger.jobs.run_facts())


def all_receipts(ledger: Ledger) -> list[tuple[str, str | None, Receipt]]:
    """``(task_id, execution, receipt)`` of all receipts in the order of their arrival."""
    query = "SELECT task_id, execution, receipt FROM receipts ORDER BY seq"
    return list(ledger._db.build_each(lambda row: (*row[:2], receipt_of(row[2])), query))


class KeptFact(NamedTuple):
    """A fact, and the entry that it is of; of a fact of a run that is None, and ``run`` its id."""

    entry: str | None
    run: str
    fact: JobFact | RunFact


_FACTS: Final = f"""
    SELECT (
        SELECT e.name FROM jobs e WHERE e.entry = j.entry AND e.name IS NOT NULL LIMIT 1
    ), (SELECT id FROM run WHERE n = f.run AND f.job = 0), coalesce(j.id, ''), {FACT_COLUMNS}
    FROM facts f LEFT JOIN jobs j ON j.n = f.job WHERE f.seq > ? ORDER BY f.seq
"""


def facts_after(ledger: Ledger, seq: int) -> list[KeptFact]:
    """What was recorded after a position, in order."""
    found = ledger._db.build_each(
        lambda row: KeptFact(row[0], row[1], fact_of_row(row[3:], row[2])), _FACTS, (seq,)
    )
    return list(found)


def facts_of(ledger: Ledger, entry: str) -> list[JobFact | RunFact]:
    """The facts of an entry's jobs, in their order."""
    return [one.fact for one in facts_after(ledger, 0) if one.entry == entry]


class NoResults(ResultReader):
    """A result store in which there is nothing."""

    def __init__(self) -> None: ...

    def read(self, task_ids: object) -> dict[str, BackendResult]:
        return {}

    def discard(self, task_ids: object) -> None: ...

    def close(self) -> None: ...
