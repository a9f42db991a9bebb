"""The evidence of an attempt, piece by piece: which end counts, what starts prove, what lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from loguru import logger

from pytest_manifest import signing as keys
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import (
    CLASHING_STARTS,
    RECEIPT_KEYS,
    REVOKED_TASKS,
    HandedOn,
    Ledger,
    Start,
    key_of,
)
from pytest_manifest.run.clock import CLOCK
from pytest_manifest.run.evidence import (
    EvidenceEvaluator,
    ReportedEnd,
    complete_receipt,
    contradiction_with_starts,
    decisive_end,
    disagreement,
    turn_of,
    without_unproven_claims,
)
from pytest_manifest.run.fact_log import note_emptied
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.signatures import merged_keys
from pytest_manifest.run.task_metadata import CODE_HISTORY, OWN_LIMITS
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.verdict.evidence import missing_fields
from pytest_manifest.verdict.signatures import UNSIGNED
from pytest_manifest.worker import signing
from tests.reasons import phrase
from tests.unit.ledger_support import INFO, MOMENT

Fields: TypeAlias = Mapping[str, Any]
TASK_ID = "t-a"
BEGAN, ENDED = MOMENT + timedelta(seconds=2), MOMENT + timedelta(seconds=3)
WHOLE: Fields = {
    "run": INFO.run,
    "entry": "a",
    "attempt": 1,
    "task_id": TASK_ID,
    "task": "jobs.t",
    "state": "succeeded",
    "source": "worker",
    "result": 5,
    "result_sha256": json_sha256(5),
    "args_sha256": arguments_sha256([1], {}),
    "worker": "w@h",
    "host": "h",
    "pid": 7,
    "sent_at": MOMENT,
    "started_at": BEGAN,
    "finished_at": ENDED,
    "wait": 2.0,
    "runtime": 1.0,
    "executions": 1,
    "cpu": 0.1,
}


def receipt(**fields: Any) -> Receipt:
    return Receipt.model_validate({**WHOLE, **fields})


def failed(message: str = "no", kind: str = "Boom", **fields: Any) -> Receipt:
    error = {"type": kind, "message": message}
    said = {"state": "failed", "error": error, "result": None, "result_sha256": None}
    return receipt(**{**said, **fields})


def start(execution: str = "x", **fields: Any) -> Start:
    known = Start(TASK_ID, execution, BEGAN, 0, "w@h", "h", 7, redelivered=False)
    return replace(known, **fields)


def entry(expect: Fields | None = None, **fields: Any) -> Entry:
    known = {"id": "a", "task": "jobs.t", "args": [1], "timeout": 30, "expect": expect or {}}
    return Entry.model_validate({**known, **fields})


# The end that counts

OWN = receipt()
OF_MAIN = failed(state="timed_out", cpu=None)
STOCK = receipt(source="backend")
NOTICE = failed(state="revoked", source="backend", cpu=None)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (OWN, STOCK),
        (OF_MAIN, STOCK),
        (STOCK, NOTICE),
        (OWN, OF_MAIN),
        (failed(cpu=None), OF_MAIN),
        (receipt(state="ignored", cpu=None), OF_MAIN),
        (receipt(cpu=None), OF_MAIN),
        (failed(state="timed_out", cpu=0.0), failed(state="crashed", cpu=None)),
    ],
)
def test_of_one_execution_the_end_counts_that_knows_most(more: Receipt, less: Receipt) -> None:
    """Its own process knows more than its main one, and a worker than the store; in any order."""
    for ends in ([more, less], [less, more]):
        assert decisive_end([("x", one) for one in ends]) == ("x", more)


def test_of_two_that_know_as_much_the_first_counts() -> None:
    """The second may be what came of the first."""
    first, second = failed("first"), failed("second")
    assert decisive_end([("x", first), ("x", second)])[1] is first


def test_of_several_executions_the_last_counts_that_a_worker_tells_of() -> None:
    """Whatever the store says then; without any worker its last word counts."""
    ends: list[ReportedEnd] = [("x", failed("x")), ("y", failed("y")), ("z", OWN), (None, STOCK)]
    assert decisive_end(ends) == ("z", OWN)
    assert decisive_end(ends[:2]) == ends[1]
    stock: list[ReportedEnd] = [(None, NOTICE), ("y", STOCK)]
    assert decisive_end(stock) == ("y", STOCK)
    assert decisive_end(stock[:1]) is stock[0]


# Ends that contradict one another

DIFFERENT = "two receipts of one execution differ: "
SUCCESS = "'succeeded' with 5"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (OWN, failed(), f"{SUCCESS} and 'failed' with 'Boom'"),
        (failed(), OWN, f"'failed' with 'Boom' and {SUCCESS}"),
        (OWN, failed(error=None), f"{SUCCESS} and 'failed'"),
        (OWN, receipt(result=6, result_sha256=json_sha256(6)), f"{SUCCESS} and 'succeeded' with 6"),
        (
            receipt(result_sha256=None),
            receipt(result=6, result_sha256=None),
            f"{SUCCESS} and 'succeeded' with 6",
        ),
        (OWN, receipt(task="jobs.u"), f"{SUCCESS} and {SUCCESS}"),
        (OWN, receipt(args_sha256="0" * 64), f"{SUCCESS} and {SUCCESS}"),
        (
            failed(task="jobs.u"),
            failed("other"),
            "'failed' with 'Boom' and 'failed' with 'Boom'",
        ),
        (
            failed(args_sha256=None),
            failed("other"),
            "'failed' with 'Boom' and 'failed' with 'Boom'",
        ),
        (OWN, receipt(state="ignored"), f"{SUCCESS} and 'ignored'"),
        (
            failed(state="timed_out", kind="Slow"),
            failed(state="timed_out", kind="Late"),
            "'timed_out' with 'Slow' and 'timed_out' with 'Late'",
        ),
        (
            failed(state="timed_out"),
            failed("other", state="timed_out"),
            "'timed_out' with 'Boom' and 'timed_out' with 'Boom'",
        ),
    ],
)
def test_two_ends_that_differ_cannot_both_be_true(one: Receipt, other: Receipt, said: str) -> None:
    """Where its own process told them both, of one execution; whatever else is told."""
    ends: list[ReportedEnd] = [(None, STOCK), ("x", OF_MAIN), ("y", OWN), ("x", one), ("x", other)]
    assert phrase(disagreement(ends)) == DIFFERENT + said
    assert phrase(disagreement(ends[:-1])) == ""
    assert phrase(disagreement([("x", one), ("z", other)])) == ""
    assert phrase(disagreement([(None, one), (None, other)])) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OWN, receipt(worker="w2@h", finished_at=MOMENT)),
        (OWN, receipt(result=6)),
        (failed(), failed()),
        (failed(error=None), failed(error=None)),
    ],
)
def test_ends_that_say_the_same_may_both_be_true(one: Receipt, other: Receipt) -> None:
    """A digest says of what result they are."""
    assert phrase(disagreement([("x", one), ("x", other)], by_failure=True)) == ""


def test_two_failures_may_both_be_true_unless_one_makes_the_entry_pass() -> None:
    """And a third end is held against the first of them."""
    ends: list[ReportedEnd] = [("x", failed()), ("x", failed("then", "Other"))]
    assert phrase(disagreement(ends)) == ""
    said = "'failed' with 'Boom' and 'failed' with 'Other'"
    assert phrase(disagreement(ends, by_failure=True)) == DIFFERENT + said
    assert (
        phrase(disagreement([*ends, ("x", OWN)]))
        == f"{DIFFERENT}'failed' with 'Boom' and {SUCCESS}"
    )


# Ends and starts

UNBEGUN = "it reports the end of an execution that no worker has begun"


@pytest.mark.parametrize("state", ["succeeded", "failed", "ignored"])
def test_what_ends_has_begun(state: str) -> None:
    """As far as only its own process can tell the end, in a stream."""
    ends: list[ReportedEnd] = [(None, STOCK), ("x", receipt(state=state))]
    assert phrase(contradiction_with_starts(ends, [start("y")])) == UNBEGUN
    assert phrase(contradiction_with_starts(ends, [])) == UNBEGUN
    assert phrase(contradiction_with_starts(ends, [start("y"), start("x")])) == ""
    assert phrase(contradiction_with_starts(ends[:1], [])) == ""


@pytest.mark.parametrize("state", ["expired", "unknown_task"])
def test_what_never_began_has_no_start(state: str) -> None:
    """Its own: another execution may have one."""
    ends: list[ReportedEnd] = [("x", receipt(state=state))]
    said = f"it says that the job was {state!r}, which a worker had begun"
    assert phrase(contradiction_with_starts(ends, [start("y"), start("x")])) == said
    assert phrase(contradiction_with_starts(ends, [start("y")])) == ""


@pytest.mark.parametrize("state", ["crashed", "timed_out", "revoked", "rejected"])
def test_other_ends_may_come_with_a_start_or_without(state: str) -> None:
    """A main process tells them, of a child that had begun or had not."""
    ends: list[ReportedEnd] = [("x", receipt(state=state))]
    assert phrase(contradiction_with_starts(ends, [start("x")])) == ""
    assert phrase(contradiction_with_starts(ends, [])) == ""


RETRIED: Fields = {"retries": 1}
REPLACED: Fields = {"replaced": True}
BOTH: Fields = {**RETRIED, **REPLACED}
STRUCK: Fields = {"retries": 0, "replaced": False}


@pytest.mark.parametrize(
    ("claims", "starts", "execution", "left"),
    [
        (RETRIED, [start()], "x", STRUCK),
        (RETRIED, [start(retries=1)], "x", RETRIED),
        (RETRIED, [start(retries=2)], "x", STRUCK),
        (RETRIED, [start(), start("y", retries=1)], "x", STRUCK),
        (RETRIED, [start("y", retries=1)], "x", RETRIED),
        (RETRIED, [start(), start("y", retries=1)], None, RETRIED),
        (RETRIED, [], None, STRUCK),
        ({**RETRIED, "retried": [{"retries": 0}]}, [], None, RETRIED),
        ({**RETRIED, "retried": [{"retries": 0}]}, [start()], "x", STRUCK),
        (REPLACED, [start()], "x", STRUCK),
        (REPLACED, [start(hop=1)], "x", REPLACED),
        (REPLACED, [start(), start("y")], "x", REPLACED),
        (REPLACED, [], None, REPLACED),
        (BOTH, [start()], "x", STRUCK),
        (BOTH, [start(retries=1)], "x", RETRIED),
        (BOTH, [start(hop=1)], "x", REPLACED),
    ],
)
def test_a_claim_stands_where_a_start_proves_it(
    claims: Fields, starts: Sequence[Start], execution: str | None, left: Fields
) -> None:
    """Else it is struck, and nothing beside it."""
    told = receipt(**claims)
    found = without_unproven_claims(execution, told, starts)
    assert found == told.model_copy(update={**STRUCK, **left})


def test_what_claims_nothing_stays_as_it_is() -> None:
    """The very same: nothing is copied for each of a hundred thousand."""
    for told in (OWN, receipt(source="backend", **BOTH), receipt(**RETRIED)):
        assert without_unproven_claims("x", told, [start(retries=told.retries)]) is told
    proven = receipt(**REPLACED)
    assert without_unproven_claims("x", proven, [start(hop=1)]) is proven


# What a receipt lacks

TIMED: Fields = {"max_wait": 1}


@pytest.mark.parametrize(
    ("fields", "expect", "names"),
    [
        ({}, {}, []),
        ({"started_at": None}, {}, ["started_at"]),
        ({"finished_at": None}, {}, ["finished_at"]),
        ({"runtime": None}, {}, ["runtime"]),
        ({"wait": None}, {}, []),
        ({"wait": None}, TIMED, ["wait"]),
        ({"wait": 0.0}, TIMED, []),
        ({"executions": 0}, {}, ["executions"]),
        ({"sent_at": None}, {}, ["sent_at"]),
        ({"args_sha256": None}, {}, ["args_sha256"]),
        ({"code": None}, {}, ["code"]),
        ({"code": None, "replaced": True}, {}, []),
        ({"result_sha256": None}, {}, ["result_sha256"]),
        ({"result_sha256": None, "evidence": {"result_not_json": "?"}}, {}, []),
        ({"result_sha256": None, "evidence": {"result_omitted": 9}}, {}, ["result_sha256"]),
        ({"result_sha256": None, "state": "failed"}, {}, []),
        ({"state": "timed_out", "runtime": None}, {}, []),
        ({"source": "backend", "runtime": None}, {}, []),
        ({"state": "failed", "runtime": None}, {}, ["runtime"]),
        ({"state": "ignored", "runtime": None}, {}, ["runtime"]),
        (
            dict.fromkeys(
                (
                    *("started_at", "finished_at", "runtime", "wait", "sent_at", "args_sha256"),
                    *("code", "result_sha256"),
                )
            )
            | {"executions": 0},
            TIMED,
            [
                *("started_at", "finished_at", "runtime", "wait", "executions", "sent_at"),
                *("args_sha256", "code", "result_sha256"),
            ],
        ),
    ],
)
def test_a_worker_of_ours_says_all_of_this(
    fields: Fields, expect: Fields, names: Sequence[str]
) -> None:
    """Of a task that it ran; each is named that is left out."""
    told = receipt(**{"code": "py3.11:" + "a" * 64, **fields})
    found = missing_fields(entry(expect), told, sent=True, code="py3.11:" + "b" * 64)
    assert list(found) == names


def test_what_nobody_can_compare_need_not_be_said() -> None:
    """A sending of unknown time, code that is not here, arguments that are no JSON."""
    assert list(missing_fields(entry(), receipt(sent_at=None), sent=False, code=None)) == []
    bare = receipt(args_sha256=None)
    for args, names in (
        ([1], ["args_sha256"]),
        ([{"__type__": "datetime"}], []),
        ([{"type": "datetime"}], ["args_sha256"]),
    ):
        assert list(missing_fields(entry(args=args), bare, sent=True, code=None)) == names
        by_name = entry(args=[], kwargs={"a": args})
        assert list(missing_fields(by_name, bare, sent=True, code=None)) == names
    unread = entry().model_copy(update={"args": [{1}]})
    assert list(missing_fields(unread, bare, sent=True, code=None)) == []


# What starts add to a receipt


def test_a_start_fills_in_what_is_not_known() -> None:
    """The last of them, where there are several; executions are counted by all."""
    first, last = start("x"), start("y", started_at=ENDED, worker="v@i", host="i", pid=8, hop=1)
    bare = receipt(started_at=None, wait=None, worker=None, host=None, pid=None, executions=0)
    assert complete_receipt(bare, [first, last]) == bare.model_copy(
        update={
            "executions": 1,
            "started_at": ENDED,
            "wait": 3.0,
            "worker": "v@i",
            "host": "i",
            "pid": 8,
        }
    )


def test_what_a_receipt_says_itself_stands() -> None:
    """Whatever the starts say; but executions are theirs to count."""
    told = receipt(redelivered=True, executions=1, wait=0.5)
    other = start(started_at=ENDED, worker="v@i", host="i", pid=8)
    assert complete_receipt(told, [other]) is told
    again = complete_receipt(told, [other, replace(other, execution="y")])
    assert again == told.model_copy(update={"executions": 2})


@pytest.mark.parametrize(
    ("fields", "started_at", "wait"),
    [
        ({"sent_at": ENDED}, BEGAN, 0.0),
        ({"sent_at": None}, BEGAN, None),
        ({}, None, None),
        ({}, ENDED, 3.0),
    ],
)
def test_a_wait_is_never_less_than_nothing(
    fields: Fields, started_at: datetime | None, wait: float | None
) -> None:
    """Clocks differ; and it is not known where one of its ends is not."""
    bare = receipt(**{"started_at": None, "wait": None, "executions": 0, **fields})
    assert complete_receipt(bare, [start(started_at=started_at)]).wait == wait


def test_each_turn_of_a_job_may_be_begun_once() -> None:
    """It is another turn where the job was retried, or handed on."""
    turns = [start("a"), start("b", retries=1), start("c", retries=1), start("d", hop=1)]
    assert [turn_of(one) for one in turns] == [(0, 0), (0, 1), (0, 1), (1, 0)]
    assert complete_receipt(OWN, turns).executions == 2
    assert complete_receipt(OWN, turns[:2]) is OWN
    assert complete_receipt(OWN, [turns[0], turns[3], turns[2]]) is OWN


def test_any_start_may_tell_of_a_redelivery() -> None:
    """And no other is forgotten."""
    starts = [start("x", redelivered=True), start("y", retries=1)]
    assert complete_receipt(OWN, starts) == OWN.model_copy(update={"redelivered": True})


SIGNED: Fields = {"signature": {"key": "0" * 64, "value": "x", "filled": []}}


@pytest.mark.parametrize(
    ("fields", "before", "filled"),
    [
        ({"executions": 0}, [], []),
        ({"worker": None, "pid": None}, [], ["worker", "pid"]),
        ({"worker": None, "pid": None}, ["worker"], ["worker", "pid"]),
        ({"worker": None}, ["pid", "worker"], ["pid", "worker"]),
        (
            {"started_at": None, "wait": None, "worker": None, "host": None, "executions": 0},
            ["pid"],
            ["pid", "started_at", "wait", "worker", "host"],
        ),
    ],
)
def test_what_is_filled_in_is_not_held_against_a_signature(
    fields: Fields, before: Sequence[str], filled: Sequence[str]
) -> None:
    """Each field is named once; executions are never signed."""
    signature: Fields = {"signature": {**SIGNED["signature"], "filled": list(before)}}
    found = complete_receipt(receipt(**signature, **fields), [start()])
    assert found == receipt(signature={**SIGNED["signature"], "filled": list(filled)})
    assert complete_receipt(receipt(**fields), [start()]) == OWN


def test_a_signed_receipt_that_says_all_stays_as_it_is() -> None:
    """The very same."""
    told = receipt(**SIGNED)
    assert complete_receipt(told, [start()]) is told
    bare = receipt(executions=0, **SIGNED)
    assert complete_receipt(bare, [start()]).signature is bare.signature


# The verdict

MERGED = "20261123T150000-99999999"
CODE, OTHER = ("py3.11:" + letter * 64 for letter in "ab")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        yield made


def judged(
    ledger: Ledger,
    *ends: ReportedEnd,
    starts: Sequence[Start] | None = None,
    made: EvidenceEvaluator | None = None,
    by: Entry | None = None,
    task_id: str = TASK_ID,
    number: int = 1,
    sent_at: datetime | None = MOMENT,
    exact: bool = True,
) -> tuple[Verdict, Receipt | None]:
    return (made or EvidenceEvaluator(INFO.run, ledger)).evaluate(
        by or entry(),
        task_id,
        number,
        ends or [("x", OWN)],
        [start()] if starts is None else starts,
        sent_at,
        exact_message=exact,
    )


def status(*found: Any, **more: Any) -> str:
    return judged(*found, **more)[0].verdict


def test_a_job_in_good_order_passes_by_its_receipt(ledger: Ledger) -> None:
    """With what the starts add to it, of the attempt that it is of."""
    bare = receipt(worker=None, attempt=3)
    verdict, found = judged(ledger, ("x", bare), number=3)
    assert (verdict.verdict, verdict.attempt, verdict.entry) == ("passed", 3, "a")
    assert found == bare.model_copy(update={"worker": "w@h"})
    assert "on w@h (pid 7)" in verdict.sentence


def test_the_end_that_counts_is_judged(ledger: Ledger) -> None:
    """And not the first that came, nor a claim that nothing proves."""
    assert status(ledger, ("x", OF_MAIN), ("x", OWN)) == "passed"
    claimed = receipt(args_sha256="0" * 64, retries=1)
    assert status(ledger, ("x", claimed)) == "forged"
    assert status(ledger, ("x", claimed), starts=[start(retries=1)]) == "passed"
    others = [start("x", retries=1), start("y")]
    assert status(ledger, ("y", claimed), starts=others) == "forged"
    later = receipt(args_sha256="0" * 64, retries=2)
    proven = [start("x"), start("y", retries=2)]
    assert status(ledger, ("x", OWN), ("y", later), starts=proven) == "passed"


class Signatures:
    """Trust what a worker of this name has signed."""

    def fault_of(self, told: Receipt) -> str:
        return "" if told.worker == "w@h" else f"{told.worker} is nobody"


def test_only_what_is_signed_counts_where_that_is_required(ledger: Ledger) -> None:
    """What is left is judged as if there were no other; of none the first is told."""
    made = EvidenceEvaluator(INFO.run, ledger)
    assert made.signatures is None
    # As much of them as is asked for:
    made._signatures.all = Signatures()  # type: ignore[assignment]
    theirs = failed(worker="v@i")
    assert status(ledger, ("x", theirs), ("x", OWN), made=made) == "passed"
    forged = ("x", theirs), ("x", failed(worker="u@i"))
    verdict, found = judged(ledger, *forged, made=made, number=3)
    assert (verdict.verdict, verdict.attempt, found) == ("forged", 3, theirs)
    assert "(v@i is nobody)" in verdict.sentence
    other = ("x", receipt(entry="b", worker="v@i"))
    assert judged(ledger, other, forged[0], made=made)[1] is None


def test_the_keys_of_the_ledger_are_those_of_its_run(ledger: Ledger) -> None:
    """Whoever judges it."""
    ledger.info.set_meta(RECEIPT_KEYS, keys.generate()[1])
    verdict, _ = judged(ledger)
    assert verdict.verdict == "forged"
    assert UNSIGNED in verdict.sentence


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"run": MERGED}, f"it is of another run: '{MERGED}', not '{INFO.run}'"),
        ({"attempt": 2}, "it is of another attempt: 2, not 1"),
        ({"task_id": "t-b"}, "it is of another task id: 't-b', not 't-a'"),
        ({"task": "jobs.u"}, "it is of another task: 'jobs.u', not 'jobs.t'"),
    ],
)
def test_a_receipt_of_something_else_is_not_believed(
    ledger: Ledger, fields: Fields, why: str
) -> None:
    """It is kept, and the log says what is wrong with it, of which entry."""
    said: list[tuple[str, object]] = []
    sink = logger.add(lambda told: said.append((told, told.record["extra"].get("entry"))))
    try:
        verdict, found = judged(ledger, ("x", receipt(**fields)))
    finally:
        logger.remove(sink)
    assert (verdict.verdict, verdict.attempt) == ("forged", 1)
    assert f"({why})" in verdict.sentence
    assert found == receipt(**fields)
    assert [told_of for told, told_of in said if f"cannot be trusted: {why}" in told] == ["a"]


def test_the_receipt_of_another_entry_is_not_kept(ledger: Ledger) -> None:
    """It is that one's, and stands beside it."""
    verdict, found = judged(ledger, ("x", receipt(entry="b")))
    assert (verdict.verdict, found) == ("forged", None)


