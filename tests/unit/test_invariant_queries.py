"""What each query of the record's check finds: what does not fit together, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias, get_args
from unittest import mock

import pytest

from pytest_manifest.ledger import Ledger, invariants
from pytest_manifest.ledger import rows as ledger_rows
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Kind
from tests.broken_records import MUTATIONS
from tests.reports import add_receipts
from tests.unit.ledger_support import INFO, MOMENT, receipt, verdict
from tests.unit.record_changes import (
    ANNOUNCE,
    BROKEN,
    CANCELLED,
    LAWFUL,
    OF,
    OWN_LIMIT,
    START,
)
from tests.unit.record_support import KeptRecord, write_record

Rows: TypeAlias = list[list[object]]
PLAIN, OTHER, TWICE = (OF.format(name, 1) for name in ("plain", "other", "twice"))
FIRST, CHORD = OF.format("again", 1), OF.format("chord", 1)
NUMBER = "(SELECT n FROM jobs WHERE id = {})"
SECOND = "execution || '-2'"
CORRECTION = (
    "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
    "VALUES ('plain', 1, 'failed', 'passed', '2999-01-01', '{}');"
)
ENDED = (
    "INSERT INTO receipts (task_id, execution, receipt, arrived_at) SELECT task_id, {}, "
    f"json_set(receipt, '$.state', '{{}}'), arrived_at FROM receipts WHERE task_id = {PLAIN};"
)
CHANGED = (
    "INSERT INTO verdicts (seq, entry, job, status, at, verdict) SELECT 50, entry, job, 'failed', "
    "at, json_set(verdict, '$.verdict', 'failed') FROM verdicts "
    f"WHERE job = {NUMBER.format(PLAIN)};"
)
"""SQL by which ``plain`` was called failed by the number 50, and has passed by 110."""


def asked_for_again(entry: str, before: int, after: int) -> Mapping[str, str]:
    """SQL by which an operator asks for an entry again, and by which it only seems so.

    ``before``, ``after``: numbers of facts that come before and after what needs to be asked for;
    60 lies between.
    """
    fact = (
        "INSERT INTO facts (seq, run, job, kind, at, source, data) SELECT {}, 1, n, {:d}, 0, 1, "
        f'\'{{{{"why":"{{}}"}}}}\' FROM jobs WHERE id = {OF.format("{}", 1)}'
    )
    return {
        "asked for again": fact.format(60, Kind.TAKEN_UP, "requeue", entry),
        "asked for before that": fact.format(before, Kind.TAKEN_UP, "requeue", entry),
        "asked for in the end": fact.format(after, Kind.TAKEN_UP, "requeue", entry),
        "taken up by a resume": fact.format(60, Kind.TAKEN_UP, "resume", entry),
        "its time over, for a requeue": fact.format(60, Kind.TIME_OVER, "requeue", entry),
        "begun, for a requeue": fact.format(60, Kind.STARTED, "requeue", entry),
        "another one asked for again": fact.format(60, Kind.TAKEN_UP, "requeue", "once"),
    }


MORE: Mapping[str, str] = {
    "called otherwise": CHANGED,
    **{
        f"called otherwise, and {how}": CHANGED + sql
        for how, sql in asked_for_again("plain", 40, 115).items()
    },
    **{
        f"cancelled, sent again, and {how}": CANCELLED + sql
        for how, sql in asked_for_again("again", 50, 71).items()
    },
    "told twice to have succeeded, and by another execution to have failed": (
        f"{ENDED.format('execution', 'succeeded')} {ENDED.format(SECOND, 'failed')}"
    ),
    "cancelled twice, and sent again": CANCELLED
    + CANCELLED.replace("SELECT j.sending", "SELECT j.sending + 6"),
    "cancelled, and another one was repeated by a requeue": (
        f"{CANCELLED} UPDATE jobs SET cause = 'requeue' WHERE id = {OF.format('once', 1)}"
    ),
    "cancelled, and repeated by a requeue before that": (
        f"{CANCELLED} UPDATE jobs SET cause = 'requeue' WHERE id = {OF.format('again', 1)}"
    ),
    "cancelled, and repeated by a resume": (
        f"{CANCELLED} UPDATE jobs SET cause = 'resume' WHERE id = {OF.format('again', 2)}"
    ),
    "told by an execution without a start to have been ignored": (ENDED.format(SECOND, "ignored")),
    "told twice without a start, of no retries and nothing in its place": (
        "INSERT INTO receipts (task_id, execution, receipt, arrived_at) SELECT task_id, "
        f"{SECOND}, json_remove(receipt, '$.retries', '$.replaced'), arrived_at FROM receipts "
        f"WHERE task_id = {PLAIN}"
    ),
    "passed without a receipt, on no attempt": (
        "UPDATE settled SET attempt = 9, receipt = NULL WHERE entry = 'plain'"
    ),
    "begun thrice once it was retried": f"{START}({TWICE}, 'p', 1, 0, 0);"
    f"{START}({TWICE}, 'q', 1, 0, 0); {START}({TWICE}, 'r', 1, 0, 0)",
    "a failure of which children are not known": (
        "UPDATE settled SET receipt = json_set(receipt, '$.children', 5) WHERE entry = 'once'"
    ),
    "corrected by a receipt of another": CORRECTION.format("2999-01-02")
    + f"UPDATE receipts SET after_verdict = 1 WHERE task_id = {OTHER}",
    "corrected at once, for nothing": CORRECTION.format("2999-01-01"),
    "corrected for nothing, by a clock that was set back": CORRECTION.format("2998-12-31"),
    "of another sending, where another entry was corrected": (
        "UPDATE attempts SET sent_at = '2026-11-24T16:00:00+00:00' WHERE entry = 'plain';"
        + CORRECTION.format("2999-01-02").replace("'plain'", "'other'")
    ),
    "corrected to what it does not have, in the first session": (
        CORRECTION.format("2999-01-02").replace("'passed'", "'lost'")
        + "INSERT INTO segments (run, started, stopped) VALUES (1, '2000-01-01', '2001-01-01')"
    ),
    "corrected on no attempt, to what it was": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', NULL, 'passed', 'passed', '2999-01-01', '2999-01-02')"
    ),
    "told twice to have succeeded": ENDED.format("execution", "succeeded"),
    "told to have been ignored as well": ENDED.format("execution", "ignored"),
    "told of by no execution to have failed as well": (
        f"UPDATE receipts SET execution = NULL WHERE task_id = {PLAIN};"
        + ENDED.format("execution", "failed")
    ),
    "a report of a job that is in no table": (
        f"INSERT INTO facts (run, job, kind, at, source) VALUES (1, 999, {Kind.ENDED:d}, 0, 2)"
    ),
    "a verdict on no job, of which little is known": (
        "UPDATE verdicts SET job = 999, verdict = json_remove(verdict, '$.attempt', '$.entry') "
        f"WHERE job = {NUMBER.format(PLAIN)}"
    ),
    "an earlier attempt's end is reported in two ways": (
        ENDED.format("execution", "succeeded").replace(PLAIN, FIRST)
    ),
    "the ends of two executions are reported in two ways": (
        f"{ENDED.format('execution', 'failed')} {ENDED.format(SECOND, 'succeeded')}"
        f"{ENDED.format(SECOND, 'failed')}"
    ).replace(PLAIN, TWICE),
    "passed by another's receipt as it stands": (
        f'UPDATE verdicts SET added = NULL, "end" = (SELECT "end" FROM verdicts '
        f"WHERE job = {NUMBER.format(OTHER)}) WHERE job = {NUMBER.format(PLAIN)}"
    ),
    "corrected on a job of another entry": (
        CORRECTION.format("2999-01-02")
        + f"UPDATE verdicts SET job = {NUMBER.format(OTHER)} WHERE corrects IS NOT NULL"
    ),
    "judged by its first attempt, of which more was said on its own": (
        f"DELETE FROM verdicts WHERE entry = {NUMBER.format(FIRST)} "
        f"AND (job <> {NUMBER.format(FIRST)} OR status IS NULL);"
        "INSERT INTO verdicts (seq, entry, job, alone, status, at, verdict) "
        "SELECT seq + 9000, entry, job, 1, status, at, verdict FROM verdicts "
        f"WHERE job = {NUMBER.format(FIRST)}"
    ),
    "an earlier attempt announced what never came": (
        f"{ANNOUNCE}SELECT {FIRST}, 'k', 'x', 'chord_body', task, 1, '[]', 0 FROM announced"
    ),
    "of two bodies one is only named": (
        "UPDATE announced SET number = 2; INSERT INTO jobs (id, entry, root, fulfils) "
        f"SELECT 'named', entry, n, 'body' FROM jobs WHERE id = {CHORD}"
    ),
    "the first job of all announced what came": (
        f"{ANNOUNCE}SELECT {PLAIN}, 'k', 'x', 'chord_body', task, 1, '[]', 0 FROM announced;"
        "INSERT INTO descendants (task_id, root, parent, task, how, kind, fulfils) "
        f"SELECT 'p1', {PLAIN}, {PLAIN}, task, how, 'passed', 'k' FROM descendants "
        "WHERE task_id = 't1'"
    ),
    "sent again without a reason, in another order": (
        "UPDATE attempts SET reason = NULL, ordinal = -ordinal"
    ),
    "reused from nowhere, in another order": (
        "UPDATE attempts SET state = 'reused', ordinal = -ordinal"
    ),
    "a verdict on no attempt of another entry": (
        "UPDATE settled SET entry = 'more', attempt = NULL WHERE entry = 'plain'"
    ),
}
"""Records that differ from others for one query alone."""
CHANGES: Mapping[str, str] = {
    "a sound record": "",
    **{name: statements for name, (_, statements) in MUTATIONS.items()},
    **{name: statements for name, (statements, _) in BROKEN.items()},
    **LAWFUL,
    **MORE,
}
"""Records, by the SQL that makes them of a sound one."""
FOUND: Mapping[str, Mapping[str, Rows]] = json.loads(
    Path(__file__).with_name("data").joinpath("invariants.json").read_text("utf-8")
)
"""All that each query finds in each record, where it finds something else than in a sound one."""


def test_each_query_is_tried() -> None:
    """By records here, or by a test of its own."""
    queries = {name.lower() for name in vars(invariants) if name.isupper() and name[0] != "_"}
    imported = {"present", "rare", "inferred", "of_its_process", "open", "how_after"}
    assert queries - imported == {*FOUND, "longest_limits"}


IN_ORDER = {
    *("run_though_unsent", "sent_without_time", "unsuccessful_descendants", "repetitions"),
    *("attempts", "repeated_without_reason", "reused_from_nowhere"),
}
"""Queries that promise an order."""


OF_ROWS: Final = {
    *("repetitions", "repeated_executions", "unsuccessful_descendants", "unearned_descendants"),
    *("fewer_children", "fewer_children_of_descendants", "unfulfilled"),
}
"""Queries that find something else than attempts."""


def _found(ledger: Ledger, query: str) -> Iterable[Sequence[object]]:
    text: str = getattr(invariants, query.upper())
    part = ledger.invariants
    return part.rows(text) if query in OF_ROWS else part.sendings(text)


def rows(ledger: Ledger, query: str) -> Rows:
    told = [list(one) for one in _found(ledger, query)]
    return told if query in IN_ORDER else sorted(told, key=repr)


def found_by(query: str, sound: KeptRecord) -> Mapping[str, Rows]:
    """All that a query finds, by the record, where that is not what it finds in a sound one."""
    with sound.changed() as ledger:
        usual = rows(ledger, query)
    everything = {"a sound record": usual}
    for name, statements in CHANGES.items():
        with sound.changed(statements) as ledger:
            found = rows(ledger, query)
        if found != usual:
            everything[name] = found
    return everything


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> KeptRecord:
    return KeptRecord(write_record(tmp_path_factory.mktemp("sound")))


@pytest.mark.parametrize("query", FOUND)
def test_each_query_finds_what_does_not_fit_and_nothing_else(query: str, sound: KeptRecord) -> None:
    """In more than a hundred records, each changed in one place."""
    assert found_by(query, sound) == FOUND[query]


def test_a_task_has_the_longest_limit_that_it_was_known_to_have(sound: KeptRecord) -> None:
    """None where it has none; what else has a limit is no task."""
    told = [OWN_LIMIT.format(limit) for limit in ("3.5", "8.0", "5.0", "null")]
    told.append(OWN_LIMIT.format("null").replace("jobs.double", "jobs.nap"))
    told.append(OWN_LIMIT.format("99.0").replace(f"{Kind.TASK:d},", f"{Kind.TIME_OVER:d},"))
    with sound.changed("".join(told)) as ledger:
        assert list(ledger.invariants.rows(invariants.LONGEST_LIMITS)) == [("jobs.double", 8.0)]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("seconds", [-1, 1])
def test_an_end_that_is_told_once_the_entry_is_sent_again_is_late(
    tmp_path: Path, seconds: int, *, is_late: bool
) -> None:
    """Before that, ``lost`` was wrong. The clock does not decide: it may be set back."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0)])
        ledger.verdicts.end_attempt("t-a", verdict("a", "lost"))

        def send_again() -> None:
            ledger.attempts.plan([("t-a2", "a", 2, 0, "lost")])
            ledger.attempts.mark(["t-a2"], "intent", sent_at=MOMENT)

        if is_late:
            send_again()
        arrived = MOMENT + timedelta(seconds=seconds)
        add_receipts(ledger, [("t-a", None, receipt("a", source="worker"))], at=arrived)
        if not is_late:
            send_again()
        found = [one.task_id for one in ledger.invariants.sendings(invariants.LOST_THOUGH_ENDED)]
    assert found == ([] if is_late else ["t-a"])


