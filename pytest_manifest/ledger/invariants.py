"""Find what contradicts itself in a ledger: sendings, verdicts and trees that do not fit together.

Nothing here is shared with what judges, nor may be: a fault of that would be invisible. Each query
reads whole tables in SQLite, and yields only what does not fit: memory stays flat.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final, NamedTuple

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.rows import Row
from pytest_manifest.ledger.tables import PRESENT, RARE
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import INFERRED, OF_ITS_PROCESS, OPEN, in_sql
from pytest_manifest.schema.stream_records import HOW_AFTER

_REPORTED: Final = f"{Kind.STARTED:d}, {Kind.HANDED_ON:d}, {Kind.ENDED:d}"
_KEY: Final = "json_extract({}.data, '$.key')"
_NEVER_SENT: Final = "a.state IN ('planned', 'withheld')"
_STARTED: Final = "EXISTS (SELECT 1 FROM starts t WHERE t.job = a.n)"
_OF_ENTRY: Final = "SELECT max(w.seq) FROM verdicts w WHERE w.entry = {0}.{1} AND w.job = {0}.{2}"
"""The last of the verdicts on a job."""


_ASKED_FOR_AGAIN: Final = (
    f"t.kind = {Kind.TAKEN_UP:d} AND t.{RARE} AND json_extract(t.data, '$.why') = 'requeue'"
)
"""The fact ``t`` says that an operator has asked for a job's entry again."""


def _attempts(where: str) -> str:
    """Return a query for attempts ``a``."""
    return f"""
        SELECT a.task_id, a.entry, a.attempt FROM attempts a WHERE {where}
        ORDER BY a.ordinal, a.attempt
    """  # noqa: S608 - fixed text


def _settled(where: str, joins: str = "") -> str:
    """Return a query for entries' verdicts ``s``, each with its attempt ``a``."""
    return f"""
        SELECT a.task_id, s.entry, s.attempt FROM settled s JOIN attempts a ON a.n = s.job {joins}
        WHERE {where}
    """  # noqa: S608 - fixed text


def _judged(joins: str, where: str) -> str:
    """Return a query for all verdicts ``v`` that there ever were, each with its attempt ``a``."""
    return f"""
        SELECT a.task_id, a.entry, a.attempt FROM verdicts v JOIN attempts a ON a.n = v.job {joins}
        WHERE {where}
    """  # noqa: S608 - fixed text