def test_a_receipt_is_of_the_message_that_was_sent(ledger: Ledger) -> None:
    """Where that is known; one under the same id may have been sent before."""
    earlier = MOMENT - timedelta(hours=1)
    assert status(ledger, sent_at=earlier) == "forged"
    assert status(ledger, sent_at=earlier, exact=False) == "passed"
    made, ends = EvidenceEvaluator(INFO.run, ledger), [("x", OWN)]
    verdict, _ = made.evaluate(entry(), TASK_ID, 1, ends, [start()], earlier)
    assert verdict.verdict == "forged"
    assert status(ledger, ("x", receipt(sent_at=None)), sent_at=None) == "passed"
    verdict, _ = judged(ledger, ("x", receipt(sent_at=None)))
    assert verdict.verdict == "unknown"
    assert "leaves out sent_at, by which" in verdict.sentence


def test_what_was_published_twice_may_be_of_either_message(ledger: Ledger) -> None:
    """The first may have got lost, and nobody knows which of them its worker had."""
    later = MOMENT + timedelta(seconds=9)
    ledger.attempts.plan([(TASK_ID, "a", 1, 0)])
    ledger.attempts.mark([TASK_ID], "sent", sent_at=later)
    assert status(ledger, sent_at=later) == "forged"
    ledger.attempts.mark([TASK_ID], "sent", note="its message may have got lost")
    assert status(ledger, sent_at=later) == "passed"
    assert status(ledger, ("x", receipt(task_id="t-b")), sent_at=later) == "forged"


