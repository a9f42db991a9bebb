"""A job whose process died, and that the broker has delivered again: it waits, and does not run."""

from __future__ import annotations

from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.run.missing import SEARCHING
from tests.unit.run_rig import Plan, Rig, begun, first, rig
from tests.unit.run_world import NOTICED
from tests.unit.test_run_engine import entry

TIMEOUT = 30.0 + TIMEOUT_GRACE


def given_back(made: Rig) -> None:
    """A worker begins a job, and its process dies; its message is in the queue again."""
    made.step()
    made.world.kill_child(first(made), begun(made))
    made.run(NOTICED + 1)
    assert [message.task_id for message in made.world.queue] == [made.task_id("a")]


def test_its_timeout_does_not_count_while_it_waits() -> None:
    """However long others keep the workers: that it ran longer than allowed would be no truth."""
    with rig(Plan((entry(late=True),))) as made:
        given_back(made)
        made.run(3 * TIMEOUT)
        assert made.kinds() == {}
        made.finish()
        made.check()
        assert made.kinds() == {"a": "duplicated"}
        assert not made.engine.corrections


def test_once_it_runs_again_its_timeout_counts_from_then() -> None:
    with rig(Plan((entry(late=True),))) as made:
        given_back(made)
        made.run(2 * TIMEOUT)
        begun(made)
        made.run(TIMEOUT - 1)
        assert made.kinds() == {}
        made.run(2)
        assert made.kinds() == {"a": "timed_out"}


def test_its_deadline_counts_on() -> None:
    """A deadline is of the entry, whatever becomes of its job."""
    with rig(Plan((entry(late=True, deadline=TIMEOUT + 30),))) as made:
        given_back(made)
        made.run(TIMEOUT + 20)
        assert made.kinds() == {}
        made.run(20)
        assert made.kinds() == {"a": "timed_out"}


def test_where_the_broker_cannot_be_asked_its_process_has_crashed() -> None:
    """Nothing shows that it waits, but it does not run; it is searched for as long as may help."""
    with rig(Plan((entry(late=True),))) as made:
        given_back(made)
        made.world.broker_down = made.world.clock.now + 3 * TIMEOUT
        made.run(TIMEOUT)
        assert made.kinds() == {}
        made.run(SEARCHING)
        assert made.kinds() == {"a": "crashed"}
