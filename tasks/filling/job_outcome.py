"""Report on an entry whose gaps were filled by batch jobs, as its task's result or as evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tasks.filling.carried import CHANGED
from tasks.filling.job_purchase import Purchase
from tasks.filling.job_report import count, why_of
from tasks.filling.order import Order
from tasks.filling.report import Report
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.jobs import StoredRequest

NEVER_ASKED = "not_asked", "no batch job was asked for it"


def report_of(
    bible: MovieBible,
    purchase: Purchase,
    untold: Sequence[StoredRequest],
    ids: Sequence[str],
    order: Order,
    changed: Collection[str],
) -> Report:
    """Return what has become of the passages, and what it has cost by the requests ``untold``."""
    report = Report()
    count(report, untold)
    asked = purchase.asked()
    passages = bible.scan_ids(ids, order.prompt)
    for name in ids:
        passage = passages.get(name)
        if name in changed:
            report.gave_up(name, *CHANGED)
        elif passage is None:
            report.gave_up(name, "no_passage", "the database has no passage of this id")
        elif order.gap_of(passage) is not None:
            before = asked.get(name)
            report.gave_up(name, *(why_of(before[-1], name) if before else NEVER_ASKED))
        elif name not in report.rows:
            report.was_there(name, passage.current)
    return report
