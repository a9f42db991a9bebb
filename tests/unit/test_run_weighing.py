"""What is said of one attempt is weighed as a whole, and what comes first is not true for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_manifest.schema import Entry, ErrorInfo, Receipt
from pytest_manifest.verdict.judging import Judging, recorded
from tests.unit.run_rig import Plan, Rig, begun, rig
from tests.unit.run_world import Delivery, Record, finished, receipt_of

Change = dict[str, Any]
ENTRY = Entry(id="a", task="t", args=[1], timeout=30.0)


def end(made: Rig, delivery: Delivery) -> None:
    made.world.end(made.world.workers["w1@box"], delivery, "succeeded")


def append(made: Rig, raw: dict[str, object], *, started: bool = False) -> None:
    """Put a record into the stream, past the workers."""
    made.world._append(Record(0, raw, made.task_id("a"), started))


def told(made: Rig, delivery: Delivery, execution: str | None = None, **fields: Any) -> None:
    """Somebody tells an end of this execution, or of another one."""
    assert delivery.execution is not None
    honest = receipt_of(delivery.execution, "succeeded", made.world.clock.utc_now())
    receipt = Receipt.model_validate(honest.model_dump() | fields)
    append(made, finished(execution or delivery.execution.name, receipt))


FAILED: Change = {
    "state": "failed",
    "error": ErrorInfo(type="Boom", message="no"),
    "result": None,
    "result_sha256": None,
}


def test_two_failures_of_one_execution_are_no_lie() -> None:
    """Celery tells a second one where it could not send an errback; the task's own counts."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        told(made, delivery, **FAILED)
        second = ErrorInfo(type="TypeError", message="an errback took no such argument")
        told(made, delivery, **{**FAILED, "error": second})
        made.step(2)
        assert made.kinds() == {"a": "failed"}
        assert "TypeError" not in made.sentence("a")


def test_an_entry_that_expects_a_failure_passes_by_none_of_two() -> None:
    """Whichever comes first: which of them was the job's own is not known."""
    expects = ENTRY.model_validate(
        {**ENTRY.model_dump(by_alias=True), "expect": {"state": "failed"}}
    )
    with rig(Plan((expects,))) as made:
        made.step()
        delivery = begun(made)
        second = ErrorInfo(type="TypeError", message="this is somebody else's")
        told(made, delivery, **{**FAILED, "error": second})
        told(made, delivery, **FAILED)
        made.step(2)
        assert made.kinds() == {"a": "forged"}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("lie_first", [True, False])
def test_two_ends_of_one_execution_that_differ_are_no_end(
    *, at_once: bool, lie_first: bool
) -> None:
    """Whichever comes first, and whether one look brings both or a later one the second."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        for change in ({}, FAILED) if lie_first else (FAILED, {}):
            told(made, delivery, **change)
            if not at_once:
                made.step()
        made.step(2)
        made.look()
        assert made.kinds() == {"a": "forged"}
        assert "two receipts of one execution differ" in made.sentence("a")
        assert "'succeeded' with 'result of a'" in made.sentence("a")


def test_the_same_end_told_twice_is_one_end() -> None:
    """What a worker sends again, as it could not be sure that it had arrived."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        told(made, delivery)
        told(made, delivery)
        made.step(2)
        told(made, delivery)
        made.look()
        assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize("start_too", [True, False])
def test_an_end_of_an_execution_that_never_began_is_not_believed(*, start_too: bool) -> None:
    """Though the job itself has begun, or not even that."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        if not start_too:
            made.world.stream = [one for one in made.world.stream if not one.started]
        made.step()
        told(made, delivery, "another")
        made.step(2)
        assert made.kinds() == {"a": "forged"}
        assert "the end of an execution that no worker has begun" in made.sentence("a")


def test_a_late_end_of_an_execution_that_never_began_takes_the_first_ones_green() -> None:
    """Two stories are told of one job, and one of them cannot be."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        told(made, delivery)
        made.step(2)
        assert made.kinds() == {"a": "passed"}
        told(made, delivery, "another", **FAILED)
        made.look()
        assert made.kinds() == {"a": "forged"}
        assert [one.before for one in made.engine.corrections] == ["passed"]


