"""Keep the batch jobs of a service, so that what was bought is found again and told once.

A job is recorded before it is created, with its requests. The answer to a request is settled in the
transaction that writes its rows, by whoever comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

from pydantic import JsonValue
from sqlalchemy import insert, select, update

from tasks.movie_bible.connecting import Store
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.models import BatchJob, BatchRequest
from tasks.movie_bible.records import NewAnnotation, Written
from tasks.movie_bible.writing import insert_into, write_rows

JobRecordState = Literal["intended", "created", "ended", "absent"]
"""``absent``: the service was asked for it, and has it not; it was never paid for."""

Document = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job of an entry of a run; ``number`` counts the entry's jobs from 1.

    ``service_name`` is None until the service has told it. ``asked_at`` is when the service was
    asked to create it, None where it certainly was not. Times are UTC.
    """

    display_name: str
    run: str
    entry: str
    number: int
    state: JobRecordState
    service_name: str | None
    created_at: datetime
    asked_at: datetime | None
    cancelled_at: datetime | None


@dataclass(frozen=True, slots=True)
class AskedPassage:
    """A passage of a request: its key within it, and what was to be filled from which text."""

    key: str
    passage: str
    fields: tuple[str, ...]
    text_digest: str

    def as_json(self) -> Document:
        """Return it as it is stored."""
        return {
            "key": self.key,
            "passage": self.passage,
            "fields": [*self.fields],
            "text_digest": self.text_digest,
        }


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request of a job: ``outcome`` is None until it is settled, ``told_by`` until it is told.

    ``account`` is what has come of it, and what it was billed.
    """

    key: str
    job: str
    digest: str
    passages: tuple[AskedPassage, ...] = ()
    outcome: str | None = None
    account: Mapping[str, JsonValue] = field(default_factory=dict)
    told_by: int | None = None


class JobBook:
    """The jobs of a movie bible. Every method raises BibleError where the database fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def jobs(self, run: str, entry: str) -> list[StoredJob]:
        """Return the jobs of an entry, by their numbers."""
        columns = [getattr(BatchJob, name) for name in StoredJob.__dataclass_fields__]
        query = select(*columns).where(BatchJob.run == run, BatchJob.entry == entry)
        with self._store.reading() as connection:
            found = connection.execute(query.order_by(BatchJob.number))
            return [StoredJob(*row) for row in found]

    def requests(self, run: str, entry: str) -> list[StoredRequest]:
        """Return the requests of all jobs of an entry, in the order of jobs and keys."""
        columns = [getattr(BatchRequest, name) for name in StoredRequest.__dataclass_fields__]
        query = (
            select(*columns)
            .join(BatchJob, BatchJob.display_name == BatchRequest.job)
            .where(BatchJob.run == run, BatchJob.entry == entry)
            .order_by(BatchJob.number, BatchRequest.key)
        )
        with self._store.reading() as connection:
            return [
                StoredRequest(
                    row.key,
                    row.job,
                    row.digest,
                    _passages(row.passages),
                    row.outcome,
                    row.account or {},
                    row.told_by,
                )
                for row in connection.execute(query)
            ]

    def uncollected(self) -> dict[str, int]:
        """Count by run the passages of requests that were or may be bought, and are not settled."""
        query = (
            select(BatchJob.run, BatchRequest.passages)
            .join(BatchJob, BatchJob.display_name == BatchRequest.job)
            .where(BatchRequest.outcome.is_(None), BatchJob.state.in_(["intended", "created"]))
            .order_by(BatchJob.created_at)
        )
        found: dict[str, int] = {}
        with self._store.reading() as connection:
            for run, passages in connection.execute(query):
                found[run] = found.get(run, 0) + len(passages)
        return found

    def intend(self, job: StoredJob, requests: Sequence[StoredRequest]) -> bool:
        """Record a job that is about to be created; False where its number is taken already."""
        values = {name: getattr(job, name) for name in StoredJob.__dataclass_fields__}
        rows = [
            {
                "key": one.key,
                "job": job.display_name,
                "digest": one.digest,
                "passages": [passage.as_json() for passage in one.passages],
            }
            for one in requests
        ]
        with self._store.writing() as connection:
            into = insert_into(connection, BatchJob).values(**values).on_conflict_do_nothing()
            if connection.execute(into.returning(BatchJob.display_name)).first() is None:
                return False
            connection.execute(insert(BatchRequest), rows)
        return True

    def change(self, display_name: str, **values: object) -> None:
        """Set columns of a job."""
        with self._store.writing() as connection:
            connection.execute(
                update(BatchJob).where(BatchJob.display_name == display_name).values(**values)
            )

    def claim(self, display_name: str, now: datetime) -> bool:
        """Record that a job is being created; False where somebody else does so already."""
        with self._store.writing() as connection:
            claim = (
                update(BatchJob)
                .where(BatchJob.display_name == display_name, BatchJob.asked_at.is_(None))
                .values(asked_at=now)
            )
            return connection.execute(claim).rowcount > 0

    def settle(
        self, key: str, outcome: str, account: Document, rows: Sequence[NewAnnotation] = ()
    ) -> bool:
        """Write the rows of an answer, and record what has come of its request, at once.

        ``account`` gets ``rows``: of each row what was written. False, and nothing is written,
        where it was settled before.
        """
        with self._store.writing() as connection:
            claim = (
                update(BatchRequest)
                .where(BatchRequest.key == key, BatchRequest.outcome.is_(None))
                .values(outcome=outcome, account=account)
            )
            if connection.execute(claim).rowcount == 0:
                return False
            if rows:
                written = write_rows(connection, rows, datetime.now(timezone.utc))
                told: Document = {
                    row.passage_id: _told(row, written[row.passage_id]) for row in rows
                }
                connection.execute(
                    update(BatchRequest)
                    .where(BatchRequest.key == key)
                    .values(account={**account, "rows": told})
                )
        return True

    def settle_foreign(self, job: str, number: int, account: Document) -> None:
        """Record an answer that nobody has asked for, once; ``number`` counts those of the job."""
        values = {
            "key": f"{job} foreign {number}",
            "job": job,
            "digest": "",
            "passages": [],
            "outcome": "answer_foreign",
            "account": account,
        }
        with self._store.writing() as connection:
            connection.execute(
                insert_into(connection, BatchRequest).values(**values).on_conflict_do_nothing()
            )

    def tell(self, keys: Sequence[str], attempt: int) -> None:
        """Record that an attempt has told of these requests, so that no other one does."""
        with self._store.writing() as connection:
            for key in keys:
                connection.execute(
                    update(BatchRequest).where(BatchRequest.key == key).values(told_by=attempt)
                )


def _passages(stored: Sequence[Mapping[str, JsonValue]]) -> tuple[AskedPassage, ...]:
    return tuple(
        AskedPassage(
            str(one["key"]),
            str(one["passage"]),
            tuple(map(str, fields)) if isinstance(fields := one["fields"], list) else (),
            str(one["text_digest"]),
        )
        for one in stored
    )


def _told(row: NewAnnotation, written: Written) -> Document:
    values: Document = {name: value for name, value in row.values.items() if value is not None}
    return {
        "action": written.action,
        "revision": written.revision,
        "digest": values_digest(values),
        "fields": [*values],
        "answered_by": row.answered_by,
        "service_tier": row.service_tier,
        "attempt": row.attempt,
        "share": [row.tokens_in, row.tokens_out, row.cost_nanos, row.tokens_cached or 0],
    }
