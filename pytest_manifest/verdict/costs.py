"""Compute a run's cost: what its receipts report and, where they do not, the estimate."""

from __future__ import annotations

from collections.abc import Container, Iterator
from decimal import Decimal

from pytest_manifest.ledger import AttemptCost, EntryVerdict, Ledger, has_all_starts
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import actual_cost, exact
from pytest_manifest.schema.statuses import TAKEN_BACK, UNSENT
from pytest_manifest.verdict.belief import is_revocation_notice
from pytest_manifest.verdict.case import denies


class Costs:
    """The costs of a run's attempts, in the entries' unit. Use it in the ledger's thread.

    What was reused has cost nothing: another run has paid for it.
    Every execution counts, also one of a failed attempt, a second one of the same attempt, and a
    try that the task has asked to be repeated: as it reports or else as the entry estimates. An
    attempt that may have run counts its estimate; one that certainly never ran counts nothing.
    """

    def __init__(self, ledger: Ledger, manifest: Manifest) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._task_runs = ledger.info.task_runs()
        self.reported = False
        """Whether a receipt of the attempts read so far has reported a cost."""

    def by_attempt(self, without: Container[str] = ()) -> Iterator[tuple[str, Decimal]]:
        """Yield ``(task id, cost)`` of all attempts but these."""
        witnessed: dict[str, bool] = {}
        for attempt in self._ledger.queries.attempt_costs():
            if attempt.task_id in without:
                continue
            run = self._task_runs.run_of(attempt.task_id)
            if run not in witnessed:
                witnessed[run] = self._has_all_starts(run)
            yield attempt.task_id, self._cost(attempt, run, witnessed=witnessed[run])

    def total(self) -> float:
        """Return the cost of the whole run."""
        return float(sum(cost for _, cost in self.by_attempt()))

    def of(self, task_id: str) -> Decimal | None:
        """Return an attempt's cost; None where the run has no such attempt."""
        run = self._task_runs.run_of(task_id)
        witnessed = self._has_all_starts(run)
        for attempt in self._ledger.queries.attempt_costs(task_id):
            return self._cost(attempt, run, witnessed=witnessed)
        return None

    def _has_all_starts(self, run: str) -> bool:
        """Return whether a job of this run without a known start has never started."""
        some_start = self._ledger.events.has_starts()
        return has_all_starts(self._ledger.info, some_start=some_start, run=run)

    def _cost(self, attempt: AttemptCost, run: str, *, witnessed: bool) -> Decimal:
        reported: dict[str | None, Decimal | None] = {}
        never_run = False
        ours = (run, attempt.entry, attempt.attempt, attempt.task_id)
        for execution, receipt in attempt.receipts:
            identity = (receipt.run, receipt.entry, receipt.attempt, receipt.task_id)
            if attempt.status == "forged" or identity != ours or is_revocation_notice(receipt):
                continue
            cost = actual_cost(receipt)
            if cost is None and denies(receipt, witnessed=witnessed):
                never_run = True
            else:
                reported[execution] = None if cost is None else exact(cost)
                self.reported = self.reported or cost is not None
        if None in reported and len(reported) > 1:
            del reported[None]  # the result store's copy of one of the others
        # What is not believed of an attempt's ends is not of its tries either.
        told = {} if attempt.status == "forged" else attempt.tries
        tries = [cost for name, cost in told.items() if name not in reported]
        self.reported = self.reported or bool(tries)
        silent = len(set(attempt.started) - reported.keys() - told.keys()) - (None in reported)
        unreported = sum(cost is None for cost in reported.values()) + max(silent, 0)
        if not (reported or attempt.started or told):
            unreported = 0 if never_run or _never_started(attempt, witnessed=witnessed) else 1
        costs = [*(cost for cost in reported.values() if cost is not None), *map(exact, tries)]
        total_reported = sum(costs, Decimal(0))
        return total_reported + (unreported * self._estimate(attempt.entry) if unreported else 0)

    def _estimate(self, entry: str) -> Decimal:
        return exact(self._manifest[entry].cost) if entry in self._manifest else Decimal(0)


def cost_of_verdict(settled: EntryVerdict, manifest: Manifest) -> Decimal:
    """Return an entry's cost as far as its verdict and receipt alone can tell."""
    verdict, receipt = settled.verdict, settled.receipt
    if receipt is not None and receipt.reused is not None:
        return exact(None)
    reported = None if receipt is None else actual_cost(receipt)
    if reported is not None:
        return exact(reported)
    if receipt is None:  # revoked by the run: the job reached no worker
        never_run = verdict.verdict in UNSENT | TAKEN_BACK
    else:
        never_run = denies(receipt, witnessed=False)
    return exact(None if never_run else manifest[verdict.entry].cost)


def _never_started(attempt: AttemptCost, *, witnessed: bool) -> bool:
    """Return whether an attempt without start and receipt was certainly never started."""
    if attempt.state in ("planned", "withheld", "withdrawn") or attempt.status in UNSENT:
        return True
    return (attempt.status == "lost" or attempt.status in TAKEN_BACK) and witnessed
