"""Look at a batch job at the service: whether it has ended, takes too long, or is not there.

A job that is bought again while it is there is paid for twice, so that none is taken for lost on
one word of the service.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from loguru import logger

from tasks.filling.job_requests import absence
from tasks.movie_bible.jobs import JobBook, StoredJob
from tasks.text_model import failures
from tasks.text_model.failures import ModelFailure
from tasks.text_model.jobs import BatchJobs, KeyedReply

AFTER_CANCEL: Final = 1 / 24
"""The share of its patience for which a job is waited for that was cancelled."""


@dataclass(frozen=True, slots=True)
class JobTimes:
    """Seconds: between two looks, until a job is cancelled, and of a search for a created one."""

    poll: float
    patience: float
    settle: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The replies of a job that has ended.

    ``absent`` is the failure of its requests without an answer; None: there is no other reason than
    that the answer is missing.
    """

    replies: list[KeyedReply]
    absent: ModelFailure | None


class JobWatch:
    """Looks at jobs that were created; what it does to them is recorded in ``book``."""

    def __init__(self, book: JobBook, jobs: BatchJobs, times: JobTimes) -> None:
        self._book, self._jobs, self._times = book, jobs, times

    def ended(self, job: StoredJob) -> Ended | None:
        """Return what a job has brought; None where it is to be looked at later.

        Raises a ModelFailure that no later look can overcome.
        """
        assert job.service_name is not None
        try:
            return self._look(job, job.service_name)
        except ModelFailure as failure:
            if failure.fatal:
                raise
            _put_off(job, failure)
            return None

    def cancel(self, name: str) -> None:
        """Ask for a job's end. One that has ended meanwhile is read as any other one."""
        try:
            self._jobs.cancel(name)
        except failures.BadRequest as failure:
            logger.warning("{} is not cancelled, and looked at again: {}", name, failure)

    def _look(self, job: StoredJob, name: str) -> Ended | None:
        try:
            service = self._jobs.get(name)
        except failures.ModelNotFound as failure:
            if not self._is_gone(job, name):
                _put_off(job, failure)
                return None
            said = f"{job.display_name} is not there any more: {failure}"
            return Ended([], failures.JobLost(said))
        absent = absence(service) if service.has_ended else self._impatient(job, name)
        if absent is None and not service.has_ended:
            return None
        try:
            return Ended(self._jobs.replies(name), absent)
        except failures.ModelNotFound as failure:
            if not self._is_overdue(job):
                _put_off(job, failure)
                return None
            said = f"the answers of {job.display_name} are not there: {failure}"
            return Ended([], failures.JobLost(said))

    def _is_gone(self, job: StoredJob, name: str) -> bool:
        """Return whether the service has a job no more of which it says so.

        One that it has only just created, it may not find everywhere yet; and what answers 404 to
        everything, as a proxy does whose service is away, has no list of jobs either: that raises.
        """
        if self._is_overdue(job):
            return True
        if job.asked_at and _now() - job.asked_at < timedelta(seconds=self._times.settle):
            return False
        return all(one.name != name for one in self._jobs.named(job.display_name))

    def _is_overdue(self, job: StoredJob) -> bool:
        return _now() - job.created_at >= timedelta(seconds=self._times.patience)

    def _impatient(self, job: StoredJob, name: str) -> ModelFailure | None:
        """Cancel a job that takes too long; return the failure of one that even so does not end."""
        if job.cancelled_at is not None:
            if _now() - job.cancelled_at < timedelta(seconds=self._times.patience * AFTER_CANCEL):
                return None
            return failures.JobStuck(
                f"{job.display_name} ({name}) was cancelled and does not end; look for "
                "it at the service, as it may be answered and billed yet"
            )
        if self._is_overdue(job):
            logger.warning("{} takes too long, and is cancelled", job.display_name)
            self.cancel(name)
            self._book.change(job.display_name, cancelled_at=_now())
        return None


def _put_off(job: StoredJob, failure: ModelFailure) -> None:
    logger.warning("{} is looked at later: {}", job.display_name, failure)


def _now() -> datetime:
    return datetime.now(timezone.utc)
