"""Settle the requests of a job that has ended: write their rows, and record what was billed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loguru import logger
from pydantic import JsonValue

from tasks.filling.answers import Reading, read_answer
from tasks.filling.asking import Asker
from tasks.filling.gaps import Gap
from tasks.filling.job_report import ANSWERED, account_of
from tasks.filling.job_requests import Joined, Settled
from tasks.filling.order import Order
from tasks.filling.prompts import Wanted
from tasks.filling.shares import Spent
from tasks.filling.writing import Provenance, RowWriter, Values
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.jobs import StoredJob, StoredRequest
from tasks.movie_bible.records import NewAnnotation, ScannedPassage
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import BATCH
from tasks.text_model.failures import MalformedAnswer, ModelFailure


class Settler:
    """Settles requests for one execution of a task; what was settled before is left alone."""

    def __init__(self, bible: MovieBible, asker: Asker, whose: Provenance) -> None:
        self._bible, self._asker, self._whose = bible, asker, whose
        self._accepted = asker.accepted or Accepted(asker.model.name)

    def settle(
        self, job: StoredJob, requests: Sequence[StoredRequest], joined: Joined, order: Order
    ) -> None:
        """Settle all requests of a job, each in a transaction of its own."""
        for number, (said, billed) in enumerate(joined.foreign, 1):
            spent = self._asker.spent([billed])
            account = account_of([billed], spent, message=said, foreign=[said])
            self._bible.jobs.settle_foreign(job.display_name, number, account)
        outcomes = Counter(
            self._settle(request, joined.settled[request.key], order)
            for request in requests
            if request.outcome is None
        )
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(outcomes.items()))
        logger.info("requests of {}: {}", job.display_name, told or "all settled before")

    def _settle(self, request: StoredRequest, found: Settled, order: Order) -> str:
        """Settle one request; returns its outcome."""
        spent = self._asker.spent(found.bills)
        failure = self._other_model(found) or found.failure
        reading = Reading()
        if failure is None and found.answer is not None:
            wanted = {one.key: Wanted(one.passage, "", one.fields) for one in request.passages}
            try:
                reading = read_answer(found.answer.text, wanted)
            except MalformedAnswer as error:
                failure = error
        account = account_of(
            found.bills,
            spent,
            message="" if failure is None else str(failure),
            problems={name: (one.kind, one.message) for name, one in reading.problems.items()},
            foreign=reading.foreign,
        )
        answered_by = None if found.answer is None else found.answer.model
        rows = self._rows(request, reading, spent, answered_by, order)
        outcome = ANSWERED if failure is None else failure.kind
        self._bible.jobs.settle(request.key, outcome, account, rows)
        return outcome

    def _other_model(self, found: Settled) -> ModelFailure | None:
        """Return the refusal of an answer, good or not, of a model that nobody has asked."""
        if found.answer is not None and not self._accepted.takes(found.answer.model):
            return self._accepted.refusal(found.answer.billed)
        others = [one for one in found.bills if one.model and not self._accepted.takes(one.model)]
        return self._accepted.refusal(others[0]) if others else None

    def _rows(
        self,
        request: StoredRequest,
        reading: Reading,
        spent: Spent,
        answered_by: str | None,
        order: Order,
    ) -> list[NewAnnotation]:
        """Return the rows of an answer: of what is still a gap, and of the text that was read."""
        asked = {one.passage: one for one in request.passages}
        passages = self._bible.scan_ids([*reading.values], order.prompt)
        values: dict[str, Values] = {}
        gaps: dict[str, Gap] = {}
        for name, told in reading.values.items():
            passage = passages.get(name)
            gap = None if passage is None else order.gap_of(passage)
            if gap is None or not _is_of(passage, asked[name].text_digest):
                continue
            kept: dict[str, JsonValue] = {f: v for f, v in told.items() if f in gap.fields}
            if kept:
                values[name], gaps[name] = kept, gap
        writer = RowWriter(self._bible, self._asker, self._whose, gaps, passages)
        model = (answered_by or "").removeprefix("models/") or None
        shares = spent.share(len(values)) if values else []
        return [
            writer.row(name, kept, share, model, BATCH)
            for (name, kept), share in zip(values.items(), shares, strict=True)
        ]


def _is_of(passage: ScannedPassage | None, text_digest: str) -> bool:
    return passage is not None and passage.text_digest == text_digest
