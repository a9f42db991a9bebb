"""Find what contradicts itself in a ledger: sendings, verdicts and trees that do not fit together.

Nothing here is shared with what judges, nor may be: a fault of that would be invisible. Each query
reads whole tables in SQLite, and yields only what does not fit: memory stays flat.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.rows import Row
from pytest_manifest.ledger.tables import PRESENT, RARE
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import INFERRED, OF_ITS_PROCESS, OPEN, in_sql
from pytest_manifest.schema.stream_records import HOW_AFTER

_REPORTED: Final = f"{Kind.STARTED:d}, {Kind.HANDED_ON:d}, {Kind.ENDED:d}"
_NEVER_SENT: Final = "a.state IN ('planned', 'withheld')"
_RUN_UNSENT = f"""
    SELECT a.task_id, a.entry, a.attempt FROM attempts a WHERE {_NEVER_SENT} AND (
        EXISTS (SELECT 1 FROM starts s WHERE s.job = a.n)
        OR EXISTS (SELECT 1 FROM receipts r WHERE r.job = a.n
            AND json_extract(r.receipt, '$.source') IS NOT 'harness')
    ) ORDER BY a.ordinal, a.attempt
"""  # noqa: S608 - fixed text
_SENT_WITHOUT_TIME = f"""
    SELECT a.task_id, a.entry, a.attempt FROM attempts a
    WHERE NOT ({_NEVER_SENT}) AND a.sent_at IS NULL
    ORDER BY a.ordinal, a.attempt
"""  # noqa: S608 - fixed text
_NUMBERED_TWICE = """
    SELECT min(task_id), entry, attempt FROM attempts
    GROUP BY entry, attempt HAVING count(*) > 1
"""
_MISSING_NUMBER = """
    SELECT max(task_id), entry, max(attempt) FROM attempts WHERE state <> 'reused'
    GROUP BY entry HAVING max(attempt) <> count(DISTINCT attempt) OR min(attempt) < 1
"""
_WITHOUT_REASON = """
    SELECT task_id, entry, attempt FROM attempts WHERE attempt > 1 AND reason IS NULL
"""
_REUSED_FROM_NOWHERE = """
    SELECT task_id, entry, attempt FROM attempts
    WHERE (state = 'reused') <> (reused_from IS NOT NULL) OR (state = 'reused' AND attempt <> 0)
"""
_STRANGERS = f"""
    SELECT coalesce(j.id, ''), '', 0
    FROM (SELECT DISTINCT job FROM facts WHERE kind IN ({_REPORTED})) t
    LEFT JOIN jobs j ON j.n = t.job
    WHERE j.n IS NULL OR (j.name IS NULL AND j.how IS NULL) ORDER BY j.id
"""  # noqa: S608 - fixed text
# An entry is lost, too, where one of its descendants is: then its own job has ended.
_LOST: Final = """
    WITH lost AS (
        SELECT a.n, a.task_id, a.entry, a.attempt, v.verdict, v.seq FROM attempts a
        JOIN verdicts v ON v.seq = (
            SELECT max(w.seq) FROM verdicts w
            WHERE w.entry = a.number AND w.job = a.n AND w.status IS NOT NULL
        ) WHERE v.status = 'lost'
    )
    SELECT a.task_id, a.entry, a.attempt FROM lost a
    WHERE 'by_descendant' NOT IN (
        coalesce(json_extract(a.verdict, '$.reason.code'), ''),
        coalesce(json_extract(a.verdict, '$.reason.why.code'), '')
    )
"""
# What comes once the entry has another attempt is late: it changes no verdict. Nor does what comes
# after the verdict under the attempt's id, and is the end of something else.
_LOST_YET_ENDED = f"""
    {_LOST} AND EXISTS (
        SELECT 1 FROM receipts r WHERE r.job = a.n
            AND json_extract(r.receipt, '$.source') = 'worker'
            AND r.newest_attempt = a.attempt
            AND (NOT r.after_verdict OR (
                json_extract(r.receipt, '$.entry') = a.entry
                AND json_extract(r.receipt, '$.attempt') = a.attempt
                AND json_extract(r.receipt, '$.task_id') = a.task_id
            ))
    )