RUN_THOUGH_UNSENT: Final = _attempts(f"""{_NEVER_SENT} AND ({_STARTED} OR EXISTS (
    SELECT 1 FROM receipts r
    WHERE r.job = a.n AND json_extract(r.receipt, '$.source') IS NOT 'harness'
))""")  # noqa: S608 - fixed text
SENT_WITHOUT_TIME: Final = _attempts(f"NOT ({_NEVER_SENT}) AND a.sent_at IS NULL")
NUMBERED_TWICE: Final = """
    SELECT min(task_id), entry, attempt FROM attempts
    GROUP BY entry, attempt HAVING count(*) > 1
"""
MISSING_NUMBERS: Final = """
    SELECT max(task_id), entry, max(attempt) FROM attempts WHERE state <> 'reused'
    GROUP BY entry HAVING max(attempt) <> count(DISTINCT attempt) OR min(attempt) < 1
"""
REPEATED_WITHOUT_REASON: Final = _attempts("a.attempt > 1 AND a.reason IS NULL")
REUSED_FROM_NOWHERE: Final = _attempts("""
    (a.state = 'reused') <> (a.reused_from IS NOT NULL) OR (a.state = 'reused' AND a.attempt <> 0)
""")
STRANGERS: Final = f"""
    SELECT coalesce(j.id, ''), '', 0
    FROM (SELECT DISTINCT job FROM facts WHERE kind IN ({_REPORTED})) t
    LEFT JOIN jobs j ON j.n = t.job
    WHERE j.n IS NULL OR (j.name IS NULL AND j.how IS NULL) ORDER BY j.id
"""  # noqa: S608 - fixed text
# An entry is lost, too, where one of its descendants is: then its own job has ended.
_LOST: Final = f"""
    WITH lost AS (
        SELECT a.n, a.task_id, a.entry, a.attempt, v.verdict, v.seq FROM verdicts v
        JOIN attempts a ON a.n = v.job AND a.number = v.entry
        WHERE v.status = 'lost'
            AND v.seq = ({_OF_ENTRY.format("v", "entry", "job")} AND w.status IS NOT NULL)
    )
    SELECT a.task_id, a.entry, a.attempt FROM lost a
    WHERE 'by_descendant' NOT IN (
        coalesce(json_extract(a.verdict, '$.reason.code'), ''),
        coalesce(json_extract(a.verdict, '$.reason.why.code'), '')
    )
"""  # noqa: S608 - fixed text
# What comes once the entry has another attempt is late: it changes no verdict. Nor does what comes
# after the verdict under the attempt's id, and is the end of something else; or of an execution
# that had handed the job on.
LOST_THOUGH_ENDED: Final = f"""
    {_LOST} AND EXISTS (
        SELECT 1 FROM receipts r WHERE r.job = a.n
            AND json_extract(r.receipt, '$.source') = 'worker'
            AND r.newest_attempt = a.attempt
            AND NOT EXISTS (
                SELECT 1 FROM facts h WHERE h.job = r.job AND h.kind = {Kind.HANDED_ON:d}
                    AND h.execution = r.execution AND h.how <> 'canvas'
            )
            AND (NOT r.after_verdict OR (
                json_extract(r.receipt, '$.entry') = a.entry
                AND json_extract(r.receipt, '$.attempt') = a.attempt
                AND json_extract(r.receipt, '$.task_id') = a.task_id
            ))
    )
"""  # noqa: S608 - fixed text
LOST_THOUGH_BEGUN: Final = f"""
    {_LOST} AND coalesce(
        json_extract(a.verdict, '$.reason.why.code'), json_extract(a.verdict, '$.reason.code'), ''
    ) NOT IN ('lost_in_flight', 'lost_between')
    AND EXISTS (
        SELECT 1 FROM starts t WHERE t.job = a.n AND NOT EXISTS (
            SELECT 1 FROM facts h WHERE h.job = t.job AND h.kind = {Kind.HANDED_ON:d}
                AND h.execution = t.execution
        )
    )
"""  # noqa: S608 - fixed text
PASSED_WITHOUT_RECEIPT: Final = _settled("""
    s.kind = 'passed' AND s."end" IS NULL AND s.added IS NULL
""")
# A task id begins as the id of its run ends.
PASSED_BY_ANOTHER: Final = _settled(
    """s.kind = 'passed' AND (s."end" IS NOT NULL OR s.added IS NOT NULL) AND (
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
    )""",
    'LEFT JOIN facts f ON f.seq = s."end"',
)
# What was published twice has a note, and of which message its receipt is nobody knows.
PASSED_BY_ANOTHER_SENDING: Final = _settled("""
    s.kind = 'passed' AND a.reused_from IS NULL AND a.note IS NULL
    AND abs(julianday(a.sent_at) - julianday(json_extract(s.receipt, '$.sent_at'))) > 1e-6
    AND NOT EXISTS (SELECT 1 FROM verdicts c WHERE c.entry = s.number AND c.corrects)
""")
# What is of another job, or unsigned, is no end of the attempt.
_BELIEVED: Final = """(
    json_extract(f.receipt, '$.entry') = a.entry
    AND json_extract(f.receipt, '$.attempt') = a.attempt
    AND json_extract(f.receipt, '$.task_id') = a.task_id
    AND substr(json_extract(f.receipt, '$.run'), -8) = substr(a.task_id, 1, 8)
    AND json_extract(f.data, '$.fault') IS NULL
)"""
"""The fact ``f`` has an end of the attempt ``a``."""
# Only the process that ran a job reports these ends, and each execution has one.
PASSED_AND_CONTRADICTED: Final = f"""
    SELECT DISTINCT a.task_id, s.entry, s.attempt FROM (
        SELECT job, execution FROM receipts WHERE execution IS NOT NULL
        GROUP BY job, execution HAVING count(*) > 1
    ) r JOIN attempts a ON a.n = r.job JOIN settled s ON s.number = a.number AND s.job = a.n
    WHERE s.kind = 'passed' AND (
        SELECT count(DISTINCT json_extract(f.receipt, '$.state'))
        FROM receipts o JOIN facts f ON f.seq = o.seq
        WHERE o.job = r.job AND o.execution = r.execution AND {_BELIEVED}
            AND json_extract(f.receipt, '$.state') IN {in_sql(OF_ITS_PROCESS)}
    ) > 1
"""  # noqa: S608 - fixed text
PASSED_THOUGH_UNSENT: Final = _settled(f"s.kind = 'passed' AND {_NEVER_SENT}")
# An end whose start was lost with the store is an execution as well.
REPEATED_EXECUTIONS: Final = f"""
    SELECT entry, max(number) FROM (
        SELECT s.entry AS entry, count(*) AS number FROM settled s
        JOIN (
            SELECT job, hop, retries FROM starts
            UNION ALL
            SELECT f.job, 0, coalesce(json_extract(f.receipt, '$.retries'), 0) FROM facts f
            JOIN attempts a ON a.n = f.job
            WHERE f.kind = {Kind.ENDED:d} AND NOT f.aside AND f.execution IS NOT NULL
                AND (f.job, f.execution) NOT IN (SELECT job, execution FROM starts) AND {_BELIEVED}
                AND json_extract(f.receipt, '$.state') IN {in_sql(OF_ITS_PROCESS)}
                AND NOT coalesce(json_extract(f.receipt, '$.replaced'), 0)
            GROUP BY f.job, f.execution
        ) t ON t.job = s.job
        WHERE s.kind = 'passed' GROUP BY t.job, t.hop, t.retries HAVING count(*) > 1
    ) GROUP BY entry
"""  # noqa: S608 - fixed text
OTHER_DOCUMENTS: Final = _judged(
    "",
    """v.status IS NOT NULL AND (
        v.status IS NOT json_extract(v.verdict, '$.verdict')
        OR a.entry IS NOT json_extract(v.verdict, '$.entry')
        OR coalesce(json_extract(v.verdict, '$.attempt'), a.attempt) IS NOT a.attempt
    )""",
)
# Of starts nobody knows when they came: where there are two, the second may have come later.
CORRECTED_WITHOUT_EVIDENCE: Final = _judged(
    "JOIN verdicts c ON c.seq = v.corrects",
    """NOT EXISTS (SELECT 1 FROM jobs d WHERE d.root = a.n)
    AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.job = a.n AND r.seq > c.seq)
    AND (SELECT count(*) FROM starts t WHERE t.job = a.n) < 2""",
)
CORRECTED_TO_NOTHING: Final = """
    SELECT '', coalesce(a.name, json_extract(v.verdict, '$.entry')),
        coalesce(a.attempt, json_extract(v.verdict, '$.attempt'), 0)
    FROM verdicts v LEFT JOIN jobs a ON a.n = v.job AND a.entry = v.entry
    WHERE v.corrects IS NOT NULL AND (a.n IS NULL OR NOT EXISTS (
        SELECT 1 FROM verdicts c WHERE c.seq = v.corrects AND c.entry = v.entry
            AND c.seq < v.seq AND c.status <> v.status
    ))
"""
CORRECTED_OTHERWISE: Final = _settled(
    "v.status <> s.kind AND v.status <> (SELECT c.status FROM verdicts c WHERE c.seq = v.corrects)",
    f"""JOIN verdicts v ON v.seq = (
        {_OF_ENTRY.format("s", "number", "job")} AND w.corrects IS NOT NULL
    )""",
)
# A verdict that comes of a receipt, or for good, is corrected, and says so; what else was given up
# may be taken up again, as by a session that goes on with the run.
CHANGED_WITHOUT_CORRECTION: Final = _judged(
    f"""JOIN verdicts b ON b.seq = (
        {_OF_ENTRY.format("v", "entry", "job")} AND w.seq < v.seq AND w.status IS NOT NULL
    )""",
    f"""NOT v.alone AND b.status <> v.status AND b.status NOT IN {in_sql(INFERRED | OPEN)}
    AND b.corrects IS NULL AND v.corrects IS NOT b.seq
    AND NOT EXISTS (
        SELECT 1 FROM facts t WHERE t.job = a.n AND {_ASKED_FOR_AGAIN}
            AND t.seq BETWEEN b.seq AND v.seq
    )
    AND a.attempt = (SELECT max(x.attempt) FROM jobs x WHERE x.name = a.entry)""",  # noqa: S608 - fixed text
)
# What an operator has cancelled is not sent any more, unless it was asked for again since.
SENT_THOUGH_CANCELLED: Final = f"""
    SELECT a.task_id, a.entry, a.attempt FROM attempts a
    JOIN verdicts v ON v.entry = a.number AND v.status = 'cancelled' AND a.sending > v.seq
    WHERE NOT EXISTS (
        SELECT 1 FROM facts t JOIN jobs j ON j.n = t.job
        WHERE j.entry = a.number AND {_ASKED_FOR_AGAIN} AND t.seq BETWEEN v.seq AND a.sending
    ) AND NOT EXISTS (
        SELECT 1 FROM jobs j WHERE j.entry = a.number AND j.cause = 'requeue'
            AND j.seq BETWEEN v.seq AND a.sending
    ) GROUP BY a.task_id
"""  # noqa: S608 - fixed text
SKIPPED_THOUGH_BEGUN: Final = _settled(f"s.kind = 'skipped' AND {_STARTED}")
JUDGED_WITHOUT_ATTEMPT: Final = """
    SELECT '', coalesce(
            (SELECT b.name FROM jobs b WHERE b.entry = v.entry AND b.name IS NOT NULL),
            json_extract(v.verdict, '$.entry')
        ), coalesce(json_extract(v.verdict, '$.attempt'), 0)
    FROM verdicts v WHERE v.status IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jobs a WHERE a.n = v.job AND a.entry = v.entry AND a.name IS NOT NULL
    )
"""
SUPERSEDED: Final = _settled("""
    s.attempt < (SELECT max(b.attempt) FROM jobs b WHERE b.name = s.entry) AND NOT EXISTS (
        SELECT 1 FROM verdicts v WHERE v.entry = s.number AND v.job = s.job AND v.seq > s.seq
    )
""")
UNJUDGED: Final = f"""
    SELECT max(a.task_id), a.entry, max(a.attempt) FROM attempts a
    LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.number")}
    WHERE v.status IS NULL GROUP BY a.entry
"""  # noqa: S608 - fixed text
# All attempts of the entries that have more than one, entry by entry; the last column: it began.
REPETITIONS: Final = """
    SELECT a.entry, a.task_id, a.attempt, a.state, a.reason,
        EXISTS (SELECT 1 FROM starts s WHERE s.job = a.n) OR EXISTS (
            SELECT 1 FROM receipts r WHERE r.job = a.n
            AND json_extract(r.receipt, '$.started_at') IS NOT NULL
        )
    FROM attempts a WHERE a.number IN (SELECT entry FROM jobs WHERE attempt > 1)
        AND a.state <> 'reused'
    ORDER BY a.entry, a.attempt
"""
# The longest time limit of its own (s) that each task was known to have.
LONGEST_LIMITS: Final = f"""
    SELECT json_extract(data, '$.task'), max(json_extract(data, '$.limit')) AS most FROM facts
    WHERE kind = {Kind.TASK:d} AND {RARE} GROUP BY 1 HAVING most IS NOT NULL
"""  # noqa: S608 - fixed text
# All attempts, entry by entry: a reused one as what it was in its own run.
ATTEMPTS: Final = """
    SELECT task_id, coalesce(json_extract(reused_from, '$[1]'), entry),
        coalesce(json_extract(reused_from, '$[2]'), attempt) FROM attempts
    ORDER BY entry, attempt
"""