def test_ends_that_contradict_one_another_are_none(ledger: Ledger) -> None:
    """Also two failures, where one of them is what the entry expects."""
    verdict, _ = judged(ledger, ("x", OWN), ("x", failed()))
    assert verdict.verdict == "forged"
    assert DIFFERENT in verdict.sentence
    two = ("x", failed()), ("x", failed("other"))
    assert status(ledger, *two) == "failed"
    assert status(ledger, *two, by=entry({"state": "failed"})) == "forged"
    assert status(ledger, *two, by=entry({"state": "crashed"})) == "failed"


def test_an_end_without_a_start_is_none_where_all_starts_are_known(ledger: Ledger) -> None:
    """An emptied store has lost those of what was in flight, and so may one of which nobody knows:
    that is kept."""
    ledger.attempts.plan([(TASK_ID, "a", 1, 0), ("t-b", "b", 1, 1)])
    ledger.attempts.mark([TASK_ID], "sent", sent_at=MOMENT)
    made = EvidenceEvaluator(INFO.run, ledger)
    verdict, _ = judged(ledger, starts=[start("y")], made=made)
    assert verdict.verdict == "forged"
    assert UNBEGUN in verdict.sentence
    made.is_whole = lambda: False
    assert status(ledger, starts=[start("y")], made=made) == "passed"
    assert status(ledger, starts=[start("y")]) == "passed"
    assert status(ledger, ("x", receipt(task="jobs.u")), made=made) == "forged"
    other = receipt(entry="b", task_id="t-b")
    late: Fields = {"by": entry(id="b"), "task_id": "t-b", "starts": [start("y")]}
    note_emptied(ledger)
    assert status(ledger, ("x", other), **late) == "forged"  # it had not been sent
    ledger.attempts.mark(["t-b"], "sent", sent_at=MOMENT)
    note_emptied(ledger)
    assert status(ledger, ("x", other), **late) == "passed"


