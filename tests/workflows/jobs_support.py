"""An entry whose gaps batch jobs fill, in this process, and what it is held to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tasks.filling.asking import Asker
from tasks.filling.job_outcome import report_of
from tasks.filling.job_purchase import JobLimits, Purchase
from tasks.filling.job_report import ANSWERED
from tasks.filling.job_watching import JobTimes
from tasks.filling.order import Order, PlannedModel
from tasks.filling.report import Report
from tasks.filling.shares import Spent
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import FIELDS
from tasks.text_model.base import BATCH
from tasks.text_model.jobs import BatchJobs
from tasks.text_model.limits import NoLimit
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import RetryPolicy
from tasks.text_model.settings import DEFAULT_GEMINI, GOOGLE_GENAI
from tests.workflows.filling_support import PROMPT, documents, order
from tests.workflows.gemini_server import GeminiServer, filled
from tests.workflows.gemini_support import cost_nanos
from tests.workflows.live.test_gap_fill_faults import SHAPES

RUN: Final = "RUN"
SUBMIT: Final = "submit-00001"
COLLECT: Final = "collect-00001"
PLANNED: Final = PlannedModel(provider=GOOGLE_GENAI, name=DEFAULT_GEMINI, tier=BATCH)
PATIENT: Final = JobTimes(poll=0.0, patience=600.0, settle=600.0)
"""A job whose creation was not answered is looked for until the server lists it."""

LIMITS: Final = JobLimits(per_call=5, asks_alone=12)
SECONDS: Final = 600.0
"""In which an entry must be done: nothing here waits for anything but the server."""


def asker(jobs: BatchJobs) -> Asker:
    """The model, at the project's prices of the tier."""
    return Asker(jobs, NoLimit(), RetryPolicy(), PriceTable.load(), PROMPT, PLANNED.accepted, BATCH)


@dataclass
class EntryRig:
    """Submits and collects for one pair of entries, as their tasks do."""

    bible: MovieBible
    jobs: BatchJobs
    ids: Sequence[str]
    times: JobTimes = PATIENT
    limits: JobLimits = LIMITS
    order: Order = field(default_factory=lambda: order(model=PLANNED))
    submit_entry: str = SUBMIT
    collect_entry: str = COLLECT
    evidence: dict[int, Report] = field(default_factory=dict)
    """What each attempt has told, also where it was killed right after."""

    def purchase(self, entry: str, attempt: int) -> Purchase:
        """The jobs of the pair, for an attempt of one of the two."""
        whose = Provenance(RUN, entry, attempt)
        return Purchase(
            self.bible,
            self.jobs,
            asker(self.jobs),
            self.times,
            self.limits,
            self.submit_entry,
            whose,
            lambda _: None,
        )

    def submit(self, attempt: int = 1) -> None:
        """Submit, as an attempt of the first entry."""
        purchase = self.purchase(self.submit_entry, attempt)
        until_done(lambda: purchase.submit(self.ids, self.order))

    def collect(self, attempt: int = 1) -> Report:
        """Collect, as an attempt of the second entry, and tell of it also where it raises."""
        purchase = self.purchase(self.collect_entry, attempt)
        try:
            until_done(lambda: purchase.collect(self.ids, self.order))
        except Exception:
            self.report(purchase, attempt)
            raise
        return self.report(purchase, attempt)

    def report(self, purchase: Purchase, attempt: int) -> Report:
        """What the attempt tells: as evidence, and then it is recorded that it has."""
        untold = purchase.untold()
        report = report_of(self.bible, purchase, untold, self.ids, self.order, ())
        self.evidence[attempt] = report
        purchase.tell(untold)
        return report

    def told(self) -> list[Report]:
        """What was told by the attempts that are recorded to have told it."""
        requests = self.bible.jobs.requests(RUN, self.submit_entry)
        attempts = {one.told_by for one in requests} - {None}
        return [report for attempt, report in self.evidence.items() if attempt in attempts]


def until_done(step: Callable[[], float | None]) -> None:
    """Take steps one after another until there is nothing to wait for."""
    deadline = time.monotonic() + SECONDS
    while step() is not None:
        assert time.monotonic() < deadline, "the entry is not done"


def ids_of(number: int) -> list[str]:
    return [one.id for one in documents(number)]


def check_rows(bible: MovieBible, number: int) -> None:
    """Each row is what the planned model says of its very passage, and was written once."""
    rows = bible.annotations(ids_of(number), PROMPT.version)
    assert sorted(rows) == ids_of(number)
    for one in documents(number):
        row = rows[one.id]
        assert row.values == {name: filled(name, one.text, SHAPES[name]) for name in FIELDS}
        assert (row.revision, row.model, row.answered_by) == (1, DEFAULT_GEMINI, DEFAULT_GEMINI)
        assert row.service_tier == BATCH


def check_bought_once(bible: MovieBible, server: GeminiServer, entries: Sequence[str]) -> None:
    """No request was accepted twice, none that nobody recorded, and no passage after its answer."""
    accepted = Counter(key for job in server.jobs.jobs if job.hidden >= 0 for key in job.keys)
    recorded: set[str] = set()
    for entry in entries:
        answered: set[str] = set()
        for request in bible.jobs.requests(RUN, entry):
            if not request.passages:
                continue
            recorded.add(request.key)
            for one in request.passages:
                if accepted[request.key]:
                    assert one.passage not in answered, f"{one.passage} was bought twice"
                problems = request.account.get("problems")
                if request.outcome == ANSWERED and isinstance(problems, dict):
                    answered |= {one.passage} - set(problems)
    assert set(accepted.values()) <= {1}
    assert set(accepted) <= recorded


def check_cost(server: GeminiServer, bible: MovieBible, told: Sequence[Report], rows: int) -> None:
    """To the token and the nano dollar: in what is told, and as rows and waste."""
    spent = sum((one.spent for one in told), Spent())
    in_rows = sum((one.in_rows for one in told), Spent())
    assert (spent.tokens_in, spent.tokens_out) == server.billed
    assert spent.cost_nanos == sum(map(cost_nanos, server.calls)) > 0
    assert spent.cached == sum(call.cached for call in server.calls)
    stored = bible.annotations(ids_of(rows), PROMPT.version).values()
    assert sum(row.cost_nanos for row in stored) == in_rows.cost_nanos
    assert sum(row.tokens_in for row in stored) == in_rows.tokens_in
    assert {tier for one in told for tier in one.tiers} <= {BATCH}