"""  # noqa: S608 - fixed text
_LOST_YET_BEGUN = f"""
    {_LOST} AND coalesce(
        json_extract(a.verdict, '$.reason.why.code'), json_extract(a.verdict, '$.reason.code'), ''
    ) NOT IN ('lost_in_flight', 'lost_between')
    AND EXISTS (
        SELECT 1 FROM starts t WHERE t.job = a.n AND NOT EXISTS (
            SELECT 1 FROM handed_on h WHERE h.job = t.job
                AND t.execution IN (h.execution, h.execution || '.' || t.pid)
        )
    )
"""  # noqa: S608 - fixed text
_PASSED_WITHOUT_RECEIPT = """
    SELECT a.task_id, s.entry, s.attempt FROM settled s
    LEFT JOIN attempts a ON a.n = s.job
    WHERE s.kind = 'passed' AND s."end" IS NULL AND s.added IS NULL
"""
# A task id begins as the id of its run ends.
_PASSED_BY_ANOTHER = """
    SELECT a.task_id, s.entry, s.attempt FROM settled s JOIN attempts a ON a.n = s.job
    LEFT JOIN facts f ON f.seq = s."end"
    WHERE s.kind = 'passed' AND (s."end" IS NOT NULL OR s.added IS NOT NULL) AND (
        json_extract(s.receipt, '$.entry')
            IS NOT coalesce(json_extract(a.reused_from, '$[1]'), s.entry)
        OR json_extract(s.receipt, '$.attempt')
            IS NOT coalesce(json_extract(a.reused_from, '$[2]'), s.attempt)
        OR (a.reused_from IS NULL) <> (json_extract(s.receipt, '$.reused') IS NULL)
        OR json_extract(s.receipt, '$.task_id') IS NOT a.task_id
        OR substr(json_extract(s.receipt, '$.run'), -8) IS NOT substr(a.task_id, 1, 8)
        OR f.job IS NOT s.job
        OR json_extract(s.receipt, '$.state') IS NOT json_extract(f.receipt, '$.state')
        OR json_extract(s.receipt, '$.result') IS NOT json_extract(f.receipt, '$.result')
    )
"""
# What was published twice has a note, and of which message its receipt is nobody knows.
_PASSED_BY_ANOTHER_SENDING = """
    SELECT a.task_id, s.entry, s.attempt FROM settled s
    JOIN attempts a ON a.n = s.job
    WHERE s.kind = 'passed' AND a.reused_from IS NULL AND a.note IS NULL
        AND abs(julianday(a.sent_at) - julianday(json_extract(s.receipt, '$.sent_at'))) > 1e-6
        AND NOT EXISTS (SELECT 1 FROM verdicts c WHERE c.entry = s.number AND c.corrects)
"""
# Only the process that ran a job reports these ends, and each execution has one.
_PASSED_AND_CONTRADICTED = f"""
    SELECT DISTINCT a.task_id, s.entry, s.attempt FROM (
        SELECT job, execution FROM receipts WHERE execution IS NOT NULL
        GROUP BY job, execution HAVING count(*) > 1
    ) r JOIN attempts a ON a.n = r.job JOIN settled s ON s.number = a.number AND s.job = a.n
    WHERE s.kind = 'passed' AND (
        SELECT count(DISTINCT json_extract(o.receipt, '$.state')) FROM receipts o
        WHERE o.job = r.job AND o.execution = r.execution
            AND json_extract(o.receipt, '$.state') IN {in_sql(OF_ITS_PROCESS)}
    ) > 1
"""  # noqa: S608 - fixed text
_PASSED_UNSENT = f"""
    SELECT a.task_id, s.entry, s.attempt FROM settled s
    JOIN attempts a ON a.n = s.job
    WHERE s.kind = 'passed' AND {_NEVER_SENT}
"""  # noqa: S608 - fixed text
_EXECUTIONS = """
    SELECT entry, max(number) FROM (
        SELECT s.entry AS entry, count(*) AS number FROM settled s
        JOIN attempts a ON a.n = s.job
        JOIN starts t ON t.job = a.n
        WHERE s.kind = 'passed' GROUP BY t.job, t.hop, t.retries HAVING count(*) > 1
    ) GROUP BY entry