def test_a_store_that_is_emptied_has_kept_what_had_come(ledger: Ledger) -> None:
    """An end that was read before was read with all that came before it."""
    ledger.attempts.plan([(TASK_ID, "a", 1, 0)])
    ledger.attempts.mark([TASK_ID], "sent", sent_at=MOMENT)
    ledger.events.add_receipts([(TASK_ID, "x", OWN)])
    note_emptied(ledger)
    assert status(ledger, starts=[start("y")]) == "forged"
    ledger.events.add_handed_on([HandedOn(TASK_ID, "x", "retry", MOMENT, None)])
    note_emptied(ledger)
    assert status(ledger, starts=[start("y")]) == "passed"  # that was no end: the job went on


def test_what_the_run_took_back_itself_meets_no_expectation(ledger: Ledger) -> None:
    """Of those that expect to be revoked, by whoever else; for a later session, too."""
    wanted, other = entry({"state": "revoked"}), entry()
    revoked = ("x", failed(state="revoked", cpu=None))
    made = EvidenceEvaluator(INFO.run, ledger)
    assert status(ledger, revoked, made=made, by=wanted, starts=[]) == "passed"
    jobs = [
        PendingAttempt(INFO.run, one, 1, task_id, 0.0, MOMENT)
        for one, task_id in ((wanted, "t-z"), (wanted, TASK_ID), (other, "t-c"))
    ]
    made.mark_revoked(jobs)
    assert json.loads(ledger.info.get_meta(REVOKED_TASKS) or "") == [TASK_ID, "t-z"]
    for one in (made, EvidenceEvaluator(INFO.run, ledger)):
        verdict, found = judged(ledger, revoked, made=one, by=wanted, starts=[start()])
        assert (verdict.verdict, verdict.attempt) == ("revoked", 1)
        assert "(the run itself took it back)" in verdict.sentence
        assert found is not None
        assert found.executions == 1
    mine = ("x", failed(state="revoked", cpu=None, task_id="t-b"))
    assert status(ledger, mine, by=wanted, starts=[], task_id="t-b") == "passed"
    assert status(ledger, ("x", OWN), made=made) == "passed"
    assert status(ledger, ("x", OWN), made=made, by=wanted) == "failed"


