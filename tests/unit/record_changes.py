"""Changes of a record: what may happen to it, and what breaks a promise, by SQL."""

from __future__ import annotations

import json
from typing import Final

from pytest_manifest.broker.attempt import task_id_for
from pytest_manifest.schema.facts import Kind
from tests.unit.ledger_support import INFO

ANNOUNCE = 'INSERT INTO announced (root, "key", announcer, how, task, number, task_ids, is_off) '
EMPTIED = (
    "INSERT INTO facts (seq, run, job, kind, at, source, data) "
    f'VALUES (-99, 1, 0, {Kind.STORE:d}, 0, 1, \'{{"what":"emptied"}}\')'
)
OF = "(SELECT task_id FROM attempts WHERE entry = '{}' AND attempt = {})"
PLAIN, OTHER, LOOSE = (OF.format(name, 1) for name in ("plain", "other", "loose"))
CHORD, ONCE, TREE = (OF.format(name, 1) for name in ("chord", "once", "tree"))
TWICE = OF.format("twice", 1)
GRANDCHILD = (
    "INSERT INTO descendants (task_id, root, parent, task, how, kind, verdict) SELECT '{0}', "
    "root, task_id, task, how, kind, verdict FROM descendants WHERE task_id = 't1';"
    "INSERT INTO receipts (task_id, execution, receipt, arrived_at) SELECT '{0}', 'g', "
    "json_set(receipt, '$.children', 0), arrived_at FROM receipts WHERE task_id = 't1'"
)
COUNTED = "UPDATE receipts SET receipt = json_set(receipt, '$.children', {}) WHERE task_id = '{}'"
SHORT = "passed, and of the {} that its descendant 'jobs.t' ('{}') started {} are known"
START = "INSERT INTO starts (task_id, execution, retries, redelivered, hop) VALUES "


def called(status: str, entry: str, reason: str = "problem") -> str:
    """SQL that gives an entry another verdict, without a receipt, for a reason with this code."""
    return (
        f"UPDATE settled SET kind = '{status}', receipt = NULL, verdict = json_set(verdict, "
        f"'$.verdict', '{status}', '$.reason.code', '{reason}') WHERE entry = '{entry}';"
    )


UNHEARD = (
    f"DELETE FROM receipts WHERE task_id = {PLAIN}; DELETE FROM starts WHERE task_id = {PLAIN};"
)
UNCERTAIN = "UPDATE attempts SET state = 'uncertain', sent_at = NULL WHERE entry = 'plain';"
UNANNOUNCED = ("S1", "plain", "attempt 1 was sent, and was not recorded before that")
EARLIER: Final = "20261123T150000-0badcafe"
JOB: Final = task_id_for(EARLIER, "before", 2, 7)
"""The run that has sent what was reused, as the second attempt of another entry there."""
NOTE: Final = json.dumps([EARLIER, "before", 2, INFO.run, "2026-11-24T15:00:00+00:00"])
OF_EARLIER: Final = (
    f"'$.task_id', '{JOB}', '$.run', '{EARLIER}', '$.entry', 'before', '$.attempt', 2"
)
REUSE: Final = json.dumps({"run": INFO.run, "entry": "other", "at": "2026-11-24T15:00:00+00:00"})
REUSED: Final = (
    f"UPDATE receipts SET receipt = json_set(receipt, {OF_EARLIER}) WHERE task_id = {OTHER};"
    "UPDATE settled SET verdict = json_set(verdict, '$.attempt', 0), "
    f"receipt = json_set(receipt, '$.reused', json('{REUSE}')) WHERE entry = 'other';"
    f"UPDATE jobs SET id = '{JOB}', attempt = 0, state = 'reused', reused_from = '{NOTE}' "
    "WHERE name = 'other';"
    f"UPDATE run SET reused_runs = '[\"{EARLIER}\"]';"
)
"""SQL that makes an entry one that an earlier run's job stands for."""
STOPPED: Final = "UPDATE descendants SET kind = 'timed_out' WHERE task_id = 'l1';"
CLOSED: Final = (
    "INSERT INTO facts (seq, run, job, kind, at, source, data) SELECT 9001, 1, n, "
    f'{Kind.CLOSED:d}, 0, 2, \'{{"key": "c1/link"}}\' FROM jobs WHERE id = {CHORD};'
)
OWN_LIMIT: Final = (
    f"INSERT INTO facts (run, job, kind, at, source, data) VALUES (1, 0, {Kind.TASK:d}, 0, 1, "
    '\'{{"task": "jobs.double", "limit": {}}}\');'
)
FROM_NOWHERE: Final = "is recorded as an earlier run's, and the record does not name that run"
NOT_ITS_OWN: Final = "passed by a receipt that is not its own, or is not in the record"
ANOTHERS_ID: Final = "has a task id that is another's"
NOT_BELIEVED: Final = (
    ("of another entry", "'$.entry', 'other'", "NULL"),
    ("of another attempt", "'$.attempt', 9", "NULL"),
    ("with another's id", "'$.task_id', 'x'", "NULL"),
    ("of another run", f"'$.run', '{EARLIER}'", "NULL"),
    ("that nobody had signed", "'$.retries', 0", '\'{"fault":"unsigned"}\''),
)
"""What an end is that does not count: its name, what is changed in the receipt, its other data."""


