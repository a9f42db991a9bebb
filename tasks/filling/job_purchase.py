"""Have the gaps of an entry filled by batch jobs of the service, step by step.

Each step looks at what is recorded, does what can be done at once, and says how long to wait: so it
can be taken by any process, and again after a crash. A job is recorded before it is created; where
its creation was not answered it is looked for, and created anew only where the service has it not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from loguru import logger
from pydantic import JsonValue

from tasks.filling.asking import Asker, Group
from tasks.filling.cap import Cap
from tasks.filling.job_report import rows_of, spent_of, why_of
from tasks.filling.job_requests import as_sent, join, new_request
from tasks.filling.job_settling import Settler
from tasks.filling.job_watching import JobTimes, JobWatch
from tasks.filling.order import Order
from tasks.filling.prompts import Wanted
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.jobs import StoredJob, StoredRequest
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model import failures
from tasks.text_model.failures import ModelFailure
from tasks.text_model.jobs import BatchJobs, KeyedRequest
from tasks.text_model.keyed import new_nonce

LONGEST_SEARCH: Final = 5.0
"""Seconds between two searches for a job whose creation was not answered, at most."""
MOST_ROOM: Final = 4
"""Later jobs of an entry allow longer answers, so many times the usual length at most."""

KINDS: Final[Mapping[str, type[ModelFailure]]] = {
    one.kind: one for one in ModelFailure.__subclasses__()
}

Open = tuple[ScannedPassage, tuple[str, ...]]
"""A passage, and its fields that are gaps."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """``per_call``: passages in a request; ``asks_alone``: further requests for one of them."""

    per_call: int
    asks_alone: int


class Purchase:
    """The batch jobs of one entry. ``entry`` is the one that submits, ``whose`` the running job.

    ``told`` is told of all jobs whenever something is known anew, and before any is asked about.
    Every method raises BibleError where the database fails.
    """

    def __init__(
        self,
        bible: MovieBible,
        jobs: BatchJobs,
        asker: Asker,
        times: JobTimes,
        limits: JobLimits,
        entry: str,
        whose: Provenance,
        told: Callable[[list[JsonValue]], None],
    ) -> None:
        if whose.run is None or whose.attempt is None:
            raise ValueError("batch jobs are those of an entry of a run")
        self._bible, self._jobs, self._asker = bible, jobs, asker
        self._times, self._limits = times, limits
        self._watch = JobWatch(bible.jobs, jobs, times)
        self._run, self._entry, self._attempt = whose.run, entry, whose.attempt
        self._settler = Settler(bible, asker, whose)
        self._told = told

    def submit(self, ids: Sequence[str], order: Order) -> float | None:
        """Have a job created for all gaps, once; seconds to wait, None where that is done.

        Raises CapReachedError, and a ModelFailure where the service takes no job.
        """
        jobs = self._tell_jobs()
        if all(job.state == "absent" for job in jobs):
            gaps = self.gaps(ids, order)
            if gaps and not self._intend(_after(jobs), self._groups(gaps, {}), order):
                return 0.0  # another process was faster
        return self._see_created(order)

    def collect(self, ids: Sequence[str], order: Order) -> float | None:
        """Read what has come, and have what is missing asked for again; seconds to wait, or None.

        Raises a ModelFailure that no further job can overcome, and CapReachedError; what was read
        is committed then.
        """
        # Before all else: where another process records a job meanwhile, it has this number.
        number = _after(self._tell_jobs())
        wait = self._see_created(order)
        if wait is None:
            wait = self._read_ended(order)
        if wait is not None:
            return wait
        wait = self._see_late_ones()
        if wait is not None:
            return wait
        return 0.0 if self._ask_again(number, ids, order) else None

    def gaps(self, ids: Sequence[str], order: Order) -> list[Open]:
        """Return the passages that lack something, in the order of ids."""
        passages = self._bible.scan_ids(ids, order.prompt)
        there = [passages[one] for one in ids if one in passages]
        return [(one, gap.fields) for one in there if (gap := order.gap_of(one)) is not None]

    def untold(self) -> list[StoredRequest]:
        """Return the settled requests of which no attempt has told yet, as they were asked."""
        requests = self._bible.jobs.requests(self._run, self._entry)
        return [one for one in requests if one.outcome is not None and one.told_by is None]

    def tell(self, requests: Sequence[StoredRequest]) -> None:
        """Record that this attempt tells of these requests."""
        self._bible.jobs.tell([one.key for one in requests], self._attempt)

    def documents(self) -> list[JsonValue]:
        """Return all jobs as plain JSON."""
        return [
            {
                "display_name": job.display_name,
                "name": job.service_name,
                "state": job.state,
                "created_at": job.created_at.isoformat(timespec="seconds"),
            }
            for job in self._bible.jobs.jobs(self._run, self._entry)
        ]

    def _tell_jobs(self) -> list[StoredJob]:
        self._told(self.documents())
        return self._bible.jobs.jobs(self._run, self._entry)

    def _intend(self, number: int, groups: Sequence[Sequence[Open]], order: Order) -> bool:
        """Record a job for these passages, as far as the cap allows; False where one is there."""
        name = f"{self._run}/{self._entry}/{self._attempt}/{number}"
        job = StoredJob(name, self._run, self._entry, number, "intended", None, _now(), None, None)
        affordable = self._affordable(groups, order)
        prompt = self._asker.prompt
        requests = [new_request(name, new_nonce(), group, prompt) for group in affordable]
        return self._bible.jobs.intend(job, requests)

    def _groups(
        self, gaps: Sequence[Open], asked: Mapping[str, Sequence[StoredRequest]]
    ) -> list[list[Open]]:
        """Put passages together that were never asked for; what was, is asked for alone."""
        fresh = [one for one in gaps if one[0].id not in asked]
        size = self._limits.per_call
        groups = [fresh[start : start + size] for start in range(0, len(fresh), size)]
        return [*groups, *([one] for one in gaps if one[0].id in asked)]

    def _affordable(self, groups: Sequence[Sequence[Open]], order: Order) -> list[Sequence[Open]]:
        """Return the groups that the cap allows. Raises CapReachedError where it allows none."""
        if order.cap is None:
            return [*groups]
        requests = self._bible.jobs.requests(self._run, self._entry)
        spent = spent_of(requests).cost_nanos
        cap, asked = Cap.of(order.cap, 0), 0
        allowed: list[Sequence[Open]] = []
        filled = rows_of(requests)
        there = filled + sum(map(len, groups))
        if self._asker.price is None:
            raise cap.unpriced(self._asker.model.name, filled=filled, passages=there)
        for group in groups:
            estimate = self._asker.estimated_nanos(Group(tuple(_wanted(one) for one in group)))
            if not cap.allows(spent + asked, estimate):
                if allowed:
                    break
                raise cap.refusal(spent, estimate, filled=filled, passages=there)
            asked += estimate
            allowed.append(group)
        return allowed

    def _see_created(self, order: Order) -> float | None:
        """See to it that each job is created; seconds to wait where one may or may not be."""
        for job in self._tell_jobs():
            if job.state != "intended":
                continue
            wait = self._create(job, order) if job.asked_at is None else self._search(job)
            self._tell_jobs()
            if wait is not None:
                return wait
        return None

    def _create(self, job: StoredJob, order: Order) -> float | None:
        requests = self._as_sent(job, order)
        if requests is None:  # a text has changed since, so something else is to be asked
            self._change(job, state="absent")
            return 0.0
        is_asked = False
        try:
            prepared = self._jobs.prepare(job.display_name, requests)
            is_asked = self._bible.jobs.claim(job.display_name, _now())
            if not is_asked:
                return self._pause()  # another process is about it
            created = self._jobs.create(prepared)
        except ModelFailure as failure:
            return self._not_created(job, failure, is_asked=is_asked)
        self._change(job, state="created", service_name=created.name)
        return None

    def _not_created(self, job: StoredJob, failure: ModelFailure, *, is_asked: bool) -> float:
        """Record whether a job may be there all the same; raise what no other try can overcome."""
        if failure.fatal or isinstance(failure, failures.TooLong):
            if is_asked:
                self._change(job, state="absent", asked_at=None)
            raise failure
        logger.warning("{} is not created: {}", job.display_name, failure)
        if is_asked and not isinstance(failure, failures.RateLimited):
            return self._pause()
        if is_asked:  # it was refused, so it is certainly not there
            self._change(job, asked_at=None)
        # No longer, whatever the service asks for: a message that waits longer than the broker's
        # visibility timeout is delivered twice.
        return min(failure.retry_after or self._times.poll, self._times.poll)

    def _as_sent(self, job: StoredJob, order: Order) -> list[KeyedRequest] | None:
        requests = self._requests_of(job)
        ids = [passage.passage for one in requests for passage in one.passages]
        passages = self._bible.scan_ids(ids, order.prompt)
        room = min(job.number, MOST_ROOM)
        sent = [
            as_sent(one, passages, self._asker.prompt, timeout=self._times.patience, room=room)
            for one in requests
        ]
        found = [one for one in sent if one is not None]
        return found if len(found) == len(sent) else None

    def _search(self, job: StoredJob) -> float | None:
        """Look for a job that may have been created; where it stays away, it is not there."""
        try:
            named = self._jobs.named(job.display_name)
        except ModelFailure as failure:
            if failure.fatal:
                raise
            logger.warning("{} is not looked for: {}", job.display_name, failure)
            return self._pause()
        if named:
            self._change(job, state="created", service_name=named[0].name)
            return None
        if job.asked_at and _now() - job.asked_at < timedelta(seconds=self._times.settle):
            return self._pause()
        logger.warning("{} was asked for, and is not there", job.display_name)
        self._change(job, state="absent")
        return 0.0

    def _see_late_ones(self) -> float | None:
        """Find jobs that were given up as not there, and are: what they bring is read as well."""
        wait: float | None = None
        for job in self._bible.jobs.jobs(self._run, self._entry):
            if job.state != "absent" or job.asked_at is None:
                continue
            try:
                named = self._jobs.named(job.display_name)
                if named:
                    logger.warning("{} is there after all, and cancelled", job.display_name)
                    self._watch.cancel(named[0].name)
            except ModelFailure as failure:
                if failure.fatal:
                    raise
                logger.warning("{} is not looked for: {}", job.display_name, failure)
                return self._pause()
            if named:
                self._change(job, state="created", service_name=named[0].name)
                wait = 0.0
        return wait

    def _pause(self) -> float:
        return min(LONGEST_SEARCH, self._times.settle / 4, self._times.poll)

    def _read_ended(self, order: Order) -> float | None:
        """Read all jobs that have ended; seconds to wait where one has not."""
        waits = [
            self._read(job, order)
            for job in self._bible.jobs.jobs(self._run, self._entry)
            if job.state == "created"
        ]
        return self._times.poll if any(waits) else None

    def _read(self, job: StoredJob, order: Order) -> bool:
        """Settle the requests of a job that has ended; returns whether to wait for one."""
        found = self._watch.ended(job)
        if found is None:
            return True
        requests = self._requests_of(job)
        self._settler.settle(job, requests, join(requests, found.replies, found.absent), order)
        self._change(job, state="ended")
        self._tell_jobs()
        return False

    def _ask_again(self, number: int, ids: Sequence[str], order: Order) -> bool:
        """Have a job recorded for what is missing and may come yet; False where nothing is."""
        asked = self.asked()
        again = []
        for passage, fields in self.gaps(ids, order):
            before = asked.get(passage.id, [])
            if before and not self._may_help(passage.id, before):
                continue
            again.append((passage, fields))
        if not again:
            return False
        self._intend(number, self._groups(again, asked), order)
        return True

    def asked(self) -> dict[str, list[StoredRequest]]:
        """Return by passage the settled requests that nobody has told of yet."""
        found: dict[str, list[StoredRequest]] = {}
        for request in self.untold():
            for one in request.passages:
                found.setdefault(one.passage, []).append(request)
        return found

    def _may_help(self, passage: str, before: Sequence[StoredRequest]) -> bool:
        """Return whether a passage is worth asking for again; raise the failure that ends all."""
        kind, said = why_of(before[-1], passage)
        failure = KINDS.get(kind)
        if failure is not None and failure.fatal:
            raise failure(said)
        if kind == failures.TooLong.kind and len(before[-1].passages) == 1:
            return False
        return len(before) <= self._limits.asks_alone

    def _requests_of(self, job: StoredJob) -> list[StoredRequest]:
        requests = self._bible.jobs.requests(self._run, self._entry)
        return [one for one in requests if one.job == job.display_name and one.passages]

    def _change(self, job: StoredJob, **values: object) -> None:
        self._bible.jobs.change(job.display_name, **values)


def _after(jobs: Sequence[StoredJob]) -> int:
    """Return the number of the job that comes after these."""
    return 1 + max((job.number for job in jobs), default=0)


def _wanted(one: Open) -> Wanted:
    passage, fields = one
    return Wanted(passage.id, passage.text, fields, passage.film)


def _now() -> datetime:
    return datetime.now(timezone.utc)
