"""What a run has cost: as its receipts tell it and, where they do not, as it was estimated."""

from __future__ import annotations

from collections.abc import Container, Iterator
from decimal import Decimal

from pytest_manifest.ledger import AttemptCost, EntryVerdict, Ledger, TaskRuns, has_all_starts
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import actual_cost, exact
from pytest_manifest.verdict.evidence import denies, is_hearsay

_WITHHELD = frozenset({"skipped", "unknown_task"})
"""Verdicts without a receipt on what was never sent."""


class Costs:
    """The costs of a run's attempts, in the entries' unit. Use it in the ledger's thread.

    Every execution counts, also one of a failed attempt and a second one of the same attempt: what
    its receipt tells or, where nobody says, the entry's estimate. An attempt that may have run
    counts its estimate, one that certainly never ran nothing.
    """

    def __init__(self, ledger: Ledger, manifest: Manifest) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._origins = TaskRuns(ledger.info().run, ledger.merged())
        self.told = False
        """Whether a receipt has told a cost, of the attempts that were looked at."""

    def by_attempt(self, without: Container[str] = ()) -> Iterator[tuple[str, Decimal]]:
        """``(task id, cost)`` of all attempts but these."""
        witnessed = self._witnessed()
        for account in self._ledger.attempt_costs():
            if account.task_id not in without:
                yield account.task_id, self._cost(account, witnessed=witnessed)

    def total(self) -> float:
        """What the whole run has cost."""
        return float(sum((cost for _, cost in self.by_attempt()), Decimal(0)))

    def of(self, task_id: str) -> Decimal | None:
        """What this attempt has cost; None where it is none of the run's."""
        witnessed = self._witnessed()
        for account in self._ledger.attempt_costs(task_id):
            return self._cost(account, witnessed=witnessed)
        return None

    def _witnessed(self) -> bool:
        return has_all_starts(self._ledger, some_start=self._ledger.has_starts())

    def _cost(self, account: AttemptCost, *, witnessed: bool) -> Decimal:
        told: dict[str | None, Decimal | None] = {}
        never_run = False
        run = self._origins.run_of(account.task_id)
        ours = (run, account.entry, account.attempt, account.task_id)
        for execution, receipt in account.receipts:
            facts = (receipt.run, receipt.entry, receipt.attempt, receipt.task_id)
            if account.status == "forged" or facts != ours or is_hearsay(receipt):
                continue
            cost = actual_cost(receipt)
            if cost is None and denies(receipt, witnessed=witnessed):
                never_run = True
            else:
                told[execution] = None if cost is None else exact(cost)
                self.told = self.told or cost is not None
        if None in told and len(told) > 1:
            del told[None]  # the result store's word on one of the others
        silent = len(set(account.started) - told.keys()) - (None in told)
        unsaid = sum(cost is None for cost in told.values()) + max(silent, 0)
        if not (told or account.started):
            unsaid = 0 if never_run or _never_ran(account, witnessed=witnessed) else 1
        said = sum((cost for cost in told.values() if cost is not None), Decimal(0))
        return said + (unsaid * self._estimate(account.entry) if unsaid else 0)

    def _estimate(self, entry: str) -> Decimal:
        return exact(self._manifest[entry].cost) if entry in self._manifest else Decimal(0)


def cost_of_settled(settled: EntryVerdict, manifest: Manifest) -> Decimal:
    """What an entry has cost as far as its verdict and its receipt alone can tell."""
    verdict, receipt = settled.verdict, settled.receipt
    told = None if receipt is None else actual_cost(receipt)
    if told is not None:
        return exact(told)
    if receipt is None:  # what the harness calls revoked, no worker had after all had heard of it
        never_run = verdict.verdict in _WITHHELD or verdict.verdict == "revoked"
    else:
        never_run = denies(receipt, witnessed=False)
    return exact(None if never_run else manifest[verdict.entry].cost)


def _never_ran(account: AttemptCost, *, witnessed: bool) -> bool:
    """Whether an attempt that nobody has said anything of was certainly never begun."""
    if account.state in ("planned", "withheld", "withdrawn") or account.status in _WITHHELD:
        return True
    return account.status in ("lost", "revoked") and witnessed
