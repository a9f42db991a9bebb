"""Load entries' jobs with all their facts in one order, and the facts of a run: what a judge takes.

What the ledger's other tables have is made facts of here: an attempt and its only sending, starts,
what was handed on, receipts, descendants and announcements. The rest are rows of ``facts``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, cast
from uuid import NAMESPACE_OID, uuid5

from pytest_manifest.ledger.database import Database, LedgerPart
from pytest_manifest.ledger.facts import FACT_COLUMNS, Facts, fact_of_row
from pytest_manifest.ledger.rows import Row, RunInfo, moment, origin_of
from pytest_manifest.ledger.run_info import RECEIPT_KEYS, RunMetadata, TaskRuns
from pytest_manifest.schema import Receipt, facts
from pytest_manifest.schema.run_facts import (
    JobFact,
    JobFacts,
    RunFact,
    RunFacts,
    SetBack,
    StoreFact,
)

BATCH: Final = 200
"""Entries that are loaded together."""
_ATTEMPTS: Final = """
    SELECT n, id, name, attempt, position, state, sent_at, cause, seq, sending, reused_from,
        asked_for, entry
    FROM jobs WHERE name IN ({}) ORDER BY name, attempt
"""
_OUTCOMES: Final[Mapping[str, facts.SendOutcome | None]] = {
    "sent": "published",
    "withdrawn": "published",
    "reused": "published",
    "uncertain": "uncertain",
    "intent": None,
}
"""The outcome of an attempt's only sending by its state; None: it is not known."""
_FACTS: Final = f"SELECT {FACT_COLUMNS} FROM facts f WHERE f.job IN ({{}}) ORDER BY f.job, f.seq"  # noqa: S608 - fixed text
_TASKS: Final = """
    SELECT d.n, d.seq, d.id, r.id, d.parent, d.task, d.how, d.queue, d.fulfils, d.spawned_at,
        d.chords, d.due
    FROM jobs d LEFT JOIN jobs r ON r.n = d.root
"""
_OF_ROOTS: Final = f"{_TASKS} WHERE d.root IN ({{}}) ORDER BY d.spawned_at, d.id"
_BY_ID: Final = f"{_TASKS} WHERE d.id IN ({{}}) AND d.name IS NULL"
_NAMED: Final = (
    f"{_TASKS} WHERE d.entry IN ({{}}) AND d.name IS NULL AND d.how IS NULL ORDER BY d.n"
)
"""What is only named, as it was announced and is looked for."""
_FIRST_START: Final = f"""
    SELECT f.seq FROM facts f CROSS JOIN jobs j ON j.n = f.job LEFT JOIN jobs r ON r.n = j.root
    WHERE f.kind = {facts.Kind.STARTED:d} AND NOT f.aside
        AND coalesce(r.state, j.state, '') <> 'reused'
"""  # noqa: S608 - fixed text
_OF_THE_RUN: Final = " AND substr(coalesce(r.id, j.id), 1, 8) = ?"


@dataclass(frozen=True, slots=True)
class LoadedAttempt:
    """An attempt with its facts, and the tasks of its tree with theirs, in the order of these."""

    own: JobFacts
    descendants: Sequence[JobFacts] = ()


@dataclass(slots=True)
class _Found:
    """Collect what is known of a job; ``own``: its sending by its own row, and the result."""

    job: facts.Job
    reports: list[JobFact] = field(default_factory=list)
    extra: list[StoreFact | SetBack] = field(default_factory=list)
    own: Sequence[facts.Sending | facts.SendResult] = ()

    def sorted(self) -> JobFacts:
        """Return it in order; of one number, as the reports of a batch are recorded."""
        reports = [*self._own_sending(), *self.reports]
        reports.sort(key=_ORDER)
        if len([one for one in reports if one.kind == facts.Kind.STORED]) > 1:
            reports = _stored_once(reports)
        return JobFacts(self.job, tuple(reports), tuple(self.extra))

    def _own_sending(self) -> Sequence[facts.Sending | facts.SendResult]:
        """Return the sending of the job's own row; nothing where that is among the facts."""
        known = [one for one in self.reports if isinstance(one, facts.Sending)]
        if not known or not self.own:
            return self.own
        last, is_open = self.own[0], len(self.own) == 1
        if not is_open or not isinstance(last, facts.Sending):
            return ()
        if any(one.sent_at == last.sent_at for one in known):
            return ()
        return [replace(last, number=1 + max(one.number for one in known))]


_ORDER: Final = attrgetter("seq", "kind")


