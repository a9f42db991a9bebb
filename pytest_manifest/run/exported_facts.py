"""Make facts of what a receipts file says of a job, and have them judged.

Such a file has neither starts nor searches, so that no end is contradicted by these, and what is
not in it is nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.signatures import signatures_of
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.facts import (
    Ended,
    FactSource,
    Job,
    Nowhere,
    Reused,
    Sending,
    SendResult,
    Spawn,
    Stored,
)
from pytest_manifest.schema.receipts import ExportedDescendant
from pytest_manifest.schema.run_facts import JobFact, JobFacts, RunFacts, TaskFact
from pytest_manifest.schema.statuses import OF_ITS_PROCESS
from pytest_manifest.verdict.belief import Finding
from pytest_manifest.verdict.judge import Attempt, Judgement, judge, judge_descendant
from pytest_manifest.verdict.reasons import UNEXPLAINED, reason_of
from pytest_manifest.verdict.tree import Descendant, Tree

_TASK, _JOB, _SENT, _ENDED, _NOWHERE = range(5)
"""The order of the facts."""


class ExportedFacts:
    """Judge the jobs of one receipts file, whose ``ledger`` has the trees and the trusted keys."""

    def __init__(self, ledger: Ledger) -> None:
        info = ledger.info.read()
        self.run: Final = info.run
        self.at: Final = info.created_at
        self._ledger = ledger
        self.signatures: Final = signatures_of(ledger)

    def attempt(self, entry: Entry, task_id: str, number: int, reused: Reused | None = None) -> Job:
        """Return the job of an entry's attempt; ``reused``: of one that an earlier run has sent."""
        return Job(
            task_id=task_id,
            entry=entry.id,
            number=number,
            run=self.run,
            seq=_JOB,
            at=self.at,
            why="first" if reused is None else "reuse",
            reused=reused,
        )

    def judge(self, entry: Entry, job: Job, receipt: Receipt, limit: float | None) -> Judgement:
        """Judge an attempt by its receipt and by its tree; ``limit``: of its task itself (s)."""
        tree = Tree(job.task_id)
        for one in self._ledger.descendants.of_root(job.task_id):
            spawn = Spawn(root=one.root, parent=one.parent, task=one.task, how=one.how)
            ends = [end for _, end in self._ledger.events.receipts(one.task_id)]
            found = Finding("pending", UNEXPLAINED)
            if one.verdict is not None:
                said = one.verdict
                found = Finding(said.verdict, reason_of(said), said.mismatches)
            tree.add(_descendant(self._child(job, one.task_id, spawn), found, ends))
        own = JobFacts(job, self._facts(job, receipt.sent_at, receipt))
        attempt = Attempt(own, tree if tree else None)
        return judge(entry, [attempt], self._run_facts(entry.task, limit))

    def judge_descendant(self, entry: Entry, root: Job, one: ExportedDescendant) -> Finding:
        """Judge a descendant by the receipt that the file has of it."""
        spawn = Spawn(
            root=one.root,
            parent=one.parent,
            task=one.task,
            how=one.how,
            spawned_at=one.spawned_at,
        )
        job = self._child(root, one.task_id, spawn)
        facts = JobFacts(job, self._facts(job, None, one.receipt))
        return judge_descendant(entry, root, facts, self._run_facts(one.task, None)).finding

    def _run_facts(self, task: str, limit: float | None) -> RunFacts:
        known = TaskFact(seq=_TASK, at=self.at, task=task, limit=limit)
        return RunFacts(
            run=self.run,
            created_at=self.at,
            is_private=False,
            signed_only=self.signatures is not None,
            has_stream=False,
            facts=() if limit is None else (known,),
        )

    def _child(self, root: Job, task_id: str, spawn: Spawn) -> Job:
        return Job(
            task_id=task_id,
            entry=root.entry,
            number=root.number,
            run=root.run,
            seq=_JOB,
            at=self.at,
            spawn=spawn,
        )

    def _facts(
        self, job: Job, sent_at: datetime | None, receipt: Receipt | None
    ) -> tuple[JobFact, ...]:
        """Return that a job was sent, that it ended so, and that nothing else is known of it."""
        task_id, at = job.task_id, self.at
        nowhere = Nowhere(seq=_NOWHERE, at=at, job=task_id, as_of=_ENDED)
        facts: list[JobFact] = [nowhere]
        if receipt is not None:
            fault = "" if self.signatures is None else self.signatures.fault_of(receipt)
            is_reported = receipt.source == "worker"
            source = FactSource.WORKER if is_reported else FactSource.STORE
            kind = Ended if is_reported else Stored
            end = kind(seq=_ENDED, at=at, source=source, job=task_id, receipt=receipt, fault=fault)
            facts = [end, nowhere]
        if job.spawn is None:
            sending = Sending(seq=_SENT, at=at, job=task_id, number=1, sent_at=sent_at)
            result = SendResult(seq=_SENT, at=at, job=task_id, number=1, outcome="published")
            facts = [sending, result, *facts]
        return tuple(facts)


def _descendant(job: Job, found: Finding, ends: Sequence[Receipt]) -> Descendant:
    counts = [one.children for one in ends if one.children is not None]
    is_silent = not counts and any(one.state in OF_ITS_PROCESS for one in ends)
    return Descendant(
        job, found, has_end=bool(ends), children=max(counts, default=0), is_silent=is_silent
    )
