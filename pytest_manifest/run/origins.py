"""Tell what an attempt was of when it was sent: of this run, or of an earlier one that it was
reused from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pytest_manifest.ledger import ReusedFrom
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.receipts import Reuse
from pytest_manifest.verdict.messages import Reused
from pytest_manifest.verdict.reasons import reason_of, verdict_of


@dataclass(frozen=True, slots=True)
class SentJob:
    """An attempt as it was sent, by the run ``run``.

    ``codes_of``: the run whose record has the code that it is held against; ``code_at``: as it was
    then, None: when the attempt was sent.
    """

    entry: Entry
    task_id: str
    number: int
    run: str
    codes_of: str
    sent_at: datetime | None
    code_at: datetime | None = None


def as_reused(
    verdict: Verdict, receipt: Receipt | None, entry: str, number: int, origin: ReusedFrom
) -> tuple[Verdict, Receipt | None]:
    """Return verdict and receipt of an earlier run's job as those of the entry that reuses it."""
    other = "" if origin.entry == entry else origin.entry
    reason = Reused(run=origin.run, entry=other, why=reason_of(verdict))
    if receipt is not None:
        mark = Reuse(run=origin.by, entry=entry, at=origin.at)
        receipt = receipt.model_copy(update={"reused": mark})
    return verdict_of(entry, number, verdict.verdict, reason, verdict.mismatches), receipt