def _stored_once(reports: Iterable[JobFact]) -> list[JobFact]:
    """Return facts without what the store has told before.

    It is read again and again, and what counts at last is among the receipts, too.
    """
    known: list[Receipt] = []
    found: list[JobFact] = []
    for one in reports:
        if isinstance(one, facts.Stored) and one.receipt is not None:
            if one.receipt in known:
                continue
            known.append(one.receipt)
        found.append(one)
    return found


class Jobs(LedgerPart):
    """Jobs with their facts, by entry. ``facts`` and ``info`` are of the same ledger."""

    def __init__(self, database: Database, reports: Facts, info: RunMetadata) -> None:
        super().__init__(database)
        self._facts = reports
        self._info = info

    def of_entry(self, entry: str) -> list[LoadedAttempt]:
        """Return an entry's attempts, oldest first."""
        return self.of_entries([entry])[entry]

    def of_entries(
        self, entries: Sequence[str], *, trees: bool = True
    ) -> dict[str, list[LoadedAttempt]]:
        """Return the attempts of each of these entries, oldest first.

        Without ``trees`` they are without the tasks of these, but for what was announced.
        """
        attempts: dict[str, list[_Found]] = {entry: [] for entry in entries}
        roots: dict[int, _Found] = {}
        entries_of: dict[int, None] = {}
        with self._db.parse_errors():
            for row in self._db.of_each(_ATTEMPTS, entries):
                found = self._attempt_of_row(row)
                attempts[found.job.entry].append(found)
                roots[row[0]] = found
                entries_of[row[-1]] = None
        self._add_facts(roots)
        by_id = {one.job.task_id: one for one in roots.values()}
        tasks = self._tasks(by_id, list(roots), list(entries_of)) if trees else {}
        trees_of: dict[str, list[JobFacts]] = {root: [] for root in by_id}
        with self._db.parse_errors():
            for each in tasks.values():
                trees_of[each.job.root].append(each.sorted())
            return {
                entry: [LoadedAttempt(one.sorted(), trees_of[one.job.task_id]) for one in some]
                for entry, some in attempts.items()
            }

    def of_tree(self, root: facts.Job, task_ids: Sequence[str]) -> list[JobFacts]:
        """Return tasks of an attempt's tree with their facts: those of these ids that are known."""
        attempt = _Found(root)
        row = self._db.read_one("SELECT n FROM jobs WHERE id = ?", (root.task_id,))
        if row is None:
            return []
        self._add_facts({int(row[0]): attempt}, of_kind=facts.Kind.ANNOUNCED)
        by_id = {root.task_id: attempt}
        found = self._descendants(self._db.of_each(_BY_ID, task_ids), by_id, _announced_in(attempt))
        self._add_facts(found)
        return [one.sorted() for one in found.values()]

    def run_facts(self, run: str | None = None) -> RunFacts:
        """Return the facts of a run: of those that were merged into this one, or its own."""
        own = self._info.read().run
        name = own if run is None else run
        info = self._info.read_run(name)
        query, values = _FIRST_START, list[str]()
        if name != own:
            query, values = query + _OF_THE_RUN, [name[-8:]]
        row = self._db.read_one(f"{query} ORDER BY f.seq LIMIT 1", values)
        return RunFacts(
            run=name,
            created_at=info.created_at,
            is_private=info.is_private,
            backend=info.backend,
            stream_ttl=info.stream_ttl,
            signed_only=bool(self._info.of_run(RECEIPT_KEYS, name)),
            first_start=None if row is None else int(row[0]),
            facts=tuple(cast("Sequence[RunFact]", self._facts.of_run(name))),
        )

    # Attempts

    def _attempt_of_row(self, row: Row) -> _Found:
        _, task_id, entry, number, position, state, sent_at, cause, seq, sending, *more = row
        origin, asked_for, _ = more
        reused, sent = origin_of(origin), moment(sent_at)
        job = facts.Job(
            task_id=task_id,
            entry=entry,
            number=number,
            run=self._task_runs.run_of(task_id) if reused is None else self._own.run,
            seq=seq,
            at=sent or self._own.created_at,
            position=position,
            why=_why(number, cause, reused),
            asked_for=bool(asked_for),
            reused=reused,
        )
        return _Found(job, own=_sending_of(job, state, sent, sending))

    @cached_property
    def _own(self) -> RunInfo:
        return self._info.read()

    @cached_property
    def _task_runs(self) -> TaskRuns:
        return self._info.task_runs()

    # Trees, and reports

    def _tasks(
        self, roots: Mapping[str, _Found], numbers: Sequence[int], entries: Sequence[int]
    ) -> dict[int, _Found]:
        """Return all tasks of these attempts' trees with their facts, by their number."""
        announced: dict[str, facts.Spawn] = {}
        for one in roots.values():
            announced |= _announced_in(one)
        found = self._descendants(self._db.of_each(_OF_ROOTS, numbers), roots, announced)
        found |= self._descendants(self._db.of_each(_NAMED, entries), roots, announced)
        self._add_facts(found)
        return found

    def _descendants(
        self, rows: Iterable[Row], roots: Mapping[str, _Found], announced: Mapping[str, facts.Spawn]
    ) -> dict[int, _Found]:
        """Return the tasks that jobs of these trees have started, or have announced."""
        found: dict[int, _Found] = {}
        with self._db.parse_errors():
            for number, seq, task_id, *row in rows:
                spawn = announced.get(task_id)
                if row[3] is not None:  # else nobody has reported that it was sent
                    spawn = _spawn_of(row, spawn)
                if spawn is not None and spawn.root in roots:
                    root = roots[spawn.root].job
                    found[number] = _Found(_descendant_of(spawn, task_id, root, seq))
        return found

    def _add_facts(self, jobs: Mapping[int, _Found], of_kind: facts.Kind | None = None) -> None:
        """Add the facts of these jobs, by their numbers."""
        with self._db.parse_errors():
            for row in self._db.of_each(_FACTS, list(jobs)):
                if of_kind is not None and row[2] != of_kind:
                    continue
                found = jobs[row[0]]
                fact = fact_of_row(row, found.job.task_id)
                if isinstance(fact, StoreFact | SetBack):
                    found.extra.append(fact)
                else:
                    found.reports.append(fact)  # type: ignore[arg-type]  # it is a job's