# Trees of passed entries: what did not succeed, and whether a worker has reported its end; what did
# not earn its pass, and why; children that are counted, and the fewer known, of jobs and of
# descendants; announcements, and how many never came.

UNSUCCESSFUL_DESCENDANTS: Final = """
    SELECT s.entry, coalesce(d.kind, 'pending'), d.task, d.task_id, EXISTS (
        SELECT 1 FROM receipts r WHERE r.job = d.n
            AND json_extract(r.receipt, '$.source') = 'worker'
    ) FROM settled s
    JOIN attempts a ON a.n = s.job
    JOIN descendants d ON d.root = a.task_id
    WHERE s.kind = 'passed' AND d.kind IS NOT 'passed' AND d.kind IS NOT 'skipped'
    ORDER BY s.entry
"""
UNEARNED_DESCENDANTS: Final = """
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
FEWER_CHILDREN: Final = """
    SELECT entry, counted, known FROM (
        SELECT s.entry AS entry, json_extract(s.receipt, '$.children') AS counted, (
            SELECT count(*) FROM descendants d WHERE d.root = a.task_id AND d.parent = a.task_id
        ) AS known FROM settled s
        JOIN attempts a ON a.n = s.job
        WHERE s.kind = 'passed' AND json_extract(s.receipt, '$.children') > 0
    ) WHERE counted > known