"""
_OTHER_DOCUMENT = """
    SELECT '', a.name, a.attempt FROM verdicts v JOIN jobs a ON a.n = v.job
    WHERE v.status IS NOT NULL AND (
        v.status IS NOT json_extract(v.verdict, '$.verdict')
        OR a.name IS NOT json_extract(v.verdict, '$.entry')
        OR coalesce(json_extract(v.verdict, '$.attempt'), a.attempt) IS NOT a.attempt
    )
"""
# Of starts nobody knows when they came: where there are two, the second may have come later.
_CORRECTED = """
    SELECT a.task_id, a.entry, a.attempt FROM verdicts v JOIN attempts a ON a.n = v.job
    JOIN verdicts c ON c.seq = v.corrects
    WHERE NOT EXISTS (SELECT 1 FROM jobs d WHERE d.root = a.n)
        AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.job = a.n AND r.seq > c.seq)
        AND (SELECT count(*) FROM starts t WHERE t.job = a.n) < 2
"""
_CORRECTED_TO_NOTHING = """
    SELECT '', coalesce(a.name, json_extract(v.verdict, '$.entry')),
        coalesce(a.attempt, json_extract(v.verdict, '$.attempt'), 0)
    FROM verdicts v LEFT JOIN jobs a ON a.n = v.job AND a.entry = v.entry
    WHERE v.corrects IS NOT NULL AND (a.n IS NULL OR NOT EXISTS (
        SELECT 1 FROM verdicts c WHERE c.seq = v.corrects AND c.entry = v.entry
            AND c.seq < v.seq AND c.status <> v.status
    ))
"""
_CORRECTED_OTHERWISE = """
    SELECT a.task_id, a.entry, a.attempt FROM settled s JOIN attempts a ON a.n = s.job
    JOIN verdicts v ON v.seq = (
        SELECT max(w.seq) FROM verdicts w
        WHERE w.entry = s.number AND w.job = s.job AND w.corrects IS NOT NULL
    ) WHERE v.status <> s.kind AND v.status <> (
        SELECT c.status FROM verdicts c WHERE c.seq = v.corrects
    )
"""
# A verdict that comes of a receipt, or for good, is corrected, and says so; what else was given up
# may be taken up again, as by a session that goes on with the run.
_CHANGED = f"""
    SELECT a.task_id, a.entry, a.attempt FROM verdicts v JOIN attempts a ON a.n = v.job
    JOIN verdicts b ON b.seq = (
        SELECT max(w.seq) FROM verdicts w
        WHERE w.entry = v.entry AND w.job = v.job AND w.seq < v.seq AND w.status IS NOT NULL
    )
    WHERE NOT v.alone AND b.status <> v.status AND b.status NOT IN {in_sql(INFERRED | OPEN)}
        AND b.corrects IS NULL AND v.corrects IS NOT b.seq
        AND a.attempt = (SELECT max(x.attempt) FROM jobs x WHERE x.name = a.entry)
"""  # noqa: S608 - fixed text
_SKIPPED_YET_BEGUN = """
    SELECT a.task_id, s.entry, s.attempt FROM settled s
    JOIN attempts a ON a.n = s.job
    WHERE s.kind = 'skipped' AND EXISTS (SELECT 1 FROM starts t WHERE t.job = a.n)
"""
_JUDGED_UNKNOWN = """
    SELECT '', coalesce(
            (SELECT b.name FROM jobs b WHERE b.entry = v.entry AND b.name IS NOT NULL),
            json_extract(v.verdict, '$.entry')
        ), coalesce(json_extract(v.verdict, '$.attempt'), 0)
    FROM verdicts v WHERE v.status IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jobs a WHERE a.n = v.job AND a.entry = v.entry AND a.name IS NOT NULL
    )
"""
_SUPERSEDED = """
    SELECT '', s.entry, s.attempt FROM settled s
    WHERE s.attempt < (SELECT max(a.attempt) FROM jobs a WHERE a.name = s.entry)
        AND NOT EXISTS (
            SELECT 1 FROM verdicts v WHERE v.entry = s.number AND v.job = s.job AND v.seq > s.seq
        )
"""
_UNJUDGED = f"""
    SELECT max(a.task_id), a.entry, max(a.attempt) FROM attempts a
    LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.number")}
    WHERE v.status IS NULL GROUP BY a.entry