def test_what_is_marked_again_is_written_once(ledger: Ledger) -> None:
    """A look into the ledger for each would be felt; and what it has stays."""
    made = EvidenceEvaluator(INFO.run, ledger)
    job = PendingAttempt(INFO.run, entry({"state": "revoked"}), 1, TASK_ID, 0.0, MOMENT)
    made.mark_revoked([])
    assert ledger.info.get_meta(REVOKED_TASKS) is None
    made.mark_revoked([job])
    ledger.info.set_meta(REVOKED_TASKS, '["t-q"]')
    made.mark_revoked([job])
    assert ledger.info.get_meta(REVOKED_TASKS) == '["t-q"]'
    later = EvidenceEvaluator(INFO.run, ledger)
    later.mark_revoked([job])
    assert json.loads(ledger.info.get_meta(REVOKED_TASKS) or "") == [TASK_ID, "t-q"]


def test_what_is_marked_and_cannot_be_read_is_damage(ledger: Ledger) -> None:
    """With the ledger's name."""
    ledger.info.set_meta(REVOKED_TASKS, "[")
    wanted = entry({"state": "revoked"})
    with pytest.raises(LedgerError, match=r"run\.sqlite"):
        status(ledger, ("x", failed(state="revoked", cpu=None)), by=wanted, starts=[])