"""
FEWER_CHILDREN_OF_DESCENDANTS: Final = """
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
UNFULFILLED: Final = f"""
    SELECT entry, how, max(number) - max(coalesce(known, 0), named) AS missing FROM (
        SELECT s.entry, n.how, n.job, {_KEY.format("n")} AS "key",
            json_extract(n.data, '$.number') AS number, json_extract(n.data, '$.is_off') AS is_off,
            f.number AS known, (
                SELECT count(*) FROM json_each(n.data, '$.task_ids') j
                CROSS JOIN jobs d ON d.id = j.value AND d.root = n.job AND d.how IS NOT NULL
            ) AS named
        FROM facts n JOIN jobs a ON a.n = n.job
        JOIN settled s ON s.number = a.entry AND s.job = a.n
        LEFT JOIN (
            SELECT root, fulfils, count(*) AS number FROM jobs
            WHERE fulfils IS NOT NULL AND how IS NOT NULL AND root > 0 GROUP BY root, fulfils
        ) f ON f.root = n.job AND f.fulfils = {_KEY.format("n")}
        LEFT JOIN (
            SELECT job, {_KEY.format("c")} AS "key" FROM facts c
            WHERE kind = {Kind.CLOSED:d} AND {RARE}
        ) c ON c.job = n.job AND c."key" = {_KEY.format("n")}
        WHERE n.kind = {Kind.ANNOUNCED:d} AND n.{RARE} AND s.kind = 'passed'
            AND n.how <> '{HOW_AFTER}' AND c.job IS NULL
    ) GROUP BY job, "key" HAVING max(coalesce(is_off, 0)) = 0 AND missing > 0
"""  # noqa: S608 - fixed text


class Sending(NamedTuple):
    """An attempt that does not fit: its task id, "" where none is known, entry and number."""

    task_id: str
    entry: str
    attempt: int


class Invariants(LedgerPart):
    """Find what must not be in a ledger, by the queries of this module."""

    def sendings(self, query: str) -> Iterator[Sending]:
        """Yield the attempts that a query finds; of a verdict, those that it is on."""
        return self._db.build_each(_sending_of_row, query)

    def rows(self, query: str) -> Generator[Row, None, None]:
        """Yield what another query finds, by the columns that it names."""
        return self._db.read(query)


def _sending_of_row(row: Row) -> Sending:
    task_id, entry, attempt = row
    return Sending(str(task_id or ""), str(entry), int(attempt or 0))
