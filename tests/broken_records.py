"""A run's entries, and ways to break each promise in its record."""

from __future__ import annotations

ENTRIES: list[dict[str, object]] = [
    {"id": "plain", "task": "jobs.double", "args": [1, "plain"], "expect": {"result": {"n": 2}}},
    {"id": "other", "task": "jobs.double", "args": [2, "other"]},
    {"id": "fails", "task": "jobs.fail", "args": ["no", "fails"], "expect": {"state": "failed"}},
    {
        "id": "tree",
        "task": "jobs.start",
        "args": ["tree", ["double", 1, "t1"], ["double", 2, "t2"]],
    },
    {
        "id": "loose",
        "task": "jobs.start",
        "args": ["loose", ["fail", "no", "l1"]],
        "expect": {"descendants": "finished"},
    },
    {"id": "chord", "task": "jobs.spread", "args": ["chord", 3]},
    {"id": "again", "task": "jobs.flaky", "args": ["again"], "idempotent": True},
    {"id": "once", "task": "jobs.flaky", "args": ["once"], "idempotent": False},
]
OF = "task_id = (SELECT task_id FROM attempts WHERE entry = '{}' AND attempt = {})"
PLAIN = OF.format("plain", 1)
TREE = OF.format("tree", 1).replace("task_id =", "root =", 1)
LOOSE = OF.format("loose", 1).replace("task_id =", "root =", 1)
CHORD = OF.format("chord", 1).replace("task_id =", "root =", 1)
AGAIN = OF.format("again", 1)


def settled(entry: str, column: str, path: str, value: str) -> str:
    """SQL that changes a value in an entry's stored verdict or receipt."""
    return (
        f"UPDATE settled SET {column} = json_set({column}, '$.{path}', {value}) "
        f"WHERE entry = '{entry}'"
    )


def copied(table: str, columns: str, changed: str, where: str) -> str:
    """SQL that adds a changed copy of a row."""
    return f"INSERT INTO {table} ({columns}) SELECT {changed} FROM {table} WHERE {where} LIMIT 1"


