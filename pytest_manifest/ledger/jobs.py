"""Load entries' jobs with all their facts in one order, and the facts of a run: what a judge takes.

What the ledger's other tables have is made facts of here: an attempt and its only sending, starts,
what was handed on, receipts, descendants and announcements. The rest are rows of ``facts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Final, cast
from uuid import NAMESPACE_OID, uuid5

from pytest_manifest.ledger.database import Database, LedgerPart, chunks, placeholders
from pytest_manifest.ledger.descendants import (
    ANNOUNCED_COLUMNS,
    DESCENDANT_COLUMNS,
    Descendant,
    announced_of_row,
    descendant_of_row,
)
from pytest_manifest.ledger.descendants import Announced as AnnouncedTasks
from pytest_manifest.ledger.facts import Facts, started_of
from pytest_manifest.ledger.rows import (
    HANDED_ON_COLUMNS,
    START_COLUMNS,
    ReusedFrom,
    Row,
    RunInfo,
    moment,
    origin_of,
    receipt_of,
    start_of_row,
)
from pytest_manifest.ledger.run_info import RECEIPT_KEYS, RunMetadata, TaskRuns
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import (
    Announced,
    Ended,
    FactSource,
    HandedOn,
    Job,
    Reused,
    Sending,
    SendOutcome,
    SendResult,
    Spawn,
    Stored,
    Why,
)
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
    SELECT task_id, entry, attempt, ordinal, state, sent_at, cause, seq, sending, reused_from
    FROM attempts WHERE entry IN ({}) ORDER BY entry, attempt
"""
_OUTCOMES: Final[Mapping[str, SendOutcome | None]] = {
    "sent": "published",
    "withdrawn": "published",
    "reused": "published",
    "uncertain": "uncertain",
    "intent": None,
}
"""The outcome of an attempt's only sending by its state; None: it is not known."""
_STARTS: Final = f"SELECT {START_COLUMNS}, seq FROM starts WHERE task_id IN ({{}})"  # noqa: S608 - fixed text
_HANDED_ON: Final = f"SELECT {HANDED_ON_COLUMNS}, seq FROM handed_on WHERE task_id IN ({{}})"  # noqa: S608 - fixed text
_RECEIPTS: Final = (
    "SELECT task_id, execution, receipt, arrived_at, seq FROM receipts WHERE task_id IN ({})"
)
_ANNOUNCED: Final = f"SELECT {ANNOUNCED_COLUMNS}, seq FROM announced WHERE root IN ({{}})"  # noqa: S608 - fixed text
_OF_ROOTS: Final = f"""
    SELECT {DESCENDANT_COLUMNS}, seq FROM descendants WHERE root IN ({{}})
    ORDER BY spawned_at, task_id
"""  # noqa: S608 - fixed text
_BY_ID: Final = f"SELECT {DESCENDANT_COLUMNS}, seq FROM descendants WHERE task_id IN ({{}})"  # noqa: S608 - fixed text
_ENTRIES: Final = "SELECT DISTINCT entry FROM attempts ORDER BY ordinal, entry"
_FIRST_START: Final = """
    SELECT min(s.seq) FROM starts s LEFT JOIN descendants d ON d.task_id = s.task_id
    WHERE s.seq > 0 AND coalesce(d.root, s.task_id) NOT IN (
        SELECT task_id FROM attempts WHERE state = 'reused'
    )
"""
_OF_THE_RUN: Final = " AND substr(coalesce(d.root, s.task_id), 1, 8) = ?"


@dataclass(frozen=True, slots=True)
class LoadedAttempt:
    """An attempt with its facts, and the tasks of its tree with theirs, in the order of these."""

    own: JobFacts
    descendants: Sequence[JobFacts] = ()