def test_an_end_that_comes_between_two_sendings_of_an_attempt_is_late(tmp_path: Path) -> None:
    """The attempt that follows is sent once more where its message was lost, at a later time."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0), ("t-a2", "a", 2, 0, "lost")])
        ledger.verdicts.end_attempt("t-a", verdict("a", "lost"))
        ledger.attempts.mark(["t-a2"], "uncertain", sent_at=MOMENT)
        add_receipts(
            ledger, [("t-a", None, receipt("a", source="worker"))], at=MOMENT + timedelta(seconds=1)
        )
        ledger.attempts.mark(["t-a2"], "sent", sent_at=MOMENT + timedelta(seconds=2))
        assert list(ledger.invariants.sendings(invariants.LOST_THOUGH_ENDED)) == []


@pytest.mark.parametrize("seconds", [-1, 1])
@pytest.mark.parametrize("came", ["before", "after"])
def test_a_verdict_is_changed_by_what_came_after_it_whatever_the_clock_says(
    tmp_path: Path, came: str, seconds: int
) -> None:
    """By nothing that had come before it."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0)])
        arrived = MOMENT + timedelta(seconds=seconds)

        def come() -> None:
            add_receipts(ledger, [("t-a", None, receipt("a", source="worker"))], at=arrived)

        if came == "before":
            come()
        with mock.patch.object(ledger_rows, "utc_now", return_value=MOMENT):
            ledger.verdicts.record([(verdict("a", "lost"), None)])
        if came == "after":
            come()
        with mock.patch.object(ledger_rows, "utc_now", return_value=MOMENT + timedelta(seconds=2)):
            ledger.verdicts.note_correction("a")
            ledger.verdicts.record([(verdict("a"), None)])
        found = [
            one.task_id for one in ledger.invariants.sendings(invariants.CORRECTED_WITHOUT_EVIDENCE)
        ]
    assert found == ([] if came == "after" else ["t-a"])