START = "task_id, execution, started_at, retries, worker, host, pid, redelivered"
SETTLED = "entry, attempt, kind, verdict, receipt, settled_at"
ATTEMPT = "task_id, entry, attempt, ordinal, state, sent_at"
CHILD = f"(SELECT min(task_id) FROM descendants WHERE {TREE})"
CORRECTION = (
    "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
    "VALUES ({}, '2999-01-01', '2999-01-02')"
)
TO_LOST = (
    "UPDATE settled SET kind = 'lost', receipt = NULL, verdict = json_set(verdict, "
    "'$.verdict', 'lost', '$.sentence', 'nobody has it') WHERE entry = 'plain';"
)
MUTATIONS = {
    # S1: written down before it is sent, once, under an id of its own
    "planned, yet begun": ("S1", f"UPDATE attempts SET state = 'planned' WHERE {PLAIN}"),
    "withheld, yet begun": ("S1", f"UPDATE attempts SET state = 'withheld' WHERE {PLAIN}"),
    "planned, yet ended": (
        "S1",
        f"UPDATE attempts SET state = 'planned' WHERE {PLAIN}; DELETE FROM starts WHERE {PLAIN}",
    ),
    "sent, and not written down": ("S1", f"UPDATE attempts SET sent_at = NULL WHERE {PLAIN}"),
    "uncertain, and not written down": (
        "S1",
        f"UPDATE attempts SET sent_at = NULL, state = 'uncertain' WHERE {PLAIN}",
    ),
    "two first attempts": (
        "S1",
        copied("attempts", ATTEMPT, "'x-' || task_id, entry, 1, ordinal, state, sent_at", PLAIN),
    ),
    "no first attempt": ("S1", f"DELETE FROM attempts WHERE {AGAIN}"),
    "a third without a second": (
        "S1",
        (
            "UPDATE attempts SET attempt = 3 WHERE entry = 'again' AND attempt = 2;"
            "UPDATE settled SET attempt = 3 WHERE entry = 'again'"
        ),
    ),
    "an attempt 0": ("S1", "UPDATE attempts SET attempt = 0 WHERE entry = 'other'"),
    "sent again for no reason": (
        "S1",
        "UPDATE attempts SET reason = NULL WHERE entry = 'again' AND attempt = 2",
    ),
    "a stranger begins": (
        "S1",
        copied("starts", START, START.replace("task_id", "'stranger'", 1), PLAIN),
    ),
    "a stranger ends": (
        "S1",
        copied(
            "receipts", "task_id, receipt, arrived_at", "'stranger', receipt, arrived_at", PLAIN
        ),
    ),
    "a stranger goes on": (
        "S1",
        "INSERT INTO handed_on (task_id, execution, how) VALUES ('stranger', 'x', 'retry')",
    ),
    "an id of no attempt": ("S1", f"UPDATE attempts SET task_id = 'mine' WHERE {PLAIN}"),
    "another's id": (
        "S1",
        (
            "UPDATE attempts SET entry = CASE entry WHEN 'plain' THEN 'other' ELSE 'plain' END "
            "WHERE entry IN ('plain', 'other')"
        ),
    ),
    "the run's id is another": (
        "S1",
        "UPDATE run SET id = '20200101T000000-00000000'",
    ),
    # S2: what is not idempotent runs once, unless the user has insisted
    "nobody insisted": ("S2", "UPDATE jobs SET asked_for = 0"),
    "somebody insisted on another": (
        "S2",
        "UPDATE jobs SET asked_for = name IS 'other'",
    ),
    # S3: nobody saw what is called lost
    "lost, yet ended": ("S3", TO_LOST),
    "lost, yet begun": ("S3", f"{TO_LOST} DELETE FROM receipts WHERE {PLAIN}"),
    "lost by an earlier attempt": (
        "S3",
        (
            "UPDATE verdicts SET status = 'lost', verdict = json_set(verdict, '$.verdict', 'lost') "
            f"WHERE status IS NOT NULL AND job = (SELECT n FROM attempts WHERE {AGAIN})"
        ),
    ),
    # S4: a pass is earned
    "passed without a receipt": ("S4", "UPDATE settled SET receipt = NULL WHERE entry = 'plain'"),
    "passed by a receipt of another entry": (
        "S4",
        (
            "UPDATE settled SET receipt = (SELECT receipt FROM settled WHERE entry = 'other') "
            "WHERE entry = 'plain'"
        ),
    ),
    "passed by another attempt's receipt": ("S4", settled("plain", "receipt", "attempt", "2")),
    "passed by another task id's receipt": ("S4", settled("plain", "receipt", "task_id", "'x'")),
    "passed by another run's receipt": (
        "S4",
        settled("plain", "receipt", "run", "'20200101T000000-00000000'"),
    ),
    "passed by a receipt that never came": ("S4", f"DELETE FROM receipts WHERE {PLAIN}"),
    "passed by a result that never came": (
        "S4",
        settled("plain", "receipt", "result", 'json(\'{"n": 2, "type": "word"}\')'),
    ),
    "passed by a failure": ("S4", settled("plain", "receipt", "state", "'failed'")),
    "passed by a failure that came": (
        "S4",
        settled("plain", "receipt", "state", "'failed'")
        + f"; UPDATE receipts SET receipt = json_set(receipt, '$.state', 'failed') WHERE {PLAIN}",
    ),
    "passed by another task": ("S4", settled("plain", "receipt", "task", "'jobs.other'")),
    "passed by a receipt of another sending": (
        "S4",
        settled("plain", "receipt", "sent_at", "'2020-01-01T00:00:00Z'"),
    ),
    "passed, and told to have failed": (
        "S4",
        copied(
            "receipts",
            "task_id, execution, receipt, arrived_at",
            "task_id, execution, json_set(receipt, '$.state', 'failed'), arrived_at",
            PLAIN,
        ),
    ),
    "passed with other arguments": (
        "S4",
        settled("plain", "receipt", "args_sha256", "json_extract(receipt, '$.result_sha256')"),
    ),
    "passed with a result that was changed": (
        "S4",
        settled("plain", "receipt", "result", "json('{\"n\": 2}')")
        + "; UPDATE receipts SET receipt = json_set(receipt, '$.result', json('{\"n\": 2}')) "
        f"WHERE {PLAIN}",
    ),
    "passed with another result than expected": (
        "S4",
        settled("plain", "receipt", "result", "json('{\"n\": 3}')")
        + f"; UPDATE receipts SET receipt = (SELECT receipt FROM settled WHERE entry = 'plain') "
        f"WHERE {PLAIN}",
    ),
    "passed with another error than expected": (
        "S4",
        settled("fails", "receipt", "state", "'succeeded'"),
    ),
    "passed after its time": ("S4", settled("plain", "receipt", "runtime", "99999")),
    "passed by more executions": ("S4", settled("plain", "receipt", "executions", "2")),
    "passed, and begun twice": (
        "S4",
        copied("starts", START, START.replace("execution", "'again'", 1), PLAIN),
    ),
    "passed, and never sent": (
        "S4",
        (
            f"UPDATE attempts SET state = 'planned' WHERE {PLAIN};"
            f"DELETE FROM starts WHERE {PLAIN}; DELETE FROM receipts WHERE {PLAIN}"
        ),
    ),
    "passed, and a child failed": (
        "S4",
        f"UPDATE descendants SET kind = 'failed' WHERE {TREE}",
    ),
    "passed, and a child has no end": (
        "S4",
        f"UPDATE descendants SET kind = NULL WHERE {TREE}",
    ),
    "passed, and a child was lost": ("S4", f"UPDATE descendants SET kind = 'lost' WHERE {LOOSE}"),
    "passed, and a child ran twice": (
        "S4",
        f"UPDATE descendants SET kind = 'duplicated' WHERE {LOOSE}",
    ),
    "passed, and a child's verdict says otherwise": (
        "S4",
        f"UPDATE descendants SET verdict = json_set(verdict, '$.verdict', 'failed') WHERE {TREE}",
    ),
    "passed, and a child's receipt never came": (
        "S4",
        f"DELETE FROM receipts WHERE task_id IN (SELECT task_id FROM descendants WHERE {TREE})",
    ),
    "passed, and a child's receipt tells of a failure": (
        "S4",
        (
            "UPDATE receipts SET receipt = json_set(receipt, '$.state', 'failed') "
            f"WHERE task_id IN (SELECT task_id FROM descendants WHERE {TREE})"
        ),
    ),
    "passed, and a child was begun twice": (
        "S4",
        copied("starts", START, START.replace("task_id, execution", CHILD + ", 'x'", 1), PLAIN)
        + ";"
        + copied("starts", START, START.replace("task_id, execution", CHILD + ", 'y'", 1), PLAIN),
    ),
    "passed, and a child is nobody's": (
        "S4",
        f"UPDATE descendants SET parent = 'nobody' WHERE {TREE}",
    ),
    "passed, and a child has started itself": (
        "S4",
        f"UPDATE descendants SET parent = task_id WHERE {TREE}",
    ),
    "passed, and a child is forgotten": (
        "S4",
        (
            "DELETE FROM descendants WHERE task_id = "
            f"(SELECT min(task_id) FROM descendants WHERE {TREE})"
        ),
    ),
    "passed, and all children are": ("S4", f"DELETE FROM descendants WHERE {TREE}"),
    "passed, and its chord's body is": (
        "S4",
        f"DELETE FROM descendants WHERE {CHORD} AND how = 'chord_body'",
    ),
    "failed, and said to have passed": (
        "S4",
        (
            "UPDATE settled SET kind = 'passed', "
            "verdict = json_set(verdict, '$.verdict', 'passed') WHERE entry = 'once'"
        ),
    ),
    # S5: what was told stands
    "another word in the verdict": (
        "S5",
        "UPDATE settled SET kind = 'failed' WHERE entry = 'plain'",
    ),
    "a verdict of another entry": ("S5", settled("plain", "verdict", "entry", "'other'")),
    "a verdict of another attempt": ("S5", settled("plain", "verdict", "attempt", "7")),
    "an earlier verdict was changed": (
        "S5",
        (
            "UPDATE verdicts SET status = 'crashed' WHERE status IS NOT NULL "
            f"AND job = (SELECT n FROM attempts WHERE {AGAIN})"
        ),
    ),
    "told otherwise, for nothing": (
        "S5",
        (CORRECTION.format("'plain', 1, 'failed', 'passed'")),
    ),
    "an entry of no run was told otherwise": (
        "S5",
        CORRECTION.format("'nobody', 1, 'failed', 'passed'"),
    ),
    "an attempt that is not there was told otherwise": (
        "S5",
        CORRECTION.format("'plain', 7, 'failed', 'passed'"),
    ),
    "told otherwise, and the same": (
        "S5",
        CORRECTION.format("'plain', 1, 'passed', 'passed'")
        + f"; UPDATE receipts SET after_verdict = 1 WHERE {PLAIN}",
    ),
    # S6, L1: each entry of the run, once
    "an entry is gone": (
        "S6",
        (
            f"DELETE FROM settled WHERE entry = 'plain'; DELETE FROM receipts WHERE {PLAIN};"
            f"DELETE FROM starts WHERE {PLAIN}; DELETE FROM attempts WHERE entry = 'plain'"
        ),
    ),
    "an entry too many": (
        "S6",
        copied("attempts", ATTEMPT, "'x', 'more', 1, 99, 'planned', NULL", PLAIN),
    ),
    "a verdict too many": (
        "S6",
        copied("settled", SETTLED, SETTLED.replace("entry", "'more'", 1), "entry = 'plain'"),
    ),
    "a verdict on no attempt": ("S6", "UPDATE settled SET attempt = 9 WHERE entry = 'plain'"),
    "left out, and begun": (
        "S6",
        (
            "UPDATE settled SET kind = 'skipped', receipt = NULL, "
            "verdict = json_set(verdict, '$.verdict', 'skipped') WHERE entry = 'plain'"
        ),
    ),
    "a verdict on an earlier attempt": (
        "S6",
        "UPDATE settled SET attempt = 1 WHERE entry = 'again'",
    ),
    "another number of entries": ("S6", "UPDATE run SET entries = 99"),
    "an entry of no manifest": ("S6", "UPDATE attempts SET entry = 'more' WHERE entry = 'plain'"),
    "no verdict at the end": ("L1", "DELETE FROM settled WHERE entry = 'plain'"),
}
"""Ways to break a promise: the one that is broken, and the SQL that does it."""