@pytest.mark.parametrize(
    ("fields", "clashes"),
    [
        ({}, False),
        ({"redelivered": True}, False),
        ({"started_at": ENDED}, True),
        ({"retries": 1}, True),
        ({"worker": "v@h"}, True),
        ({"host": "i"}, True),
        ({"execution": "y", "pid": 8}, False),
        ({"task_id": "t-b", "pid": 8}, False),
    ],
)
def test_two_records_of_one_start_are_the_same(
    ledger: Ledger, fields: Fields, *, clashes: bool
) -> None:
    """Else one of them is made up, and so may be the end."""
    ledger.events.add_starts([start("z"), start()])
    made = EvidenceEvaluator(INFO.run, ledger)
    repeated = start(**fields)
    made.add_repeated_starts(repeated.task_id, [repeated])
    marked = ledger.info.get_meta(CLASHING_STARTS)
    assert marked == ('["t-a"]' if clashes else None)
    verdict, _ = judged(ledger, made=made)
    assert verdict.verdict == ("forged" if clashes else "passed")
    if clashes:
        why = "(two records of the start of one of its executions differ)"
        assert why in verdict.sentence
        assert status(ledger, ("x", receipt(task_id="t-b")), made=made, task_id="t-b") == "passed"


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("pids", [[7, 8], [7, 8, 9]])
def test_a_pool_that_gives_a_job_to_another_process_starts_it_again(
    ledger: Ledger, pids: list[int], *, again: bool
) -> None:
    """Its worker names the execution once; each process is a start, and the last one's has its end.

    Records that are read once more, as a later session does, add none.
    """
    made = EvidenceEvaluator(INFO.run, ledger)
    all_of_them = [start(pid=pid) for pid in pids]
    made.add_repeated_starts(TASK_ID, [start("z", retries=1), *all_of_them])
    if again:
        for one in all_of_them:
            made.add_repeated_starts(TASK_ID, [one])
    found = {one.execution: one.pid for one in ledger.events.starts(TASK_ID)}
    assert found == {"z": 7, "x": pids[-1], **{f"x.{pid}": pid for pid in pids[:-1]}}
    assert {one.execution for one in ledger.events.starts(TASK_ID) if one.is_given_again} == {
        f"x.{pid}" for pid in pids[:-1]
    }
    assert ledger.info.get_meta(CLASHING_STARTS) is None
    verdict, _ = judged(ledger, made=made, starts=ledger.events.starts(TASK_ID))
    assert verdict.verdict == "duplicated"
    assert f"was started {len(pids)} times where 1 is allowed, and" in verdict.sentence
    assert "a pool, too, gives a job again whose process died as it began" in verdict.sentence