@dataclass(slots=True)
class _Found:
    """Collect what is known of a job; ``own``: its sending by its own row, and the result."""

    job: Job
    facts: list[JobFact] = field(default_factory=list)
    extra: list[StoreFact | SetBack] = field(default_factory=list)
    own: Sequence[Sending | SendResult] = ()

    def sorted(self) -> JobFacts:
        """Return it in order; of one number, as the reports of a batch are recorded."""
        facts = [*self._own_sending(), *self.facts]
        facts.sort(key=lambda one: (one.seq, one.kind))
        return JobFacts(self.job, tuple(_stored_once(facts)), tuple(self.extra))

    def _own_sending(self) -> Sequence[Sending | SendResult]:
        """Return the sending of the job's own row; nothing where that is among the facts."""
        known = [one for one in self.facts if isinstance(one, Sending)]
        if not known or not self.own:
            return self.own
        last, is_open = self.own[0], len(self.own) == 1
        if not is_open or not isinstance(last, Sending):
            return ()
        if any(one.sent_at == last.sent_at for one in known):
            return ()
        return [replace(last, number=1 + max(one.number for one in known))]


def _stored_once(facts: Iterable[JobFact]) -> Iterator[JobFact]:
    """Yield facts without what the store has told before.

    It is read again and again, and what counts at last is among the receipts, too.
    """
    known: list[Receipt] = []
    for one in facts:
        if isinstance(one, Stored) and one.receipt is not None:
            if one.receipt in known:
                continue
            known.append(one.receipt)
        yield one