def disbelieved(execution: str, state: str, changed: str, data: str) -> str:
    """SQL that adds an end to an entry's job."""
    return (
        "INSERT INTO facts (run, job, kind, at, source, execution, receipt, data) SELECT run, job, "
        f"kind, at, source, {execution}, json_set(receipt, '$.state', '{state}', {changed}), "
        f"{data} FROM facts WHERE kind = {Kind.ENDED:d} "
        f"AND job = (SELECT n FROM jobs WHERE id = {PLAIN})"
    )


FIRST_TIME: Final = f"(SELECT n FROM jobs WHERE id = {OF.format('again', 1)})"
CANCELLED: Final = (
    "INSERT INTO verdicts (seq, entry, job, status, at, verdict) SELECT j.sending, v.entry, v.job, "
    "'cancelled', v.at, json_set(v.verdict, '$.verdict', 'cancelled') FROM verdicts v "
    f"JOIN jobs j ON j.n = v.job WHERE v.job = {FIRST_TIME} AND v.status IS NOT NULL LIMIT 1;"
)
"""SQL that has an operator cancel an entry as soon as it was sent for the first time."""

LAWFUL = {
    "cancelled, given up by a resume, and then requeued": (
        f"{CANCELLED} UPDATE jobs SET cause = 'requeue' WHERE id = {OF.format('again', 2)}"
    ),
    **{
        f"an end {name} came under its id": disbelieved("'z'", "succeeded", changed, data)
        for name, changed, data in NOT_BELIEVED
    },
    **{
        f"an end {name} came for its execution": disbelieved("execution", "failed", changed, data)
        for name, changed, data in NOT_BELIEVED
    },
    "ended twice, and the start of one is gone, of another try": (
        "INSERT INTO receipts (task_id, execution, receipt, arrived_at) SELECT task_id, 'z', "
        f"json_set(receipt, '$.retries', 1), arrived_at FROM receipts WHERE task_id = {PLAIN}"
    ),
    "ended before it was sent, by a clock that was set back since": (
        "UPDATE settled SET receipt = json_set(receipt, '$.started_at', '2026-11-24T14:00:02Z', "
        "'$.finished_at', '2026-11-24T14:00:03Z') WHERE entry = 'plain'"
    ),
    "handlers of an end, which started nothing": (
        ANNOUNCE + "SELECT root, 'c1/after', 'c1', 'after', task, 1, '[]', 0 FROM announced"
    ),
    "reused from another entry of an earlier run": REUSED,
    "sent twice after what was reused had failed": (
        "INSERT INTO attempts (task_id, entry, attempt, ordinal, state, sent_at, reused_from) "
        f"SELECT '{JOB}', entry, 0, ordinal, 'reused', sent_at, '{NOTE}' FROM attempts "
        "WHERE entry = 'again' AND attempt = 1;"
        f"{START}('{JOB}', 'x', 0, 0, 0);"
        f"UPDATE run SET reused_runs = '[\"{EARLIER}\"]';"
    ),
    "the session itself says why it was not sent": (
        f"UPDATE attempts SET state = 'withheld', sent_at = NULL WHERE entry = 'plain';"
        f"DELETE FROM starts WHERE task_id = {PLAIN};"
        f"UPDATE receipts SET receipt = json_set(receipt, '$.source', 'harness') "
        f"WHERE task_id = {PLAIN};" + called("skipped", "plain")
    ),
    "a worker retries a descendant": f"{START}('t1', 'x', 1, 0, 0)",
    "a descendant's receipt came": (
        "INSERT INTO receipts (task_id, receipt, arrived_at) "
        "SELECT 't2', receipt, arrived_at FROM receipts LIMIT 1"
    ),
    "lost, as a descendant was": (
        "UPDATE settled SET kind = 'lost', verdict = json_set(verdict, '$.verdict', 'lost', "
        "'$.reason', json('{\"code\": \"by_descendant\"}')) WHERE entry = 'tree'"
    ),
    "lost, and the verdict says by whom": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};" + called("lost", "plain", "lost_in_flight")
    ),
    "lost once its pool gave it to another process, which handed it on": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        "INSERT INTO handed_on (task_id, execution, how, ended_at) "
        f"SELECT task_id, execution, 'retry', '2026' FROM starts WHERE task_id = {PLAIN};"
        "INSERT INTO starts (task_id, execution, pid, retries, redelivered, hop) "
        f"SELECT task_id, execution, 8, 0, 0, 0 FROM starts WHERE task_id = {PLAIN};"
        + called("lost", "plain")
    ),
    "lost once it was handed on": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        "INSERT INTO handed_on (task_id, execution, how, ended_at) "
        f"SELECT task_id, execution, 'retry', '2026' FROM starts WHERE task_id = {PLAIN};"
        + called("lost", "plain")
    ),
    "lost once it was handed on, by a process that died of it": (
        "INSERT INTO handed_on (task_id, execution, how, ended_at) "
        f"SELECT task_id, execution, 'retry', '2026' FROM starts WHERE task_id = {PLAIN};"
        "UPDATE receipts SET receipt = json_set(receipt, '$.state', 'crashed') "
        f"WHERE task_id = {PLAIN};" + called("lost", "plain", "lost_between")
    ),
    "lost, and the store has what somebody said": (
        f"UPDATE receipts SET receipt = json_set(receipt, '$.source', 'backend') "
        f"WHERE task_id = {PLAIN}; DELETE FROM starts WHERE task_id = {PLAIN};"
        + called("lost", "plain")
    ),
    "lost, and the end of another entry came under its id since": (
        "UPDATE receipts SET after_verdict = 1, receipt = json_set(receipt, '$.entry', 'other') "
        f"WHERE task_id = {PLAIN};" + called("lost", "plain", "lost_in_flight")
    ),
    "lost, and the end of another attempt came under its id since": (
        "UPDATE receipts SET after_verdict = 1, receipt = json_set(receipt, '$.attempt', 2) "
        f"WHERE task_id = {PLAIN};" + called("lost", "plain", "lost_in_flight")
    ),
    "lost, and the end of another sending came under its id since": (
        "UPDATE receipts SET after_verdict = 1, receipt = json_set(receipt, '$.task_id', 'x') "
        f"WHERE task_id = {PLAIN};" + called("lost", "plain", "lost_in_flight")
    ),
    "retried by itself": f"{START}({PLAIN}, 'y', 1, 0, 0)",
    "handed on to itself": f"{START}({PLAIN}, 'y', 0, 0, 1)",
    "a child was not sent": "UPDATE descendants SET kind = 'skipped' WHERE task_id = 't1'",
    "lost, as a descendant was, and left so": (
        "UPDATE settled SET kind = 'lost', verdict = json_set(verdict, '$.verdict', 'lost', "
        '\'$.reason\', json(\'{"code": "left", "why": {"code": "by_descendant"}}\')) '
        "WHERE entry = 'tree'"
    ),
    "a child was stopped at its limit": STOPPED,
    "handlers that were announced, and closed": (
        ANNOUNCE
        + f"SELECT root, 'c1/link', 'c1', 'link', task, 1, '[]', 0 FROM announced; {CLOSED}"
    ),
    "a child crashed where an end is enough": (
        "UPDATE descendants SET kind = 'crashed' WHERE task_id = 'l1'"
    ),
    "the body is known by its id": "UPDATE descendants SET fulfils = NULL",
    "the body is known by its key": "UPDATE announced SET task_ids = '[]'",
    "the chord was called off": (
        "UPDATE announced SET is_off = 1; DELETE FROM descendants WHERE task_id = 'body';"
        "DELETE FROM receipts WHERE task_id = 'body'; DELETE FROM starts WHERE task_id = 'body'"
    ),
    "the chord was called off by another": (
        ANNOUNCE + "SELECT root, key, 'c1', how, task, number, task_ids, 1 "
        "FROM announced; DELETE FROM descendants WHERE task_id = 'body';"
        "DELETE FROM receipts WHERE task_id = 'body'; DELETE FROM starts WHERE task_id = 'body'"
    ),
    "nothing is asked of a tree": (
        "UPDATE announced SET root = (SELECT task_id FROM attempts WHERE entry = 'careless'), "
        "number = 9"
    ),
    "corrected by a receipt that came later": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'passed', '2000-01-01', '2000-01-02');"
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN}"
    ),
    "corrected by a receipt that came later, by a clock that was set back": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'passed', '2999-01-01', '2998-12-31');"
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN}"
    ),
    "corrected by a second start": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('twice', 1, 'failed', 'passed', '2999-01-01', '2999-01-02')"
    ),
    "corrected by what it started": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('tree', 1, 'failed', 'passed', '2999-01-01', '2999-01-02')"
    ),
    "corrected more than once": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) VALUES "
        "('plain', 1, 'lost', 'failed', '2000-01-01', '2000-01-02'),"
        "('plain', 1, 'failed', 'passed', '2000-01-02', '2000-01-03');"
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN}"
    ),
    "corrected, and judged since by a session that went on": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'failed', '2000-01-01', '2000-01-02');"
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN};"
        "INSERT INTO segments (run, started, stopped) VALUES "
        "(1, '2000-01-01', '2001-01-01'), (1, '2002-01-01', NULL)"
    ),
    "corrected before it was sent again": (
        "INSERT INTO verdicts (seq, entry, job, status, at, verdict) SELECT -5, entry, job, 'lost',"
        " 0, json_set(verdict, '$.verdict', 'lost') FROM verdicts WHERE status = 'failed' "
        "AND job = (SELECT n FROM attempts WHERE entry = 'again' AND attempt = 1);"
        "UPDATE verdicts SET corrects = -5 WHERE status = 'failed' "
        "AND job = (SELECT n FROM attempts WHERE entry = 'again' AND attempt = 1)"
    ),
    "published twice, and of the first message": (
        "UPDATE attempts SET sent_at = '2026-11-24T16:00:00+00:00', note = 'it broke off' "
        "WHERE entry = 'plain'"
    ),
    "corrected by a receipt of its first message": (
        "UPDATE attempts SET sent_at = '2026-11-24T16:00:00+00:00' WHERE entry = 'plain';"
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'passed', '2000-01-01', '2000-01-02');"
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN}"
    ),
    "begun twice by two executions, of which one failed": (
        "INSERT INTO receipts (task_id, execution, receipt, arrived_at) "
        "SELECT task_id, 'again', json_set(receipt, '$.state', 'failed'), arrived_at "
        f"FROM receipts WHERE task_id = {TWICE}"
    ),
    "stopped by its worker, which its process outran": (
        "INSERT INTO receipts (task_id, execution, receipt, arrived_at) "
        "SELECT task_id, execution, json_set(receipt, '$.state', 'timed_out'), arrived_at "
        f"FROM receipts WHERE task_id = {PLAIN}"
    ),
    "told to have failed, by somebody whose word does not count": (
        "INSERT INTO receipts (task_id, execution, receipt, arrived_at) "
        "SELECT task_id, execution, json_set(receipt, '$.state', 'failed'), arrived_at "
        f"FROM receipts WHERE task_id = {PLAIN};"
        "UPDATE run SET receipt_keys = '[]'"
    ),
    "a child was tried twice": "INSERT INTO starts (task_id, execution, retries, redelivered, hop) "
    "VALUES ('t1', 'y', 1, 0, 0), ('t1', 'z', 0, 0, 1)",
    "a child of nobody, of which nothing is asked": (
        "UPDATE descendants SET kind = 'passed', parent = 'nobody' WHERE task_id = 'k1'"
    ),
    "a grandchild": GRANDCHILD.format("g1"),
    "two grandchildren, as counted": (
        f"{GRANDCHILD.format('g1')}; {GRANDCHILD.format('g2')}; {COUNTED.format(2, 't1')}"
    ),
    "a grandchild is forgotten of which nothing is asked": (
        "INSERT INTO receipts (task_id, receipt, arrived_at) SELECT 'k1', "
        "json_set(receipt, '$.children', 1), arrived_at FROM receipts WHERE task_id = 't1'"
    ),
    "left out the second time": (
        "UPDATE attempts SET state = 'withheld' WHERE entry = 'again' AND attempt = 2;"
        f"DELETE FROM starts WHERE task_id = {OF.format('again', 2)};"
        f"DELETE FROM receipts WHERE task_id = {OF.format('again', 2)};"
        + called("skipped", "again")
    ),
    "nobody saw the first attempt begin": (
        "UPDATE jobs SET asked_for = 0;"
        f"DELETE FROM starts WHERE task_id = {ONCE};"
        "UPDATE receipts SET receipt = json_set(receipt, '$.started_at', NULL) "
        f"WHERE task_id = {ONCE}"
    ),
    "stopped before its end": (
        "UPDATE run SET status = 'stopped';DELETE FROM settled WHERE entry = 'plain'"
    ),
    "resumed for more entries than at first": "UPDATE run SET entries = 1",
    "a limit of the task's own": (
        "UPDATE settled SET receipt = json_set(receipt, '$.runtime', 400) WHERE entry = 'plain';"
        + "".join(OWN_LIMIT.format(limit) for limit in (60, 600))
    ),
}
"""What a record may hold, by the SQL that puts it there."""
THIRD = (
    "INSERT INTO attempts (task_id, entry, attempt, ordinal, state, sent_at, reason) SELECT "
    "substr(task_id, 1, 9) || '3' || substr(task_id, 11), entry, 3, ordinal, state, sent_at, "
    f"reason FROM attempts WHERE task_id = {OF.format('once', 2)}; {START}"
    f"({OF.format('once', 3)}, 'z', 0, 0, 0); UPDATE settled SET attempt = 3, verdict = "
    "json_set(verdict, '$.attempt', 3) WHERE entry = 'once';"
)
BOTH_BEGUN = "is not idempotent, and its attempts {} both began, unasked"
BROKEN: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "cancelled, and sent again": (
        CANCELLED,
        [("S1", "again", "attempt 2 was sent after an operator had cancelled its entry")],
    ),
    "told otherwise, and it is not so": (
        (
            "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
            "VALUES ('plain', 1, 'lost', 'failed', '2000-01-01', '2000-01-02');"
            f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN}"
        ),
        [
            (
                "S5",
                "plain",
                "attempt 1 has a correction, and not the verdict that it names",
            )
        ],
    ),
    "in the manifest's order": (
        (
            "UPDATE attempts SET sent_at = NULL, ordinal = 99 - ordinal "
            "WHERE entry IN ('plain', 'tree')"
        ),
        [
            ("S1", name, "attempt 1 was sent, and was not recorded before that")
            for name in ("tree", "plain")
        ],
    ),
    "in the manifest's order, and told of": (
        (
            f"UPDATE attempts SET state = 'planned', ordinal = 99 - ordinal WHERE entry = 'fails' "
            f"OR task_id = {ONCE}; UPDATE settled SET kind = 'failed', verdict = json_set(verdict, "
            "'$.verdict', 'failed') WHERE entry = 'fails'"
        ),
        [
            ("S1", name, "attempt 1 was never sent by this record, and a worker reports it")
            for name in ("once", "fails")
        ],
    ),
    "reused from nowhere": (
        f"{REUSED} UPDATE attempts SET reused_from = NULL WHERE entry = 'other'",
        [
            ("S1", "other", FROM_NOWHERE),
            ("S1", "other", ANOTHERS_ID),
            ("S4", "other", NOT_ITS_OWN),
        ],
    ),
    "sent, and said to be an earlier run's": (
        f"{REUSED} UPDATE attempts SET state = 'sent' WHERE entry = 'other'",
        [
            ("S1", "other", "is there, and one before it is not"),
            ("S1", "other", FROM_NOWHERE),
        ],
    ),
    "reused, under a number of its own": (
        (
            f"{REUSED} UPDATE attempts SET attempt = 1 WHERE entry = 'other'; UPDATE settled "
            "SET attempt = 1, verdict = json_set(verdict, '$.attempt', 1) WHERE entry = 'other'"
        ),
        [("S1", "other", f"attempt 1 {FROM_NOWHERE}")],
    ),
    "reused from another attempt than its receipt is of": (
        (
            f"{REUSED} UPDATE settled SET receipt = json_set(receipt, '$.attempt', 3) "
            "WHERE entry = 'other'"
        ),
        [
            ("S4", "other", NOT_ITS_OWN),
        ],
    ),
    "reused from another entry than its receipt is of": (
        (
            f"{REUSED} UPDATE settled SET receipt = json_set(receipt, '$.entry', 'other') "
            "WHERE entry = 'other'"
        ),
        [
            ("S4", "other", NOT_ITS_OWN),
        ],
    ),
    "an attempt 0 in place of the first": (
        "UPDATE attempts SET attempt = 0 WHERE entry = 'again' AND attempt = 1",
        [
            ("S1", "again", "attempt 2 is there, and one before it is not"),
            ("S1", "again", "has a task id that is another's"),
            ("S5", "again", "has a verdict that says something else than its row"),
        ],
    ),
    "handed on, but not by the execution that is lost": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        f"INSERT INTO handed_on (task_id, execution, how, ended_at) VALUES ({PLAIN}, 'y', 'retry', "
        "'2026');" + called("lost", "plain"),
        [("S3", "plain", "attempt 1 is called lost, and a worker had begun it")],
    ),
    "uncertain without a time, and the store was emptied": (
        UNCERTAIN + EMPTIED,
        [UNANNOUNCED],
    ),
    "lost, and its own end came since": (
        f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {PLAIN};"
        + called("lost", "plain", "lost_in_flight"),
        [("S3", "plain", "attempt 1 is called lost, and a worker reported its end")],
    ),
    "lost, though the end of another entry had come under its id": (
        f"UPDATE receipts SET receipt = json_set(receipt, '$.entry', 'other') WHERE task_id = "
        f"{PLAIN};" + called("lost", "plain", "lost_in_flight"),
        [("S3", "plain", "attempt 1 is called lost, and a worker reported its end")],
    ),
    "lost, and it says so of another path": (
        (
            f"DELETE FROM receipts WHERE task_id = {PLAIN}; UPDATE settled SET kind = 'lost', "
            "receipt = NULL, verdict = json_set(verdict, '$.verdict', 'lost', '$.mismatches', "
            "json('[{\"path\": \"state\"}]')) WHERE entry = 'plain'"
        ),
        [("S3", "plain", "attempt 1 is called lost, and a worker had begun it")],
    ),
    "a child's time was over, and no worker has reported its end": (
        STOPPED + "DELETE FROM receipts WHERE task_id = 'l1'",
        [("S4", "loose", "passed, and its descendant 'jobs.t' ('l1') is timed_out")],
    ),
    "handlers that were announced, of which others were closed": (
        ANNOUNCE
        + "SELECT root, 'c1/errback', 'c1', 'link', task, 1, '[]', 0 FROM announced; "
        + CLOSED,
        [("S4", "chord", "passed, and its tree has 1 announcement (link) without a report")],
    ),
    "longer than each limit that its task had": (
        "UPDATE settled SET receipt = json_set(receipt, '$.runtime', 601) WHERE entry = 'plain';"
        + "".join(OWN_LIMIT.format(limit) for limit in (600, 60)),
        [("S4", "plain", "passed, and it ran for 601 s, its limit is 600 s")],
    ),
    "begun thrice where twice is allowed": (
        START + f"({OF.format('twice', 1)}, 'z', 0, 0, 0)",
        [("S4", "twice", "passed, and its job was begun 3 times")],
    ),
    "ended twice, and the start of one is gone": (
        (
            "INSERT INTO receipts (task_id, execution, receipt, arrived_at) "
            f"SELECT task_id, 'z', receipt, arrived_at FROM receipts WHERE task_id = {PLAIN}"
        ),
        [("S4", "plain", "passed, and its job was begun 2 times")],
    ),
    "one of many that failed is named, of each entry": (
        "UPDATE descendants SET kind = 'lost'",
        [
            ("S4", "chord", "passed, and its descendant 'jobs.t' ('c0') is lost"),
            ("S4", "loose", "passed, and its descendant 'jobs.t' ('l1') is lost"),
            ("S4", "tree", "passed, and its descendant 'jobs.t' ('t1') is lost"),
        ],
    ),
    "a grandchild is no child": (
        "UPDATE descendants SET parent = 't1' WHERE task_id = 't2'",
        [("S4", "tree", "passed, and of the 2 tasks that its job started 1 are known")],
    ),
    "a grandchild is forgotten": (
        f"{COUNTED.format(2, 't1')}; {GRANDCHILD.format('g1')}",
        [
            (
                "S4",
                "tree",
                SHORT.format("2 tasks", "t1", 1),
            )
        ],
    ),
    "one of two ends of a child counts what is forgotten": (
        "INSERT INTO receipts (task_id, receipt, arrived_at) SELECT task_id, "
        "json_set(receipt, '$.children', 2), arrived_at FROM receipts WHERE task_id = 't2'; "
        "UPDATE receipts SET receipt = json_set(receipt, '$.children', 1) WHERE task_id = 't2' "
        "AND execution IS NOT NULL; UPDATE descendants SET parent = 't2' WHERE task_id = 't1'; "
        "UPDATE settled SET receipt = json_set(receipt, '$.children', 1) WHERE entry = 'tree'; "
        + COUNTED.format(1, "c1"),
        [
            ("S4", "tree", SHORT.format("2 tasks", "t2", 1)),
            ("S4", "chord", SHORT.format("1 task", "c1", 0)),
        ],
    ),
    "an only child is forgotten": (
        (
            "DELETE FROM descendants WHERE task_id = 'l1'; DELETE FROM starts WHERE task_id = 'l1';"
            "DELETE FROM receipts WHERE task_id = 'l1'"
        ),
        [("S4", "loose", "passed, and of the 1 task that its job started 0 are known")],
    ),
    "of several announcements the largest counts": (
        ANNOUNCE + "SELECT root, key, 'c1', how, task, 3, '[]', 0 FROM announced",
        [
            (
                "S4",
                "chord",
                "passed, and its tree has 2 announcements (chord_body) without a report",
            )
        ],
    ),
    "an audit has made another verdict of it, and says nothing": (
        (
            "UPDATE verdicts SET seq = seq * 1000 WHERE seq = (SELECT seq FROM settled WHERE entry "
            "= 'plain'); INSERT INTO verdicts (seq, entry, job, status, at, verdict) SELECT seq - "
            "1, number, job, 'quarantined', 0, json_object('verdict', 'quarantined', 'entry', "
            "'plain', 'attempt', 1, 'sentence', '.') FROM settled WHERE entry = 'plain'"
        ),
        [("S5", "plain", "attempt 1 had another verdict, and no correction says that it changed")],
    ),
    "another word in a verdict on what was never sent": (
        "UPDATE settled SET kind = 'failed' WHERE entry = 'held'",
        [("S5", "held", "attempt 1 has a verdict that says something else than its row")],
    ),
    "an earlier verdict is another entry's": (
        (
            "UPDATE verdicts SET verdict = json_set(verdict, '$.entry', 'x') WHERE status IS NOT "
            "NULL AND job = (SELECT n FROM attempts WHERE entry = 'again' AND attempt = 1)"
        ),
        [("S5", "again", "attempt 1 has a verdict that says something else than its row")],
    ),
    "the receipt alone says that the first began": (
        f"UPDATE jobs SET asked_for = 0; DELETE FROM starts WHERE task_id = {ONCE}",
        [
            (
                "S2",
                "once",
                "is not idempotent, and its attempts 1 and 2 both began, unasked",
            )
        ],
    ),
    "the last attempt has no verdict": (
        "DELETE FROM settled WHERE entry = 'again'",
        [("L1", "again", "attempt 2 has no verdict, and the run is recorded as finished")],
    ),
    "passed by a state that another receipt has": (
        "UPDATE settled SET receipt = json_set(receipt, '$.attempt', 2) WHERE entry = 'other'",
        [
            (
                "S4",
                "other",
                "attempt 1 passed by a receipt that is not its own, or is not in the record",
            ),
        ],
    ),
    "begun three times, of which one was asked for": (
        THIRD,
        [
            ("S1", "once", "attempt 3 has a task id that is another's"),
            ("S2", "once", BOTH_BEGUN.format("1 and 3")),
        ],
    ),
    "begun three times, and nobody had asked": (
        THIRD + "UPDATE jobs SET asked_for = 0",
        [
            ("S1", "once", "attempt 3 has a task id that is another's"),
            ("S2", "once", BOTH_BEGUN.format("1 and 2")),
        ],
    ),
    "two attempts of no manifest": (
        "UPDATE attempts SET entry = 'more' WHERE entry = 'again'",
        [
            ("S1", "more", "attempt 1 has a task id that is another's"),
            ("S1", "more", "attempt 2 has a task id that is another's"),
            (
                "S4",
                "more",
                "attempt 2 passed by a receipt that is not its own, or is not in the record",
            ),
            ("S5", "more", "attempt 1 has a verdict that says something else than its row"),
            ("S5", "more", "attempt 2 has a verdict that says something else than its row"),
            ("S6", "more", "was sent, and is not in the run's manifest"),
        ],
    ),
    "a failure that nobody told of": (
        "UPDATE settled SET receipt = NULL WHERE entry IN ('fails', 'silent')",
        [("S4", name, "attempt 1 passed, and no receipt says so") for name in ("fails", "silent")],
    ),
    "a tree of no manifest": (
        (
            "UPDATE attempts SET entry = 'more' WHERE entry = 'chord'; UPDATE settled SET entry = "
            "'more' WHERE entry = 'chord'; DELETE FROM descendants WHERE task_id IN ('c1', 'body');"
            "DELETE FROM receipts WHERE task_id IN ('c1', 'body');"
            "DELETE FROM starts WHERE task_id IN ('c1', 'body');"
            "UPDATE descendants SET kind = 'failed' WHERE task_id = 'c0'"
        ),
        [
            ("S1", "more", "attempt 1 has a task id that is another's"),
            (
                "S4",
                "more",
                "attempt 1 passed by a receipt that is not its own, or is not in the record",
            ),
            ("S4", "more", "passed, and of the 3 tasks that its job started 2 are known"),
            (
                "S4",
                "more",
                "passed, and its tree has 1 announcement (chord_body) without a report",
            ),
            ("S5", "more", "attempt 1 has a verdict that says something else than its row"),
            ("S6", "more", "was sent, and is not in the run's manifest"),
        ],
    ),
    "a pass of no manifest without a receipt": (
        (
            "UPDATE attempts SET entry = 'more' WHERE entry = 'gone'; UPDATE settled SET entry = "
            "'more' WHERE entry = 'gone'"
        ),
        [
            ("S1", "more", "attempt 1 has a task id that is another's"),
            ("S4", "more", "attempt 1 passed, and no receipt says so"),
            ("S5", "more", "attempt 1 has a verdict that says something else than its row"),
            ("S6", "more", "was sent, and is not in the run's manifest"),
        ],
    ),
    "more executions of no manifest": (
        (
            "UPDATE attempts SET entry = 'more' WHERE entry = 'twice'; UPDATE settled SET entry = "
            "'more' WHERE entry = 'twice'"
        ),
        [
            ("S1", "more", "attempt 1 has a task id that is another's"),
            (
                "S4",
                "more",
                "attempt 1 passed by a receipt that is not its own, or is not in the record",
            ),
            ("S5", "more", "attempt 1 has a verdict that says something else than its row"),
            ("S6", "more", "was sent, and is not in the run's manifest"),
        ],
    ),
}
"""What breaks promises, and all that is said of it."""