def test_a_start_that_was_given_again_is_repeated_as_it_was(ledger: Ledger) -> None:
    """Another time for it is made up, as for any other."""
    made = EvidenceEvaluator(INFO.run, ledger)
    made.add_repeated_starts(TASK_ID, [start(), start(pid=8), start(started_at=ENDED)])
    assert ledger.info.get_meta(CLASHING_STARTS) == '["t-a"]'


def test_a_clash_says_nothing_where_no_start_is_weighed(ledger: Ledger) -> None:
    """And hides no other lie."""
    ledger.info.set_meta(CLASHING_STARTS, '["t-a"]')
    revoked = ("x", failed(state="revoked", cpu=None))
    assert status(ledger, revoked, starts=[]) == "revoked"
    verdict, _ = judged(ledger, ("x", receipt(attempt=2)))
    assert "another attempt" in verdict.sentence


def history(*steps: tuple[datetime, str]) -> str:
    return json.dumps([[since.isoformat(), {"jobs.t": code}] for since, code in steps])


def test_a_receipt_is_held_against_the_code_of_its_own_sending(ledger: Ledger) -> None:
    """The receipt's own time counts where the ledger has none."""
    later = MOMENT + timedelta(hours=1)
    ledger.info.set_meta(CODE_HISTORY, history((MOMENT, CODE), (later, OTHER)))
    assert status(ledger, ("x", receipt(code=CODE))) == "passed"
    assert status(ledger, ("x", receipt(code=CODE)), sent_at=None) == "passed"
    assert status(ledger, ("x", receipt(code=OTHER))) == "failed"
    for unsent in (None, later):
        sending: Fields = {"sent_at": later, "started_at": later, "finished_at": later}
        again = receipt(code=OTHER, **sending)
        assert status(ledger, ("x", again), sent_at=unsent) == "passed"
    verdict, _ = judged(ledger, ("x", OWN))
    assert verdict.verdict == "unknown"
    assert "leaves out code, by which" in verdict.sentence


