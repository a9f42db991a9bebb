"""Evaluate descendants of attempts, and attempts by what became of their descendants."""

from __future__ import annotations

from collections.abc import Callable

from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.signatures import SignaturesByRun
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.verdict import evaluate, problems
from pytest_manifest.verdict.descendants import (
    FailedDescendant,
    TreeEnds,
    by_part,
    ends_as_expected,
    first_unexpected,
    untold_of,
    with_descendants,
)


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

    def _has_tree(self, root: str) -> bool:
        return bool(self._ledger.descendants.roots([root]))

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