def test_a_store_that_was_emptied_has_lost_starts_and_makes_no_liars() -> None:
    """The worker said that it began; the end that it tells later is true."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.world.flush(everything=False)
        made.step()
        told(made, delivery)
        made.step(2)
        assert made.kinds() == {"a": "passed"}


def test_the_end_brings_the_start_that_could_not_be_told() -> None:
    """The store was away when the job began, and is back when it ends."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        assert delivery.execution is not None
        (start,) = (one.raw for one in made.world.stream if one.started)
        made.world.stream = [one for one in made.world.stream if not one.started]
        made.step()
        honest = receipt_of(delivery.execution, "succeeded", made.world.clock.utc_now())
        append(made, finished(delivery.execution.name, honest) | {"start": start})
        made.step(2)
        assert made.kinds() == {"a": "passed"}
        assert len(made.ledger.events.starts(made.task_id("a"))) == 1


@pytest.mark.parametrize("own_first", [True, False])
def test_the_jobs_own_word_counts_and_not_that_of_its_main_process(*, own_first: bool) -> None:
    """It had ended, and was killed by its limit while its receipt was on the way."""
    killed: Change = {**FAILED, "state": "timed_out", "cpu": None}
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        for change in ({}, killed) if own_first else (killed, {}):
            told(made, delivery, **change)
            made.step()
        made.look()
        assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"replaced": True, "task": "another"}, "forged", ""),
        ({"replaced": True, "args_sha256": "0" * 64}, "forged", ""),
        ({"retries": 1, "args_sha256": "0" * 64}, "forged", ""),
        ({"source": "backend", "args_sha256": None}, "unknown", "leaves out args_sha256"),
    ],
)
def test_a_claim_switches_nothing_off(change: Change, kind: str, said: str) -> None:
    """Task and arguments must be those of the entry where no start bears a retry or a replacement
    out; and what workers alone write is not believed of another source."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        told(made, delivery, **change)
        made.step(2)
        assert made.kinds() == {"a": kind}
        assert said in made.sentence("a")


def test_a_retry_that_its_starts_bear_out_may_have_other_arguments() -> None:
    """As Celery lets a task ask for."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.world.end(made.world.workers["w1@box"], delivery, "retried")
        again = begun(made)
        made.step()
        told(made, again, args_sha256="0" * 64)
        made.step(2)
        assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize("differs", [True, False])
@pytest.mark.parametrize("when", ["at once", "before the end", "after the end"])
def test_two_records_of_one_start_must_be_the_same(when: str, *, differs: bool) -> None:
    """Another one with retries would make a claim of retries true."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        (start,) = (one.raw for one in made.world.stream if one.started)
        second = {**start, "retries": 1} if differs else dict(start)

        def at(moment: str, do: Callable[[], object]) -> None:
            if moment == when:
                do()
            made.step()

        at("at once", lambda: append(made, second, started=True))
        at("before the end", lambda: append(made, second, started=True))
        told(made, delivery)
        made.step()
        at("after the end", lambda: append(made, second, started=True))
        made.look()
        assert made.kinds() == {"a": "forged" if differs else "passed"}


def test_what_was_forged_stays_so_when_it_is_looked_at_again() -> None:
    """An audit weighs what the ledger has, not only the receipt that came first."""
    with rig(Plan((ENTRY,))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        told(made, delivery)
        told(made, delivery, **FAILED)
        made.step(2)
        settled = made.ledger.verdicts.of_entry("a")
        assert settled is not None
        assert recorded(Judging(made.ledger).of(ENTRY)) == (settled.verdict, settled.receipt)
