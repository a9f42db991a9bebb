"""Define batch jobs of a service: many requests at half the price, answered within a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from tasks.text_model.base import Billed, TextAnswer, TextModel, TextRequest
from tasks.text_model.failures import ModelFailure

JobState = Literal["waiting", "succeeded", "failed", "cancelled", "expired"]
"""``waiting`` is all that has not ended; ``succeeded`` may have answered a part alone."""

ENVELOPE: Final = ("request", "digest", "items")
"""The members of an answer: its request's key and digest, which it brings back, and its items."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request of a job, under the key that its answer is to be joined by."""

    key: str
    request: TextRequest


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that can be created; ``file`` names its requests at the service, None: inline."""

    display_name: str
    requests: tuple[KeyedRequest, ...]
    file: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceJob:
    """A job as the service tells of it; ``name`` is the service's own for it."""

    name: str
    display_name: str
    state: JobState
    created: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether no more answers will come."""
        return self.state != "waiting"


@dataclass(frozen=True, slots=True)
class KeyedReply:
    """An answer or a failure of a job; ``key`` is "" where the service names no request."""

    key: str
    answer: TextAnswer | None = None
    failure: ModelFailure | None = None

    @property
    def billed(self) -> Billed:
        """Return what it was billed."""
        if self.answer is not None:
            return self.answer.billed
        return Billed() if self.failure is None else self.failure.billed


class BatchJobs(TextModel, Protocol):
    """A model that has batch jobs, too. Every method blocks, and raises ModelFailure."""

    def prepare(self, display_name: str, requests: Sequence[KeyedRequest]) -> PreparedJob:
        """Send what a job needs before it is created. Nothing is paid for yet."""

    def create(self, prepared: PreparedJob) -> ServiceJob:
        """Have the requests answered by a new job, which is paid for, by one call.

        After a failure other than a refusal it may have been created all the same.
        """

    def get(self, name: str) -> ServiceJob:
        """Return a job as it is now."""

    def named(self, display_name: str) -> list[ServiceJob]:
        """Return all jobs of this display name, the oldest first."""

    def replies(self, name: str) -> list[KeyedReply]:
        """Return what has come of a job that has ended, in any order."""

    def cancel(self, name: str) -> None:
        """Ask the service to end a job; it may take a while, and answer some requests yet."""
