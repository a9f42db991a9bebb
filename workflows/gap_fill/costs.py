"""Tell what the batches of a run have cost, those of judges too, and how far that is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import Receipt
from workflows.gap_fill.accounts import PaidReport


def paid_reports(receipts: Iterable[Receipt]) -> Iterator[PaidReport]:
    """Yield what these receipts tell of costs: in a result, or in the evidence of what failed."""
    for receipt in receipts:
        for told in (receipt.result, *map(receipt.evidence.get, ("gap_fill", "judge"))):
            if isinstance(told, dict) and "cost" in told:
                try:
                    yield PaidReport.model_validate(told)
                except ValidationError:
                    continue  # of a task that is none of this workflow
                break


def unknown_bills(ledger: Ledger) -> int:
    """Count the calls of all attempts that may have been billed, and of which nobody has told."""
    own = [row.task_id for row in ledger.attempts.all() if row.state != "reused"]
    reported = ledger.events.receipts_of(own).values()
    receipts = (receipt for some in reported for _, receipt in some)
    return sum(report.unknown_bills for report in paid_reports(receipts))


def incomplete(calls: int) -> str:
    """Say of so many calls that no cost has them."""
    what = "1 call" if calls == 1 else f"{calls:,} calls"
    return (
        f"{what} may have been billed beyond the cost that is told: timed out, broken off, or "
        "under way when its batch ended"
    )


def incomplete_costs(ledger: Ledger) -> list[str]:
    """Return what a run's summary is to say where its cost may be higher than is told."""
    calls = unknown_bills(ledger)
    return [incomplete(calls)] if calls else []


def cost_sentence(cost: float, calls: int) -> str:
    """Say what a run has cost, in US dollars; ``calls`` may have been billed beyond that."""
    if not calls:
        return f"{cost:.9g} USD"
    return f"{cost:.9g} USD at least; {incomplete(calls)}"
