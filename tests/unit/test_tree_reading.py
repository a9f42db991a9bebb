"""What reports read of trees: every descendant with what was told of it, or those that matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_manifest.analysis.tree_reading import DescendantRecord, read_trees, tree_of
from pytest_manifest.ledger import Descendant
from pytest_manifest.schema import Entry, Receipt, VerdictStatus
from tests.reports import add_receipts, add_starts, started
from tests.unit.analysis_support import INFO, START, MadeRun, after, attempt, verdict

ROOT = attempt(task_id="t-a-1", started_at=after(0.5), finished_at=after(1.5))


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    run = MadeRun(tmp_path, [Entry(id="a", task="jobs.t"), Entry(id="b", task="jobs.t")])
    run.plan("a", "b")
    return run


def add(
    made: MadeRun,
    name: str,
    parent: str = "t-a-1",
    status: VerdictStatus | None = "passed",
    began: float = 1,
    ran: float | None = 1,
    **fields: object,
) -> None:
    """A descendant of the entry a, told of by a worker as far as ``ran`` is not None."""
    ledger = made.ledger
    ledger.descendants.add(
        [Descendant(name, "t-a-1", parent, f"jobs.{name}", "call", spawned_at=after(began))]
    )
    start = started(name, f"x-{name}", after(began + 0.1), 0, "v@k", "k", 9, redelivered=False)
    if ran is not None or status == "crashed":
        add_starts(ledger, [start])
    if ran is not None:
        document = {
            "run": INFO.run,
            "entry": "a",
            "attempt": 1,
            "task_id": name,
            "task": f"jobs.{name}",
            "state": "succeeded",
            "worker": "v@k",
            "host": "k",
            "pid": 9,
            "started_at": after(began + 0.1),
            "finished_at": after(began + 0.1 + ran),
            "runtime": ran,
        }
        told = Receipt.model_validate(document | fields)
        add_receipts(ledger, [(name, f"x-{name}", told)])
    if status is not None:
        ledger.descendants.end({name: verdict("a", status)})


def test_a_tree_has_all_that_was_told_of_each_descendant(made: MadeRun) -> None:
    """Times, worker and status; of one that failed also what it raised, and its log."""
    error = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}
    add(made, "p")
    add(made, "q", "p", "failed", 1.5, 2, state="failed", error=error, log=["one", "two"])
    add(made, "r", "q", None, 3, None)
    tree = read_trees(made.ledger, [ROOT, attempt(task_id="t-b-1")], 10)["t-a-1"]
    assert [(depth, one.task_id, one.outcome) for depth, one in tree.tasks] == [
        (0, "p", "passed"),
        (1, "q", "failed"),
        (2, "r", "pending"),
    ]
    p, q, r = (one for _, one in tree.tasks)
    assert (p.spawned_at, p.started_at, p.ended_at) == (after(1), after(1.1), after(2.1))
    assert (p.place, p.task, p.how, p.sentence, p.failure) == (
        "v@k#9",
        "jobs.p",
        "call",
        None,
        None,
    )
    assert q.sentence == "a is failed."
    assert q.failure is not None
    assert (q.failure.error, q.failure.traceback) == ("ValueError: no", "Traceback ...")
    assert q.failure.log == ("one", "two")
    assert (r.place, r.started_at, r.ended_at) == (None, None, None)
    assert (tree.total, tree.left_out, tree.counts) == (3, 0, {"passed": 1, "failed": 1, None: 1})
    assert tree.path == ["p", "q"]
    assert tree.ended_at == after(3.6)


def test_attempts_without_descendants_have_no_tree(made: MadeRun) -> None:
    """Most runs have none at all."""
    assert read_trees(made.ledger, [ROOT], 10) == {}


def test_what_died_with_its_worker_has_a_start_and_no_end(made: MadeRun) -> None:
    """When it died is not known, only when that was noticed; nothing forged is believed."""
    add(made, "dead", status="crashed", state="crashed", worker=None, host=None, pid=None)
    add(made, "false", status="forged", ran=1, worker="evil@host")
    tree = read_trees(made.ledger, [ROOT], 10)["t-a-1"]
    dead, false = (one for _, one in tree.tasks)
    assert (dead.started_at, dead.ended_at, dead.runtime) == (after(1.1), None, None)
    assert dead.place == "v@k#9"
    assert (false.place, false.ended_at) == ("v@k#9", None)


def test_of_many_descendants_the_bad_the_slow_and_the_path_are_kept(made: MadeRun) -> None:
    """No more than the limit, with the number of those that are left out."""
    for number in range(40):
        add(made, f"c{number:02}", began=1 + number / 100, ran=0.5 + number / 1000)
    add(made, "bad", status="failed", began=1.2, ran=0.1)
    add(made, "slow", began=1.3, ran=1.5)
    add(made, "short", "c07", began=1.6, ran=0.01)
    add(made, "late", "short", began=4, ran=0.01)
    tree = read_trees(made.ledger, [ROOT], 8)["t-a-1"]
    kept = [one.task_id for _, one in tree.tasks]
    assert set(kept) == {"c07", "short", "late", "bad", "slow", "c39", "c38", "c37"}
    assert tree.path == ["c07", "short", "late"]
    assert (tree.total, tree.left_out) == (44, 36)
    assert tree.counts == {"passed": 43, "failed": 1}


def test_a_root_that_ends_last_is_alone_on_the_path(made: MadeRun) -> None:
    """Whether all or some of its descendants are kept."""
    long = attempt(task_id="t-a-1", started_at=START, finished_at=after(60))
    for number in range(5):
        add(made, f"c{number}", began=number)
    for limit in (3, 10):
        tree = read_trees(made.ledger, [long], limit)["t-a-1"]
        assert (tree.path, tree.ended_at) == ([], after(60))


def test_a_circle_of_parents_ends(made: MadeRun) -> None:
    """No worker tells such a thing; a ledger that holds it can be shown all the same."""
    add(made, "x", "y", began=2)
    add(made, "y", "x", began=1)
    for limit in (1, 5):
        tree = read_trees(made.ledger, [ROOT], limit)["t-a-1"]
        assert len(tree.tasks) == min(limit, 2)


def test_a_tree_can_be_made_of_records_alone() -> None:
    """Samples and tests have no ledger."""
    one = DescendantRecord(
        task_id="d",
        parent="t-a-1",
        task="jobs.d",
        how="call",
        status="passed",
        sentence=None,
        spawned_at=after(1),
        started_at=after(2),
        ended_at=after(3),
        runtime=1.0,
        worker="w@h",
        host="h",
        pid=7,
        retries=0,
    )
    assert tree_of(ROOT, [one]).path == ["d"]