def test_an_attempt_of_a_merged_run_is_that_runs(ledger: Ledger) -> None:
    """By its task id: its receipts, and its code."""
    ledger.info.set_meta("merged", json.dumps([MERGED]))
    ledger.info.set_meta(CODE_HISTORY, history((MOMENT, CODE)))
    ledger.info.set_meta(key_of(CODE_HISTORY, MERGED), history((MOMENT, OTHER)))
    mine = receipt(task_id="99999999-t", run=MERGED, code=OTHER)
    made = EvidenceEvaluator(INFO.run, ledger)
    assert status(ledger, ("x", mine), made=made, task_id="99999999-t") == "passed"
    theirs = mine.model_copy(update={"code": CODE})
    assert status(ledger, ("x", theirs), made=made, task_id="99999999-t") == "failed"
    assert status(ledger, ("x", receipt(code=CODE)), made=made) == "passed"


@pytest.mark.parametrize("is_its_own", [True, False])
def test_an_attempt_of_a_merged_run_is_signed_by_the_keys_of_that_run(
    ledger: Ledger, *, is_its_own: bool
) -> None:
    """Those of the others do not count for it."""
    private, public = keys.generate()
    _, other = keys.generate()
    ledger.info.set_meta("merged", json.dumps([MERGED]))
    ledger.info.set_meta(RECEIPT_KEYS, merged_keys([public, other]))
    ledger.info.set_meta(key_of(RECEIPT_KEYS, MERGED), public if is_its_own else other)
    told = receipt(task_id="99999999-t", run=MERGED)
    signing.use(keys.read_signer(private.decode(), "key"))
    try:
        document = signing.sign_receipt(told.model_dump(mode="json"), "x")
    finally:
        signing.forget()
    signed = Receipt.model_validate_json(json.dumps(document))
    found = status(ledger, ("x", signed), task_id="99999999-t")
    assert found == ("passed" if is_its_own else "forged")


def test_the_clock_is_watched_by_the_record_of_the_run(ledger: Ledger) -> None:
    assert ledger.info.get_meta(CLOCK) is None
    EvidenceEvaluator(INFO.run, ledger).clock.look()
    assert ledger.info.get_meta(CLOCK) is not None


def test_the_limit_of_the_task_itself_holds(ledger: Ledger) -> None:
    """Where the entry names none."""
    ledger.info.set_meta(OWN_LIMITS, '[["2026-01-01T00:00:00+00:00", {"jobs.t": 600}]]')
    silent = Entry.model_validate({"id": "a", "task": "jobs.t", "args": [1]})
    late = MOMENT + timedelta(seconds=402)
    long = receipt(runtime=400.0, finished_at=late)
    assert status(ledger, ("x", long), by=silent) == "passed"
    assert status(ledger, ("x", long), by=silent.model_copy(update={"task": "t"})) == "forged"
    too_long = receipt(runtime=601.0, finished_at=MOMENT + timedelta(seconds=603))
    assert status(ledger, ("x", too_long), by=silent) == "timed_out"


def test_the_limit_of_the_task_is_that_which_it_had_when_the_job_was_sent(ledger: Ledger) -> None:
    later = MOMENT + timedelta(hours=1)
    steps = [[MOMENT.isoformat(), {"jobs.t": 600}], [later.isoformat(), {"jobs.t": 300}]]
    ledger.info.set_meta(OWN_LIMITS, json.dumps(steps))
    silent = Entry.model_validate({"id": "a", "task": "jobs.t", "args": [1]})
    for sent_at, expected in ((MOMENT, "passed"), (later, "timed_out")):
        began, ended = sent_at + timedelta(seconds=2), sent_at + timedelta(seconds=402)
        long = receipt(runtime=400.0, sent_at=sent_at, started_at=began, finished_at=ended)
        starts = [start(started_at=began)]
        assert status(ledger, ("x", long), by=silent, sent_at=sent_at, starts=starts) == expected
