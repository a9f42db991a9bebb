"""What is judged while the broker is away, or will not have one queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.publisher import PublishResult
from pytest_manifest.run.connections import OUTAGE_LIMIT
from pytest_manifest.schema import Entry
from pytest_manifest.verdict.reasons import Problem
from tests.reasons import noted
from tests.unit.run_rig import Plan, Rig, rig


def entry(name: str, *, deadline: float | None = None, after: Sequence[str] = ()) -> Entry:
    return Entry(id=name, task="t", deadline=deadline, after=list(after))


def refuse(made: Rig, name: str) -> None:
    """Have the broker refuse this entry's queue."""
    publish = made.publisher.publish

    def refusing(attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        locked: Problem = noted("its queue is locked")
        refused = {a.task_id: locked for a in attempts if a.entry.id == name}
        result = publish([a for a in attempts if a.entry.id != name], sent_at)
        return PublishResult(result.certain, refused=refused)

    made.publisher.publish = refusing  # type: ignore[method-assign]  # this one world's broker


def test_a_deadline_counts_while_an_outage_is_waited_for() -> None:
    """An entry that cannot be sent has its verdict at its deadline; the others wait on."""
    with rig(Plan((entry("a", deadline=5.0), entry("b"), entry("c", after=["a"])))) as made:
        made.world.broker_down = made.world.clock.now + OUTAGE_LIMIT / 2
        made.run(10)
        assert made.kinds() == {"a": "timed_out", "c": "skipped"}
        made.run(OUTAGE_LIMIT)
        made.finish()
        assert made.kinds() == {"a": "timed_out", "b": "passed", "c": "skipped"}
        assert made.task_id("a") not in made.world.published


def test_a_deadline_that_is_not_over_when_the_broker_is_back_is_no_matter() -> None:
    """What was held up is sent, and has the rest of its time."""
    with rig(Plan((entry("a", deadline=20.0),))) as made:
        made.world.broker_down = made.world.clock.now + 10.0
        made.run(15)
        made.finish()
        assert made.kinds() == {"a": "passed"}


def test_a_refusal_is_the_matter_of_its_entry() -> None:
    """It is judged at once, with the reason; what waits for it is skipped, the others run."""
    with rig(Plan((entry("a"), entry("b"), entry("c", after=["a"])))) as made:
        refuse(made, "a")
        made.finish()
        assert made.kinds() == {"a": "rejected", "b": "passed", "c": "skipped"}
        told = made.ledger.verdicts.of_entry("a")
        assert told is not None
        assert "its queue is locked" in told.verdict.sentence
        assert made.ledger.attempts.send_states().get("withheld") == 2


def test_a_refusal_is_not_what_an_entry_may_expect() -> None:
    """An entry that expects to be rejected expects it of a worker."""
    expecting = Entry.model_validate({"id": "a", "task": "t", "expect": {"state": "rejected"}})
    with rig(Plan((expecting,))) as made:
        refuse(made, "a")
        made.finish()
        assert made.kinds() == {"a": "rejected"}
