"""Read of the ledger what is known of the tasks that jobs started: of an entry, of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import JsonValue, ValidationError

from pytest_manifest.ledger import AttemptRow, Ledger, Statuses
from pytest_manifest.ledger.descendants import SlowestTree, TreeStep
from pytest_manifest.ledger.rows import damaged
from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema import summary as schema
from pytest_manifest.schema.statuses import OF_ITS_PROCESS
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.explanation import TreeText, counts_text, failed_of, number_of
from pytest_manifest.verdict.tree import descendant_of

NOT_KNOWN: Final = "not known"
ENDS_SHOWN: Final = 6
"""Steps of a long path that are shown from each of its ends."""
_FAILED_SHOWN: Final = 20
"""Entries with failed descendants that are listed, at most."""


# Of an entry


def tree_text(
    ledger: Ledger, root: str, verdict: Verdict, receipt: Receipt | None
) -> TreeText | None:
    """Return what to tell of an attempt's descendants; None where it has none.

    The first that failed is among that if it is what the ``verdict`` rests on.
    """
    counts = ledger.trees.statuses_of([root]).get(root, {})
    phrases = [counts_text(counts)] if number_of(counts) else []
    if reason := unknown(ledger, root, _said(receipt)):
        phrases.append(f"descendants: {NOT_KNOWN} ({reason})")
    if not phrases:
        return None
    phrase = "; ".join(phrases)
    one = descendant_of(verdict)
    if one is None:
        return TreeText(phrase)
    from pytest_manifest.verdict.judging import receipt_that_counts

    return TreeText(phrase, one.task, one.task_id, receipt_that_counts(ledger, one.task_id))


def properties_of_tree(
    ledger: Ledger, root: str, receipt: Mapping[str, JsonValue]
) -> dict[str, object]:
    """Return the properties of an attempt's descendants; ``receipt``: its fields."""
    if unknown(ledger, root, receipt):
        return {"manifest_descendants": NOT_KNOWN}
    counts = ledger.trees.statuses_of([root]).get(root, {})
    number = number_of(counts)
    if not number:
        return {}
    return {
        "manifest_descendants": number,
        "manifest_descendants_failed": failed_of(counts),
    }


def unknown(ledger: Ledger, root: str, receipt: Mapping[str, JsonValue]) -> str:
    """Return why an attempt's descendants are not known; "" where they are.

    Only the process that ran a job can say what it started; of others all was told that there is.
    """
    source, children = receipt.get("source"), receipt.get("children")
    if source == "harness" or receipt.get("state") not in OF_ITS_PROCESS:
        return ""
    if children == 0:  # as of nearly all, which must cost no look into the ledger
        return ""
    if source == "backend":
        return problems.NoTreeReports().phrase()
    if not isinstance(children, int):
        return problems.NoTreeReportsYet().phrase()
    known = ledger.descendants.number_of_children(root, root)
    if known < children:
        return problems.ChildrenMissing(children=children, known=known).phrase()
    short, silent = ledger.descendants.number_untold(root)
    if short:
        return problems.GrandchildrenMissing(descendants=short).phrase()
    return problems.GrandchildrenUnknown(descendants=silent).phrase() if silent else ""


def not_known_of(ledger: Ledger, attempt: AttemptRow) -> str:
    """Return "not known" with the reason, "" where an attempt's descendants are known."""
    settled = ledger.verdicts.of_entry(attempt.entry)
    if settled is None or settled.receipt is None or settled.verdict.attempt != attempt.attempt:
        return ""
    reason = unknown(ledger, attempt.task_id, _said(settled.receipt))
    return f"{NOT_KNOWN} ({reason})" if reason else ""


def _said(receipt: Receipt | None) -> dict[str, JsonValue]:
    """Return the fields of a receipt that tell whether descendants are known."""
    if receipt is None:
        return {"source": "harness"}
    return receipt.model_dump(include={"source", "state", "children"})


# Of a run


def read_trees(ledger: Ledger) -> schema.SummaryDescendants:
    """Read what reports show of a run's trees. Raises LedgerError for what cannot be shown."""
    totals = ledger.trees.totals()
    slowest = ledger.trees.slowest() if totals.entries else None
    failed, more_failed = _failed_trees(ledger) if failed_of(totals.statuses) else ([], 0)
    try:
        return schema.SummaryDescendants(
            number=number_of(totals.statuses),
            statuses=_named(totals.statuses),
            entries=totals.entries,
            not_known=sum(totals.untold.values()),
            reasons=dict(totals.untold),
            failed=failed,
            more_failed=more_failed,
            slowest=None if slowest is None else _read_tree(ledger, slowest),
        )
    except ValidationError as error:
        raise damaged(ledger.path, error) from error


def _read_tree(ledger: Ledger, slowest: SlowestTree) -> schema.SummaryTree:
    ids = ledger.trees.path(slowest.root)
    left_out = max(len(ids) - 2 * ENDS_SHOWN, 0)
    steps = [ledger.trees.step(one) for one in (*ids[:ENDS_SHOWN], *ids[ENDS_SHOWN + left_out :])]
    began = steps[0].started_at
    return schema.SummaryTree(
        entry=slowest.entry,
        seconds=max(round(slowest.seconds, 3), 0.0),
        path=[
            schema.SummaryStep(
                task=step.task,
                task_id=step.task_id,
                status=step.status,
                wait=_between(step.spawned_at, step.started_at),
                start=_between(began, step.started_at),
                runtime=_between(step.started_at, step.finished_at),
            )
            for step in steps
        ],
        left_out=left_out,
    )


def runtime_of(step: TreeStep) -> float | None:
    """Return how long a step ran, in s; None where that is not known."""
    return _between(step.started_at, step.finished_at)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times, at least 0; None where one is not known."""
    return None if start is None or end is None else max((end - start).total_seconds(), 0.0)


def _named(counts: Statuses) -> dict[str, int]:
    return {status or "pending": number for status, number in counts.items()}


def _failed_trees(ledger: Ledger) -> tuple[list[schema.SummaryFailedTree], int]:
    """Return the first entries with failed descendants, and how many more there are."""
    found: list[schema.SummaryFailedTree] = []
    more = 0
    for entry, counts in ledger.trees.by_entry():
        bad = [status for status in counts if status is not None and failed_of({status: 1})]
        if not bad:
            continue
        if len(found) == _FAILED_SHOWN:
            more += 1
            continue
        first = ledger.descendants.first(ledger.attempts.of_entry(entry)[-1].task_id, bad)
        if first is not None and first.verdict is not None:
            verdict = first.verdict
            found.append(
                schema.SummaryFailedTree(
                    entry=entry,
                    statuses=_named(counts),
                    task=first.task,
                    status=verdict.verdict,
                    sentence=verdict.sentence,
                )
            )
    return found, more