class Jobs(LedgerPart):
    """Jobs with their facts, by entry. ``facts`` and ``info`` are of the same ledger."""

    def __init__(self, database: Database, facts: Facts, info: RunMetadata) -> None:
        super().__init__(database)
        self._facts = facts
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
        for row in self._rows(_ATTEMPTS, entries):
            with self._db.parse_errors():
                found = self._attempt_of_row(row)
            attempts[found.job.entry].append(found)
        roots = {one.job.task_id: one for some in attempts.values() for one in some}
        announced = self._add_announced(roots)
        facts, tasks = list(self._facts.of_entries(entries)), dict[str, _Found]()
        if trees:
            tasks = self._descendants(_OF_ROOTS, list(roots), roots, announced)
            _add_awaited(tasks, facts, roots, announced)
        jobs = roots | tasks
        self._add_reports(jobs)
        for fact in facts:
            if (job := jobs.get(fact.job)) is None:
                continue
            if isinstance(fact, StoreFact | SetBack):
                job.extra.append(fact)
            else:
                job.facts.append(cast("JobFact", fact))
        trees_of: dict[str, list[JobFacts]] = {root: [] for root in roots}
        with self._db.parse_errors():
            for each in tasks.values():
                trees_of[each.job.root].append(each.sorted())
            return {
                entry: [LoadedAttempt(one.sorted(), trees_of[one.job.task_id]) for one in some]
                for entry, some in attempts.items()
            }

    def of_tree(self, root: Job, task_ids: Sequence[str]) -> list[JobFacts]:
        """Return tasks of an attempt's tree with their facts: those of these ids that are known."""
        roots = {root.task_id: _Found(root)}
        announced = self._add_announced(roots)
        found = self._descendants(_BY_ID, task_ids, roots, announced)
        facts = list(self._facts.of_jobs(root.entry, task_ids))
        _add_awaited(found, facts, roots, announced)
        self._add_reports(found)
        for fact in facts:
            if fact.job in found:
                found[fact.job].facts.append(cast("JobFact", fact))
        return [one.sorted() for one in found.values()]

    def all(self) -> Iterator[tuple[str, list[LoadedAttempt]]]:
        """Yield every entry with its attempts, in the manifest's order; memory stays flat."""
        names = (str(row[0]) for row in self._db.read(_ENTRIES))
        while some := list(islice(names, BATCH)):
            yield from self.of_entries(some).items()

    def run_facts(self, run: str | None = None) -> RunFacts:
        """Return the facts of a run: of those that were merged into this one, or its own."""
        own = self._info.read().run
        name = own if run is None else run
        info = self._info.read_run(name)
        query, values = _FIRST_START, list[str]()
        if name != own:
            query, values = query + _OF_THE_RUN, [name[-8:]]
        row = self._db.read_one(query, values)
        return RunFacts(
            run=name,
            created_at=info.created_at,
            is_private=info.is_private,
            backend=info.backend,
            stream_ttl=info.stream_ttl,
            signed_only=bool(self._info.of_run(RECEIPT_KEYS, name)),
            first_start=None if row is None or row[0] is None else int(row[0]),
            facts=tuple(cast("Sequence[RunFact]", self._facts.of_run(name))),
        )

    # Attempts

    @cached_property
    def _asked_for(self) -> frozenset[str]:
        return self._info.sent_on_request()

    def _attempt_of_row(self, row: Row) -> _Found:
        task_id, entry, number, position, state, sent_at, cause, seq, sending, origin = row
        reused, sent = origin_of(origin), moment(sent_at)
        job = Job(
            task_id=task_id,
            entry=entry,
            number=number,
            run=self._task_runs.run_of(task_id) if reused is None else self._own.run,
            seq=seq,
            at=sent or self._own.created_at,
            position=position,
            why=_why(number, cause, reused),
            asked_for=task_id in self._asked_for,
            reused=None if reused is None else _reused(reused),
        )
        return _Found(job, own=_sending_of(job, state, sent, sending))

    @cached_property
    def _own(self) -> RunInfo:
        return self._info.read()

    @cached_property
    def _task_runs(self) -> TaskRuns:
        return self._info.task_runs()

    # Trees, and reports

    def _add_announced(self, roots: Mapping[str, _Found]) -> Mapping[str, Spawn]:
        """Add what was announced of the trees of these attempts.

        Returns what stands for it, by the task ids under which it is looked for.
        """
        announced: dict[str, Spawn] = {}
        for row in self._rows(_ANNOUNCED, list(roots)):
            with self._db.parse_errors():
                one = announced_of_row(row[:-1])
            at = roots[one.root].job.at
            fact = Announced(
                seq=row[-1],
                at=at,
                source=self._by_worker,
                job=one.root,
                key=one.key,
                announcer=one.announcer,
                how=one.how,
                task=one.task,
                number=one.number,
                task_ids=tuple(one.task_ids),
                is_off=one.is_off,
            )
            roots[one.root].facts.append(fact)
            for name in (*one.task_ids, str(uuid5(NAMESPACE_OID, f"{one.key}:{one.how}"))):
                _announce(announced, name, one)
        return announced

    def _descendants(
        self,
        query: str,
        names: Sequence[str],
        roots: Mapping[str, _Found],
        announced: Mapping[str, Spawn],
    ) -> dict[str, _Found]:
        """Return the tasks that jobs of these trees have started, by task id."""
        found: dict[str, _Found] = {}
        for row in self._rows(query, names):
            with self._db.parse_errors():
                child = descendant_of_row(row[:-1])
            spawn = announced.get(child.task_id) if child.how != "call" else None
            key = spawn.announcement if spawn is not None and spawn.root == child.root else ""
            if child.root in roots:
                job = _descendant(child, roots[child.root].job, row[-1], key)
                found[child.task_id] = _Found(job)
        return found

    def _add_reports(self, jobs: Mapping[str, _Found]) -> None:
        """Add what workers and the store have reported of these jobs."""
        names, by = list(jobs), self._by_worker
        for row in self._rows(_STARTS, names):
            with self._db.parse_errors():
                start = start_of_row(row[:-1])
            found = jobs[start.task_id]
            found.facts.append(started_of(start, row[-1], start.started_at or found.job.at, by))
        for task_id, execution, how, ended_at, next_at, cost, seq in self._rows(_HANDED_ON, names):
            found = jobs[task_id]
            end = HandedOn(
                seq=seq,
                at=moment(ended_at) or found.job.at,
                source=by,
                job=task_id,
                execution=execution,
                how=how,
                ended_at=moment(ended_at),
                next_at=moment(next_at),
                cost=cost,
            )
            found.facts.append(end)
        for task_id, execution, text, arrived_at, seq in self._rows(_RECEIPTS, names):
            with self._db.parse_errors():
                receipt, at = receipt_of(text), datetime.fromisoformat(arrived_at)
            if receipt.source == "worker":
                jobs[task_id].facts.append(
                    Ended(
                        seq=seq, at=at, source=by, job=task_id, receipt=receipt, execution=execution
                    )
                )
            else:
                jobs[task_id].facts.append(
                    Stored(seq=seq, at=at, source=FactSource.STORE, job=task_id, receipt=receipt)
                )

    @cached_property
    def _by_worker(self) -> FactSource:
        """Return the source of what workers have reported and what has counted."""
        is_signed = self._info.of_run(RECEIPT_KEYS)
        return FactSource.SIGNED_WORKER if is_signed else FactSource.WORKER

    def _rows(self, query: str, values: Sequence[str]) -> Iterator[Row]:
        for some in chunks(values):
            yield from self._db.read(query.format(placeholders(some)), some)


