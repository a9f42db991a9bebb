"""Evaluate descendants of attempts, and attempts by what became of their descendants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import Descendant, Ledger, Start
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.evidence import (
    ReportedEnd,
    complete_receipt,
    contradiction_with_starts,
    decisive_end,
    disagreement,
)
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.signatures import SignaturesByRun, trusted_ends
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.models import ExpectedDescendants
from pytest_manifest.schema.statuses import DEATHS, NOT_SENT, OPEN, SILENT
from pytest_manifest.verdict import evaluate, problems
from pytest_manifest.verdict.descendants import (
    FailedDescendant,
    TreeEnds,
    by_part,
    ends_as_expected,
    first_unexpected,
    of_part,
    unexpected,
    untold_of,
    with_delay,
    with_descendants,
)

_SILENT_ENDS: Final = SILENT | DEATHS
"""Statuses that no worker may have told of: nobody says then that a chord has no body any more."""


class TreeEvaluator:
    """Evaluate the trees of one run's attempts, by the ledger."""

    def __init__(
        self,
        run: str,
        manifest: Manifest,
        ledger: Ledger,
        may_lack_starts: Callable[[str], bool],
    ) -> None:
        self._run = run
        self._manifest = manifest
        self._ledger = ledger
        self._may_lack_starts = may_lack_starts
        self._own_limits = OwnLimits(ledger)
        self._signatures = SignaturesByRun(ledger)
        self._run_of = ledger.info.task_runs().run_of
        self.has_trees = ledger.descendants.any()
        """Whether some job has started a task: a look into the ledger for each would be felt."""

    def attempt_with(self, task_id: str) -> PendingAttempt | None:
        """Return the run's attempt with this task id; None where it has none."""
        row = self._ledger.attempts.get(task_id)
        try:
            if row is None or row.entry not in self._manifest:
                return None
            entry = self._manifest[row.entry]
        except ManifestError:
            return None
        return PendingAttempt(self._run, entry, row.attempt, task_id, 0.0, row.sent_at)

    def evaluate_descendant(
        self, job: PendingAttempt, reported: Sequence[ReportedEnd], starts: Sequence[Start]
    ) -> Verdict:
        """Return the verdict on a descendant: it is to succeed, once, in whatever time it took."""
        trusted, fault = trusted_ends(self._signatures.of(self._run_of(job.root)), reported)
        if not trusted:
            return evaluate(job.entry, None, attempt=job.number, problem="forged", why=fault)
        reported = trusted
        _, receipt = decisive_end(reported)
        lie = disagreement(reported)
        unbegun = None if lie else contradiction_with_starts(reported, starts)
        if unbegun and not self._may_lack_starts(job.task_id):
            lie = unbegun
        if lie:
            return evaluate(job.entry, None, attempt=job.number, problem="forged", why=lie)
        whole = complete_receipt(receipt, starts)
        entry = self._own_limits.of(job)
        if whole.runtime is not None and whole.runtime > entry.timeout:
            entry = entry.model_copy(update={"timeout": whole.runtime})
        verdict = evaluate(entry, whole, attempt=job.number)
        return with_delay(verdict, job.delay) if verdict.verdict == "duplicated" else verdict

    def with_tree(
        self, entry: Entry, task_id: str, verdict: Verdict, receipt: Receipt | None
    ) -> Verdict:
        """Return the verdict on an attempt, given what became of its descendants."""
        if verdict.verdict != "passed":
            if self._ended_by_others(task_id, receipt):
                return by_part(entry, verdict, self._ends(entry, task_id, receipt))
            return verdict
        given = "descendants" in entry.expect.model_fields_set
        counted = receipt is not None and receipt.children
        if not (given or counted or (self.has_trees and self._has_tree(task_id))):
            return verdict
        return with_descendants(entry, verdict, self._ends(entry, task_id, receipt))

    def goes_on(self, root: str) -> bool:
        """Return whether descendants of an attempt may run yet whose time was over."""
        return self.has_trees and bool(
            self._ledger.descendants.number_without_end(root, "timed_out")
        )

    def _has_tree(self, root: str) -> bool:
        return bool(self._ledger.descendants.roots([root]))

    def by_others(self, root: str, verdict: Verdict) -> Verdict:
        """Return the verdict on a descendant that was handed on to other tasks of its tree.

        Where one of these did not succeed, that is its end, too.
        """
        part = self._ledger.descendants
        found = unexpected(ExpectedDescendants(), part.statuses(root))
        if verdict.verdict == "passed" or not found or found[0] in OPEN:
            return verdict
        one = part.first(root, found[:1])
        if one is None or one.verdict is None:
            return verdict
        return of_part(verdict, one, one.verdict)

    def is_dropped(self, job: PendingAttempt, verdict: Verdict) -> bool:
        """Return whether a chord's body is nowhere because its chord cannot be complete.

        Celery sends none where a member was not sent, has no end, or one that no worker stored.
        """
        if job.how != "chord_body" or not job.announcers or verdict.verdict != "lost":
            return False
        assert job.origin is not None
        part, root = self._ledger.descendants, job.origin.root
        members = part.of_chord(root, job.announcement)
        return not (
            members.isdisjoint({*_SILENT_ENDS, NOT_SENT})
            # Of whom nobody told what chord they are of, they may be of this one.
            and part.of_unknown_chords(root).isdisjoint(_SILENT_ENDS)
        )

    def _ended_by_others(self, task_id: str, receipt: Receipt | None) -> bool:
        """Return whether a job was handed on to several tasks, and no worker ended it itself."""
        if receipt is not None and receipt.source == "worker":
            return False
        return any(end.how == "canvas" for end in self._ledger.events.handed_on(task_id))

    def _ends(self, entry: Entry, root: str, receipt: Receipt | None) -> TreeEnds:
        part, expected = self._ledger.descendants, entry.expect.of_descendants
        counts = ends_as_expected(part, expected, root)
        first, one = None, first_unexpected(part, expected, root, counts)
        if one is not None:
            parent = self._task_of(one.parent, entry, root)
            said = one.verdict or self._not_ended(entry, one, receipt)
            first = FailedDescendant(one.task_id, one.task, parent, said)
        tasks = () if expected.tasks is None else part.tasks(root)
        if receipt is None:
            return TreeEnds(counts, tasks, first)
        reason, is_short = untold_of(part, root, receipt.source, receipt.children)
        return TreeEnds(counts, tasks, first, reason, is_short=is_short)

    def _not_ended(self, entry: Entry, one: Descendant, receipt: Receipt | None) -> Verdict:
        awaited = Entry.model_construct(id=entry.id, task=one.task, timeout=entry.timeout)
        number = None if receipt is None else receipt.attempt
        return evaluate(
            awaited, None, attempt=number, problem="pending", why=problems.NoEndReported()
        )

    def _task_of(self, parent: str, entry: Entry, root: str) -> str:
        if parent == root:
            return entry.task
        one = self._ledger.descendants.get(parent)
        return parent if one is None else one.task