"""  # noqa: S608 - fixed text
_MANY_ATTEMPTS = """
    SELECT a.entry, a.task_id, a.attempt, a.state, a.reason,
        EXISTS (SELECT 1 FROM starts s WHERE s.job = a.n) OR EXISTS (
            SELECT 1 FROM receipts r WHERE r.job = a.n
            AND json_extract(r.receipt, '$.started_at') IS NOT NULL
        )
    FROM attempts a WHERE a.number IN (SELECT entry FROM jobs WHERE attempt > 1)
        AND a.state <> 'reused'
    ORDER BY a.entry, a.attempt
"""
_LONGEST_LIMITS = f"""
    SELECT json_extract(data, '$.task'), max(json_extract(data, '$.limit')) AS most FROM facts
    WHERE kind = {Kind.TASK:d} AND {RARE} GROUP BY 1 HAVING most IS NOT NULL
"""  # noqa: S608 - fixed text
_IDS = """
    SELECT task_id, coalesce(json_extract(reused_from, '$[1]'), entry),
        coalesce(json_extract(reused_from, '$[2]'), attempt) FROM attempts
    ORDER BY entry, attempt
"""

# Trees

_TREES = """
    SELECT s.entry, coalesce(d.kind, 'pending'), d.task, d.task_id, EXISTS (
        SELECT 1 FROM receipts r WHERE r.job = d.n
            AND json_extract(r.receipt, '$.source') = 'worker'
    ) FROM settled s
    JOIN attempts a ON a.n = s.job
    JOIN descendants d ON d.root = a.task_id
    WHERE s.kind = 'passed' AND d.kind IS NOT 'passed' AND d.kind IS NOT 'skipped'
    ORDER BY s.entry
"""
_UNEARNED_DESCENDANTS = """
    SELECT s.entry, d.task, d.task_id, CASE
        WHEN d.kind IS NOT json_extract(d.verdict, '$.verdict') THEN 'and its verdict differs'
        WHEN NOT EXISTS (
            SELECT 1 FROM receipts r WHERE r.job = d.n
                AND json_extract(r.receipt, '$.state') = 'succeeded'
        ) THEN 'and no receipt says so'
        WHEN EXISTS (
            SELECT 1 FROM starts t WHERE t.job = d.n
            GROUP BY t.hop, t.retries HAVING count(*) > 1
        ) THEN 'and it was begun twice'
        WHEN d.parent = d.task_id OR NOT EXISTS (
            SELECT 1 FROM jobs x WHERE x.id = d.parent AND (
                x.name IS NOT NULL OR x.root = (SELECT root FROM jobs y WHERE y.n = d.n)
            )
        ) THEN 'and what started it is not known'
    END AS why FROM settled s
    JOIN attempts a ON a.n = s.job
    JOIN descendants d ON d.root = a.task_id
    WHERE s.kind = 'passed' AND d.kind = 'passed' AND why IS NOT NULL
"""
_FEWER_CHILDREN = """
    SELECT entry, counted, known FROM (
        SELECT s.entry AS entry, json_extract(s.receipt, '$.children') AS counted, (
            SELECT count(*) FROM descendants d WHERE d.root = a.task_id AND d.parent = a.task_id
        ) AS known FROM settled s
        JOIN attempts a ON a.n = s.job
        WHERE s.kind = 'passed' AND json_extract(s.receipt, '$.children') > 0
    ) WHERE counted > known
"""
_FEWER_OF_DESCENDANTS = """
    SELECT s.entry, d.task, d.task_id, max(json_extract(r.receipt, '$.children')) AS counted,
        coalesce(k.number, 0) AS known
    FROM settled s
    JOIN attempts a ON a.n = s.job
    JOIN descendants d ON d.root = a.task_id
    JOIN receipts r ON r.job = d.n AND json_extract(r.receipt, '$.children') > 0
    LEFT JOIN (
        SELECT root, parent, count(*) AS number FROM descendants GROUP BY root, parent
    ) k ON k.root = d.root AND k.parent = d.task_id
    WHERE s.kind = 'passed'
    GROUP BY d.n HAVING counted > known