def _sending_of(
    job: facts.Job, state: str, sent: datetime | None, seq: int
) -> Sequence[facts.Sending | facts.SendResult]:
    """Return an attempt's only sending and its result, by what its own row says."""
    if state not in _OUTCOMES or (sent is None and state in ("reused", "intent")):
        return ()
    number, at = seq or job.seq, job.at
    sending = facts.Sending(seq=number, at=at, job=job.task_id, number=1, sent_at=sent)
    outcome = _OUTCOMES[state]
    if outcome is None:
        return [sending]
    return [
        sending,
        facts.SendResult(seq=number, at=at, job=job.task_id, number=1, outcome=outcome),
    ]


def _why(number: int, cause: str | None, reused: facts.Reused | None) -> facts.Why:
    if reused is not None:
        return "reuse"
    if number == 1:
        return "first"
    return "retry" if cause == "retry" else "requeue" if cause == "requeue" else "resume"


def _spawn_of(row: Sequence[Any], announced: facts.Spawn | None) -> facts.Spawn:
    """Return how a task was started; ``announced``: what stands for it, if it was."""
    root, parent, task, how, queue, fulfils, spawned_at, chords, due = row
    key = ""
    if announced is not None and spawned_at is None and how != "call" and announced.root == root:
        key = announced.announcement
    return facts.Spawn(
        root=root,
        parent=parent,
        task=task,
        how=how,
        queue=queue,
        fulfils=fulfils,
        chords=None if chords is None else tuple(json.loads(chords)),
        due=moment(due),
        spawned_at=moment(spawned_at),
        by_record=spawned_at is not None,
        announcement=key,
    )


def _descendant_of(spawn: facts.Spawn, task_id: str, root: facts.Job, seq: int) -> facts.Job:
    return facts.Job(
        task_id=task_id,
        entry=root.entry,
        number=root.number,
        run=root.run,
        seq=seq,
        at=spawn.spawned_at or root.at,
        position=root.position,
        spawn=spawn,
    )


def _announced_in(attempt: _Found) -> dict[str, facts.Spawn]:
    """Return what stands for what was announced of an attempt's tree, by the task ids under which
    it is looked for."""
    found: dict[str, facts.Spawn] = {}
    for one in attempt.reports:
        if isinstance(one, facts.Announced):
            for name in (*one.task_ids, str(uuid5(NAMESPACE_OID, f"{one.key}:{one.how}"))):
                _announce(found, name, one)
    return found


def _announce(found: dict[str, facts.Spawn], task_id: str, one: facts.Announced) -> None:
    """Add what stands for something announced, of whom nobody has reported that it was sent."""
    same = found.get(task_id)
    parent = one.announcer if same is None else min(same.parent, one.announcer)
    found[task_id] = facts.Spawn(
        root=one.job,
        parent=parent,
        task=one.task,
        how=one.how,
        by_record=False,
        announcement=one.key,
    )
