"""Read what was added to a ledger since a number of its order: whoever follows a run reads each
fact and each verdict once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.tables import RECEIPT, RUN
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import BAD, STATUSES, in_sql

_ENDS: Final = f"({Kind.ENDED:d}, {Kind.STORED:d})"
_OF_END: Final = (
    "json_extract(f.receipt, '$.state', '$.runtime', '$.evidence.cost', '$.result.cost', "
    "'$.worker')"
)
_FACTS: Final = f"""
    SELECT f.seq, f.kind, f.at, f.job, j.entry, j.name IS NOT NULL, j.root, f.worker, f.pid, f.host,
        f.how, CASE WHEN f.kind IN {_ENDS} THEN {{}} ELSE f.data END
    FROM facts f LEFT JOIN jobs j ON j.n = f.job WHERE f.seq > ? AND NOT f.aside ORDER BY f.seq
"""  # noqa: S608 - fixed text
_BAD: Final = in_sql(name for name, one in STATUSES.items() if one.outcome in BAD)
_WHY: Final = f"CASE WHEN v.status IN {_BAD} THEN {{}} END"
_VERDICTS: Final = f"""
    SELECT v.seq, v.entry, v.status, v.at, j.state = 'reused', {_WHY.format("v.verdict")},
        {_WHY.format(RECEIPT)}
    FROM verdicts v JOIN jobs j ON j.n = v.job AND j.entry = v.entry AND j.name IS NOT NULL
    LEFT JOIN facts f ON f.seq = v."end" WHERE NOT v.alone AND v.seq > ? ORDER BY v.seq
"""  # noqa: S608 - fixed text
_STATUSES: Final = """
    SELECT v.seq, v.entry, v.status, v.at, j.state = 'reused', NULL, NULL
    FROM verdicts v JOIN jobs j ON j.n = v.job AND j.entry = v.entry AND j.name IS NOT NULL
    WHERE NOT v.alone AND v.seq > ? ORDER BY v.seq
"""
_COLUMNS: Final = "n, entry, state, attempt, sending"
_ATTEMPTS: Final = f"SELECT {_COLUMNS}, name FROM jobs WHERE name IS NOT NULL ORDER BY n"  # noqa: S608 - fixed text
# The index has but what was sent, and counts where a query says so.
_SENT: Final = f"""
    SELECT {_COLUMNS}, sent_at FROM jobs WHERE sending > ? AND sending > 0 AND name IS NOT NULL
"""  # noqa: S608 - fixed text
_SOME: Final = f"SELECT {_COLUMNS}, sent_at FROM jobs WHERE n IN ({{}})"  # noqa: S608 - fixed text
_WAITING: Final = f"""
    SELECT j.sending, j.sent_at FROM jobs j
    WHERE j.sending >= ? AND j.sending > 0 AND j.name IS NOT NULL AND j.state IN ('sent', 'intent')
        AND NOT EXISTS (
            SELECT 1 FROM facts f WHERE f.job = j.n AND NOT f.aside
                AND f.kind IN ({Kind.STARTED:d}, {Kind.ENDED:d}, {Kind.STORED:d})
        ) AND NOT EXISTS (
            SELECT 1 FROM verdicts v WHERE v.entry = j.entry AND v.job = j.n
                AND v.status IS NOT NULL
        )
    ORDER BY j.sending LIMIT 1
"""  # noqa: S608 - fixed text
_STATE: Final = f"""
    SELECT (SELECT max(n) FROM segments), (SELECT max(n) FROM jobs), {", ".join(RUN)}
    FROM run WHERE n = 1
"""  # noqa: S608 - fixed text


class AddedFact(NamedTuple):
    """A fact that counts; of one of the run ``job`` is 0.

    ``entry`` is the entry's number, ``own``: the job is an attempt, and no descendant; ``at`` in
    microseconds. ``data``: of an end, where that is wanted, a JSON list of the receipt's state,
    runtime, cost by its evidence, by its result, and worker.
    """

    seq: int
    kind: int
    at: int
    job: int
    entry: int | None
    own: int
    root: int | None
    worker: str | None
    pid: int | None
    host: str | None
    how: str | None
    data: str | None


class AddedVerdict(NamedTuple):
    """A verdict of an entry, by its number; without a status it is taken up again.

    ``verdict`` and ``receipt``, JSON: of one that is bad, where they are wanted.
    """

    seq: int
    entry: int
    status: VerdictStatus | None
    at: int
    is_reused: int
    verdict: str | None
    receipt: str | None


class AddedAttempt(NamedTuple):
    """An attempt's number, its entry's, and its sending.

    ``more``: its entry's id, or ``sent_at``.
    """

    n: int
    entry: int
    state: rows.SendState
    attempt: int
    sending: int
    more: str | None


class Additions(LedgerPart):
    """The rows that are new since a number of the ledger's order."""

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Have all that is read inside be of one moment, whatever is committed meanwhile."""
        self._db.read_one("BEGIN")
        try:
            yield
        finally:
            if self._db.connection.in_transaction:
                self._db.read_one("COMMIT")

    def state(self) -> Mapping[str, object]:
        """Return the columns of the run, and the last ``segment`` and ``job``."""
        row = self._db.read_one(_STATE) or ()
        return dict(zip(("last_segment", "last_job", *RUN), row, strict=False))

    def version(self) -> int:
        """Return a number that changes when another connection has committed something."""
        return self._db.number("PRAGMA data_version")

    def facts(self, after: int, *, detail: bool) -> Iterator[AddedFact]:
        """Yield the facts after a number, in order; ``detail``: with what ends say."""
        query = _FACTS.format(_OF_END if detail else "NULL")
        return (AddedFact(*row) for row in self._db.read(query, (after,)))

    def verdicts(self, after: int, *, detail: bool) -> Iterator[AddedVerdict]:
        """Yield the verdicts on entries after a number; ``detail``: with why they are bad."""
        query = _VERDICTS if detail else _STATUSES
        return (AddedVerdict(*row) for row in self._db.read(query, (after,)))

    def attempts(self) -> Iterator[AddedAttempt]:
        """Yield all attempts, with the ids of their entries."""
        return (AddedAttempt(*row) for row in self._db.read(_ATTEMPTS))

    def sent(self, after: int) -> Iterator[AddedAttempt]:
        """Yield the attempts that were sent after a number, be it again."""
        return (AddedAttempt(*row) for row in self._db.read(_SENT, (after,)))

    def oldest_waiting(self, sending: int) -> tuple[int, str | None] | None:
        """Return number and time of the first sending, from this number on, that waits yet.

        What none has begun waits, and what has a verdict does not. None: nothing waits.
        """
        row = self._db.read_one(_WAITING, (sending,))
        return None if row is None else (row[0], row[1])

    def some(self, jobs: Sequence[int]) -> Iterator[AddedAttempt]:
        """Yield the attempts of these numbers."""
        return (AddedAttempt(*row) for row in self._db.of_each(_SOME, jobs))

    def names(self, entries: Sequence[int]) -> Mapping[int, str]:
        """Return the ids of these entries by their numbers."""
        query = "SELECT n, name FROM jobs WHERE n IN ({}) AND name IS NOT NULL"
        return {int(n): str(name) for n, name in self._db.of_each(query, entries)}