OF_A_RECEIPT: Final = {"passed", "failed", "duplicated", "rejected", "expired", "unknown_task"}
FOR_GOOD: Final = {"forged", "quarantined", "skipped"}
STATUSES: Final[tuple[VerdictStatus, ...]] = get_args(VerdictStatus)


def test_what_is_judged_for_good_is_replaced_by_a_correction_alone(tmp_path: Path) -> None:
    """One of this entry; what was given up may be taken up again."""
    others: dict[VerdictStatus, VerdictStatus] = {
        one: "lost" if one == "passed" else "passed" for one in STATUSES
    }
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger, ledger.transaction():
        for entry in ("other", *STATUSES, *(f"corrected-{one}" for one in STATUSES)):
            ledger.attempts.plan([(f"t-{entry}", entry, 1, 0)])
        ledger.verdicts.record([(verdict("other"), None)])
        for was in STATUSES:
            ledger.verdicts.note_correction("other")
            ledger.verdicts.record([(verdict(was, was), None)])
            ledger.verdicts.record([(verdict(was, others[was]), None)])
            ledger.verdicts.record([(verdict(f"corrected-{was}", was), None)])
            ledger.verdicts.note_correction(f"corrected-{was}")
            ledger.verdicts.record([(verdict(f"corrected-{was}", others[was]), None)])
        found = [
            one.entry for one in ledger.invariants.sendings(invariants.CHANGED_WITHOUT_CORRECTION)
        ]
        assert sorted(found) == sorted(OF_A_RECEIPT | FOR_GOOD)