"""
# Counted once for all keys: a job may announce as much as it starts. CROSS JOIN: in this order.
# Handlers of a task's end may start as much as they like, and need not start anything; of what is
# closed nothing more comes.
_UNFULFILLED = f"""
    SELECT s.entry, n.how, max(n.number) - max(
        coalesce(f.number, 0),
        (SELECT count(*) FROM json_each(n.task_ids) j
            CROSS JOIN descendants d ON d.task_id = j.value AND d.root = n.root)
    ) AS missing FROM announced n
    JOIN attempts a ON a.task_id = n.root
    JOIN settled s ON s.number = a.number AND s.job = a.n
    LEFT JOIN (
        SELECT root, fulfils, count(*) AS number FROM descendants
        WHERE fulfils IS NOT NULL GROUP BY root, fulfils
    ) f ON f.root = n.root AND f.fulfils = n."key"
    LEFT JOIN (
        SELECT j.id AS root, json_extract(c.data, '$.key') AS key FROM facts c
        JOIN jobs j ON j.n = c.job WHERE c.kind = {Kind.CLOSED:d} AND c.{RARE}
    ) c ON c.root = n.root AND c.key = n.key
    WHERE s.kind = 'passed' AND n.how <> '{HOW_AFTER}' AND c.key IS NULL
    GROUP BY n.root, n.key HAVING max(n.is_off) = 0 AND missing > 0