def _sending_of(
    job: Job, state: str, sent: datetime | None, seq: int
) -> Sequence[Sending | SendResult]:
    """Return an attempt's only sending and its result, by what its own row says."""
    if state not in _OUTCOMES or (sent is None and state in ("reused", "intent")):
        return ()
    number, at = seq or job.seq, job.at
    sending = Sending(seq=number, at=at, job=job.task_id, number=1, sent_at=sent)
    outcome = _OUTCOMES[state]
    if outcome is None:
        return [sending]
    return [sending, SendResult(seq=number, at=at, job=job.task_id, number=1, outcome=outcome)]


def _why(number: int, cause: str | None, reused: ReusedFrom | None) -> Why:
    if reused is not None:
        return "reuse"
    if number == 1:
        return "first"
    return "retry" if cause == "retry" else "resume"


def _reused(one: ReusedFrom) -> Reused:
    return Reused(run=one.run, entry=one.entry, attempt=one.attempt, by=one.by, at=one.at)


def _descendant(one: Descendant, root: Job, seq: int, announcement: str) -> Job:
    """Return a descendant's job; ``announcement``: the key by which it was announced, if it was."""
    by_record = one.spawned_at is not None
    spawn = Spawn(
        root=one.root,
        parent=one.parent,
        task=one.task,
        how=one.how,
        queue=one.queue,
        fulfils=one.fulfils,
        chords=one.chords,
        due=one.due,
        spawned_at=one.spawned_at,
        by_record=by_record,
        announcement="" if by_record else announcement,
    )
    return _descendant_of(spawn, one.task_id, root, seq)


def _descendant_of(spawn: Spawn, task_id: str, root: Job, seq: int) -> Job:
    return Job(
        task_id=task_id,
        entry=root.entry,
        number=root.number,
        run=root.run,
        seq=seq,
        at=spawn.spawned_at or root.at,
        position=root.position,
        spawn=spawn,
    )


def _add_awaited(
    found: dict[str, _Found],
    facts: Iterable[JobFact | RunFact],
    roots: Mapping[str, _Found],
    announced: Mapping[str, Spawn],
) -> None:
    """Add what is looked for as it was announced, and nobody has reported it sent."""
    for fact in facts:
        spawn = announced.get(fact.job)
        if spawn is not None and fact.job not in found:
            root = roots[spawn.root].job
            found[fact.job] = _Found(_descendant_of(spawn, fact.job, root, fact.seq))


def _announce(found: dict[str, Spawn], task_id: str, one: AnnouncedTasks) -> None:
    """Add what stands for something announced, of whom nobody has reported that it was sent."""
    same = found.get(task_id)
    parent = one.announcer if same is None else min(same.parent, one.announcer)
    found[task_id] = Spawn(
        root=one.root,
        parent=parent,
        task=one.task,
        how=one.how,
        by_record=False,
        announcement=one.key,
    )