"""  # noqa: S608 - fixed text


@dataclass(frozen=True, slots=True)
class Sending:
    """An attempt that does not fit: its task id, "" where none is known, entry and number."""

    task_id: str
    entry: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Repetition:
    """An attempt of an entry with several; ``ran``: whether a worker reported that it began."""

    entry: str
    task_id: str
    attempt: int
    state: str
    reason: str | None
    ran: bool


class Invariants(LedgerPart):
    """Queries for what must not be in a ledger; each yields what is there all the same."""

    def run_though_unsent(self) -> Iterator[Sending]:
        """Yield attempts that were never sent, that a worker reports."""
        return self._sendings(_RUN_UNSENT)

    def sent_without_time(self) -> Iterator[Sending]:
        """Yield attempts that were sent, of which nobody wrote down when before they were."""
        return self._sendings(_SENT_WITHOUT_TIME)

    def numbered_twice(self) -> Iterator[Sending]:
        """Yield attempts of an entry that share their number."""
        return self._sendings(_NUMBERED_TWICE)

    def missing_numbers(self) -> Iterator[Sending]:
        """Yield the last attempts of entries that lack one before it."""
        return self._sendings(_MISSING_NUMBER)

    def repeated_without_reason(self) -> Iterator[Sending]:
        """Yield attempts after the first that nothing was written down as the reason for."""
        return self._sendings(_WITHOUT_REASON)

    def reused_from_nowhere(self) -> Iterator[Sending]:
        """Yield attempts that say that they were reused and not from where, or the reverse."""
        return self._sendings(_REUSED_FROM_NOWHERE)

    def strangers(self) -> Iterator[Sending]:
        """Yield task ids that workers reported, and that are of no attempt and no descendant."""
        return self._sendings(_STRANGERS)

    def lost_though_ended(self) -> Iterator[Sending]:
        """Yield attempts called lost of which a worker reported the end."""
        return self._sendings(_LOST_YET_ENDED)

    def lost_though_begun(self) -> Iterator[Sending]:
        """Yield attempts called lost that a worker began, where the verdict does not say so."""
        return self._sendings(_LOST_YET_BEGUN)

    def passed_without_receipt(self) -> Iterator[Sending]:
        """Yield the attempts that entries passed by without a receipt."""
        return self._sendings(_PASSED_WITHOUT_RECEIPT)

    def passed_by_another(self) -> Iterator[Sending]:
        """Yield attempts that passed by a receipt of something else, or one that never came."""
        return self._sendings(_PASSED_BY_ANOTHER)

    def passed_by_another_sending(self) -> Iterator[Sending]:
        """Yield attempts that passed by a receipt of a message that was sent at another time."""
        return self._sendings(_PASSED_BY_ANOTHER_SENDING)

    def passed_and_contradicted(self) -> Iterator[Sending]:
        """Yield attempts that passed, with two different ends of one execution."""
        return self._sendings(_PASSED_AND_CONTRADICTED)

    def passed_though_unsent(self) -> Iterator[Sending]:
        """Yield attempts that passed and were never sent."""
        return self._sendings(_PASSED_UNSENT)

    def repeated_executions(self) -> Iterator[tuple[str, int]]:
        """Yield the passed entries whose job began more than once in a turn, and how often."""
        return self._db.build_each(lambda row: (str(row[0]), int(row[1])), _EXECUTIONS)

    def other_documents(self) -> Iterator[Sending]:
        """Yield verdicts that say something else than the row that they stand in."""
        return self._sendings(_OTHER_DOCUMENT)

    def judged_without_attempt(self) -> Iterator[Sending]:
        """Yield verdicts of entries, or on attempts, that the run does not have."""
        return self._sendings(_JUDGED_UNKNOWN)

    def superseded(self) -> Iterator[Sending]:
        """Yield verdicts of entries on another attempt than their newest."""
        return self._sendings(_SUPERSEDED)

    def unjudged(self) -> Iterator[Sending]:
        """Yield the newest attempt of each entry that has no verdict."""
        return self._sendings(_UNJUDGED)

    def corrected_without_evidence(self) -> Iterator[Sending]:
        """Yield verdicts that were changed once reported, with nothing that arrived since."""
        return self._sendings(_CORRECTED)

    def corrected_to_nothing(self) -> Iterator[Sending]:
        """Yield corrections of what the run does not have, or that change nothing."""
        return self._sendings(_CORRECTED_TO_NOTHING)

    def changed_without_correction(self) -> Iterator[Sending]:
        """Yield verdicts that have replaced others on the same attempt, with no correction."""
        return self._sendings(_CHANGED)

    def corrected_otherwise(self) -> Iterator[Sending]:
        """Yield attempts whose last correction is to a verdict that is another now."""
        return self._sendings(_CORRECTED_OTHERWISE)

    def skipped_though_begun(self) -> Iterator[Sending]:
        """Yield attempts that are said to have been left out, and that a worker has begun."""
        return self._sendings(_SKIPPED_YET_BEGUN)

    def repetitions(self) -> Generator[Repetition, None, None]:
        """Yield all attempts of the entries that have more than one, entry by entry."""
        return self._db.build_each(_repetition_of_row, _MANY_ATTEMPTS)

    def attempts(self) -> Iterator[Sending]:
        """Yield all attempts, entry by entry: a reused one as what it was in its own run."""
        return self._sendings(_IDS)

    def longest_limits(self) -> Mapping[str, float]:
        """Return the longest time limit of its own (s) that each task was known to have."""
        return {str(task): float(limit) for task, limit in self._db.read(_LONGEST_LIMITS)}

    # Trees

    def unsuccessful_descendants(
        self,
    ) -> Generator[tuple[str, VerdictStatus, str, str, bool], None, None]:
        """Yield ``(entry, status, task, task_id, has_end)`` of what did not succeed in passed
        trees; ``has_end``: a worker has reported its end."""
        yield from self._db.read(_TREES)

    def unearned_descendants(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield ``(entry, task, task_id, why)`` of what did not earn its pass in passed trees."""
        yield from self._db.read(_UNEARNED_DESCENDANTS)

    def fewer_children(self) -> Iterator[tuple[str, int, int]]:
        """Yield passed entries with the children that are counted, and the fewer known."""
        yield from self._db.read(_FEWER_CHILDREN)

    def fewer_children_of_descendants(self) -> Iterator[tuple[str, str, str, int, int]]:
        """Yield the same of descendants: ``(entry, task, task_id, counted, known)``.

        The largest number counts of those that its receipts have.
        """
        yield from self._db.read(_FEWER_OF_DESCENDANTS)

    def unfulfilled(self) -> Iterator[tuple[str, str, int]]:
        """Yield passed entries with what was announced of their trees, and how many never came."""
        yield from self._db.read(_UNFULFILLED)

    def _sendings(self, query: str) -> Iterator[Sending]:
        return self._db.build_each(_sending_of_row, query)


def _sending_of_row(row: Row) -> Sending:
    task_id, entry, attempt = row
    return Sending(str(task_id or ""), str(entry), int(attempt or 0))


def _repetition_of_row(row: Row) -> Repetition:
    entry, task_id, attempt, state, reason, ran = row
    return Repetition(entry, task_id, int(attempt), state, reason, bool(ran))
