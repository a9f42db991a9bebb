"""The reader of a run: its figures are those of the ledger, whenever it has begun to read."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pytest_manifest.analysis.causes import Causes
from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.analysis.throttles import actions_in
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.redaction import texts
from pytest_manifest.redaction.texts import manifest_secret
from pytest_manifest.run.merge import merge
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.run_facts import Search
from pytest_manifest.schema.run_status import MOST_BYTES, RunStatus
from tests.reports import add_receipts, add_starts, started
from tests.rings import examples
from tests.unit.following_support import MadeRun, Make
from tests.unit.ledger_support import verdict
from tests.unit.shards_support import Shards


def look(run: MadeRun) -> RunStatus:
    """What a reader that begins now sees."""
    with run.reader() as reader:
        return reader.look()


def figures(found: RunStatus) -> tuple[int, int, int, int]:
    assert found.done + found.running + found.waiting + found.unsent == found.total
    return found.done, found.running, found.waiting, found.unsent


def test_each_entry_is_counted_where_it_is(make: Make) -> None:
    """Not sent, waiting, running, done; a look takes what is new alone."""
    run = make()
    with run.reader() as reader:
        assert figures(reader.look()) == (0, 0, 0, 10)
        run.send("e0", "e1", "e2", "e3")
        assert figures(reader.look()) == (0, 0, 4, 6)
        run.start("e0", "e1")
        assert figures(reader.look()) == (0, 2, 2, 6)
        run.judge("e0")
        run.infer("e2", "lost")
        found = reader.look()
        assert figures(found) == (2, 1, 1, 6)
        assert list(found.counts.items()) == [("passed", 1), ("lost", 1)]
        assert found.sent == 4
        assert found == look(run)


def test_a_corrected_verdict_counts_once(make: Make) -> None:
    """A late receipt knows better; what is wrong no longer is no cause any more."""
    run = make()
    with run.reader() as reader:
        run.send("e0", "e1")
        run.infer("e0", "lost")
        assert [one.kind for one in reader.look().causes] == ["lost"]
        run.judge("e0")
        found = reader.look()
        assert (found.done, found.counts, found.causes) == (1, {"passed": 1}, [])
        assert sum(found.series.done) == 1


def test_a_verdict_that_is_taken_back_counts_no_more(make: Make) -> None:
    run = make()
    run.do("e0", "e1", status="failed")
    with run.reader() as reader:
        assert reader.look().done == 2
        run.ledger.verdicts.reopen(["e1"])
        found = reader.look()
        assert figures(found) == (1, 0, 1, 8)
        assert [one.count for one in found.causes] == [1]
        assert found == look(run)


def test_a_resumed_run_is_measured_from_where_it_was_taken_up(make: Make) -> None:
    """What was done before counts as done, and neither for the rate nor for the time."""
    run = make(entries=100)
    run.do(*(f"e{n}" for n in range(50)))
    run.after(10)
    run.stop("stopped")
    with run.reader() as reader:
        found = reader.look()
        assert (found.state, found.rate, found.elapsed) == ("stopped", None, 10)
        run.after(86_400)
        run.begin()
        run.ledger.info.set_status("running")
        run.after(50)
        run.do(*(f"e{n}" for n in range(50, 60)))
        run.after(10)
        found = reader.look()
    assert (found.state, found.done, found.elapsed) == ("running", 60, 70)
    assert found.rate == pytest.approx(10 / 60)
    assert [one.kind for one in found.series.flags] == ["began"]


def test_what_a_killed_pytest_has_left_ends_with_what_is_known_of_it(make: Make) -> None:
    """And a resume a day later does not count the night."""
    run = make()
    run.do("e0")
    run.after(20)
    run.send("e1")
    run.start("e1")
    run.lock.release()
    run.after(3600)
    found = look(run)
    assert (found.state, found.elapsed) == ("left", 20)
    assert [one.code for one in found.notices] == ["left"]
    assert f"--manifest-run={run.run}" in found.notices[0].remedy
    assert (found.running, found.rate, found.eta) == (1, None, None)
    assert found.verdict == "9 of 10 entries pending, 1 passed"
    run.lock.acquire(run.run)
    run.begin()
    run.after(5)
    assert look(run).elapsed == 25


def test_an_entry_with_several_attempts_is_one(make: Make) -> None:
    """It runs, waits, and is done by its last one."""
    run = make()
    with run.reader() as reader:
        run.send("e0")
        run.start("e0")
        run.die("e0")
        found = reader.look()
        assert figures(found) == (0, 0, 1, 9)
        run.again("e0", 2)
        assert figures(reader.look()) == (0, 0, 1, 9)
        run.send("e0", attempt=2)
        run.start("e0", attempt=2, worker="w2@h")
        assert figures(reader.look()) == (0, 1, 0, 9)
        run.judge("e0", attempt=2)
        found = reader.look()
    assert figures(found) == (1, 0, 0, 9)
    assert found.sent == 1
    assert "passed" in next(one.evidence for one in found.notices if one.code == "worker")


def test_an_entry_whose_descendants_run_is_running(make: Make) -> None:
    run = make()
    run.send("e0")
    run.start("e0")
    root = run.task_id("e0")
    run.ledger.descendants.add([Descendant("child", root, root, "jobs.child", "call")])
    add_receipts(run.ledger, [(root, "x1", run.receipt("e0"))], at=run.now)
    with run.reader() as reader:
        assert figures(reader.look()) == (0, 0, 1, 9)
        add_starts(run.ledger, [started("child", "y", worker="w2@h", pid=2)], at=run.now)
        found = reader.look()
    assert figures(found) == (0, 1, 0, 9)
    assert [(one.id, one.worker) for one in found.longest] == [("e0", "w2@h#2")]


def test_what_waits_for_its_next_try_waits(make: Make) -> None:
    run = make()
    run.send("e0", "e1")
    run.start("e0", "e1")
    due = run.now + timedelta(seconds=30)
    run.hand_on("e0", next_at=due)
    run.hand_on("e1", how="canvas")
    with run.reader() as reader:
        found = reader.look()
        assert (found.running, found.waiting, found.retrying, found.next_try) == (0, 2, 1, due)
        run.start("e0", pid=2)
        found = reader.look()
        assert (found.running, found.retrying, found.next_try) == (1, 0, None)


def test_what_no_broker_took_is_not_sent(make: Make) -> None:
    """What is about to be sent may have been, until the broker has answered."""
    run = make()
    with run.reader() as reader:
        run.send("e0", "e1", state="intent")
        assert figures(reader.look()) == (0, 0, 2, 8)
        run.ledger.attempts.mark([run.task_id("e0")], "planned", note="it is away")
        run.ledger.attempts.mark([run.task_id("e1")], "sent")
        assert figures(reader.look()) == (0, 0, 1, 9)


def test_the_end_is_foreseen_with_a_range_and_with_what_it_was(make: Make) -> None:
    run = make(entries=1000)
    for second in range(400):
        run.after(1)
        if second < 200 or second % 2:
            run.do(f"e{second}")
    found = look(run)
    assert found.rate == pytest.approx(0.5, rel=0.1)
    assert found.eta is not None
    assert found.eta.earliest < found.eta.at < found.eta.latest
    assert found.eta.before is not None
    assert found.eta.before < found.eta.at
    with run.reader() as reader:
        reader.look()
        assert reader.foreseen(reader.now) is not None
        run.fact(Kind.STEERED, command=1, action="pause", by="ann")
        reader.look()
        assert reader.foreseen(reader.now) is None, "the terminal's line has it of the reader"


def test_causes_are_those_of_the_summary(make: Make) -> None:
    """By count, title, example and message, whatever the order of the verdicts was."""
    run = make(entries=30)
    order = [*range(29, 14, -1), *range(15)]
    for n in order:
        run.send(f"e{n}")
        run.start(f"e{n}")
        if n % 3 == 0:
            run.judge(f"e{n}")
        elif n % 3 == 1:
            run.judge(f"e{n}", "failed", error=f"no {n}")
        else:
            run.infer(f"e{n}", "lost")
    found = look(run)
    with Ledger.open(run.path) as ledger:
        wanted = statistics(read_records(ledger, run.manifest), run.ledger.info.read()).causes
    assert [(one.title, one.count, one.kind) for one in found.causes] == [
        (one.title, one.count, one.kind) for one in wanted
    ]
    assert [(one.example, one.message) for one in found.causes] == [
        (one.examples[0], one.message) for one in wanted
    ]
    assert [one.number for one in found.causes] == [2, 1]
    with run.reader() as reader:
        reader.look()
        number = next(one.number for one in found.causes if one.kind == "lost")
        assert reader.entries_of(number) == [f"e{n}" for n in range(2, 30, 3)]


def test_a_cause_is_new_that_the_last_run_did_not_have(make: Make) -> None:
    first = make(number=1)
    first.do("e0", status="failed")
    first.stop()
    second = make(number=2)
    second.do("e0", status="failed")
    second.infer("e1", "lost")
    new = {one.kind: one.is_new for one in look(second).causes}
    assert new == {"failed": False, "lost": True}
    assert [one.is_new for one in look(first).causes] == [None]


def test_secrets_are_hidden(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the manifest, of receipts, and of what operators say."""
    monkeypatch.setattr(texts.hidden_values, "now", texts.Hidden())
    run = make(more={"kwargs": {"password": "hunter2hunter2"}})
    manifest_secret("rosebud-rosebud")
    run.do("e0", status="failed", error="bad login hunter2hunter2, rosebud-rosebud")
    run.fact(Kind.STEERED, action="pause", by="ann", reason="as rosebud-rosebud says", command=1)
    run.fact(Kind.THROTTLED, why="health", detail="rosebud-rosebud is slow")
    text = look(run).model_dump_json()
    assert "hunter2hunter2" not in text
    assert "rosebud" not in text


def test_tasks_and_workers_have_their_figures(make: Make) -> None:
    run = make(tasks=("jobs.one", "jobs.two"))
    run.send("e0", "e1", "e2", "e3", "e4")
    run.start("e0", "e2", "e4")
    run.start("e1", "e3", worker="w2@h", pid=7)
    run.judge("e0", runtime=1.0)
    run.judge("e2", runtime=3.0)
    run.judge("e1", "failed", worker="w2@h", runtime=2.0)
    run.after(30)
    found = look(run)
    assert [
        (one.task, one.waiting, one.running, one.passed, one.failed) for one in found.tasks
    ] == [
        ("jobs.one", 2, 1, 2, 0),
        ("jobs.two", 3, 1, 0, 1),
    ]
    assert [(one.p50, one.p95) for one in found.tasks] == [(2.0, pytest.approx(2.9)), (2.0, 2.0)]
    assert [(one.name, one.running, one.done, one.has) for one in found.workers] == [
        ("w1@h", 1, 2, ["e4"]),
        ("w2@h", 1, 1, ["e3"]),
    ]
    assert [one.rate for one in found.workers] == pytest.approx([2 / 60, 1 / 60])
    assert [(one.id, one.seconds, one.worker) for one in found.longest] == [
        ("e4", 30.0, "w1@h#1"),
        ("e3", 30.0, "w2@h#7"),
    ]


def test_the_cost_is_what_receipts_tell_and_the_rest_is_foreseen(make: Make) -> None:
    run = make(budget=2.0)
    for n in range(6):
        run.do(f"e{n}", result={"cost": 0.5}, result_sha256=None)
    found = look(run)
    assert (found.cost.total, found.cost.budget, found.cost.foreseen) == (3.0, 2.0, 5.0)
    assert "budget" in [one.code for one in found.notices]


def test_what_operators_did_and_what_slowed_it_is_there(make: Make) -> None:
    run = make(max_failed="5%", limits={"tenant": 5})
    with run.reader() as reader:
        run.fact(
            Kind.STEERED, command=1, action="pause", by="ann", reason="db failover", changed=True
        )
        found = reader.look()
        assert found.state == "paused"
        assert found.notices[0].code == "paused"
        assert "ann: db failover" in found.notices[0].text
        run.after(60)
        run.fact(Kind.STEERED, command=9, action="pause", by="bob", changed=False)
        assert reader.look().notices[0] == found.notices[0], "who paused it, when, and why"
        run.fact(Kind.STEERED, command=2, action="set", by="ann", data={"limit.tenant": 9})
        run.fact(Kind.STEERED, command=3, action="resume", by="ann")
        run.fact(Kind.THROTTLED, why="queue", detail="6,000 messages wait", key="tenant=acme")
        found = reader.look()
        assert found.state == "running"
        assert found.limits == {"max-failed": "5%", "kills": 2, "limit.tenant": 9}
        assert [one.action for one in found.actions] == ["resume", "set", "pause", "pause"]
        assert [one.kind for one in found.series.flags] == ["paused", "limit", "resumed"]
        assert [(one.why, one.key, one.ended) for one in found.throttling] == [
            ("queue", "tenant=acme", None)
        ]
        run.after(5)
        run.fact(Kind.THROTTLED, why="queue", key="tenant=acme", is_over=True)
        assert [one.ended for one in reader.look().throttling] == [run.now]
        run.fact(Kind.STEERED, command=4, action="drain", by="ann")
        assert reader.look().state == "draining"


def test_a_worker_that_is_silent_or_lost_a_process_is_a_thing_to_know(make: Make) -> None:
    run = make()
    run.send("e0", "e1")
    run.start("e0")
    run.start("e1", worker="w2@h")
    run.die("e0")
    search = Search(seq=0, at=run.now, as_of=1, silent=("w2@h",))
    run.ledger.facts.append([(None, search)])
    found = look(run)
    assert [one.is_gone for one in found.workers] == [True, True]
    assert [one.code for one in found.notices] == ["worker", "worker"]
    assert "w2@h has been silent" in found.notices[0].text
    assert "while it ran e0" in found.notices[1].text
    assert "exit code -9" in found.notices[1].evidence
    assert [one.kind for one in found.series.flags] == ["worker"]
    with run.reader() as reader:
        reader.look()
        run.judge("e1", worker="w2@h")
        assert [one.is_gone for one in reader.look().workers] == [True, False]


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize("is_watched", [False, True])
def test_what_is_sent_again_is_not_with_the_process_that_it_lost(
    make: Make, *, is_watched: bool, is_sent: bool
) -> None:
    """Nor what an operator asked for again; its worker has its other job, and is not gone."""
    run = make()
    run.send("e0", "e1")
    run.start("e0", "e1")
    run.die("e0")
    with run.reader() as reader:
        if is_watched:
            assert [(one.has, one.is_gone) for one in reader.look().workers] == [
                (["e0", "e1"], True)
            ]
        if is_sent:
            run.again("e0", 2)
            run.send("e0", attempt=2)
        else:
            run.ledger.verdicts.record([(verdict("e0", "crashed"), None)])
            run.ledger.verdicts.reopen(["e0"], why="requeue")
        (worker,) = reader.look().workers
        assert (worker.has, worker.running, worker.is_gone) == (["e1"], 1, False)


def test_a_cause_names_one_of_those_that_it_has(make: Make) -> None:
    """Not the first, where that was sent again before others went wrong in the same way."""
    run = make()
    run.do("e0", status="failed")
    with run.reader() as reader:
        assert [one.example for one in reader.look().causes] == ["e0"]
        run.ledger.verdicts.reopen(["e0"], why="requeue")
        assert reader.look().causes == []
        run.do("e2", "e1", status="failed")
        assert [(one.example, one.count) for one in reader.look().causes] == [("e1", 2)]


def test_a_crash_that_a_receipt_reports_is_a_death(make: Make) -> None:
    """Known by the receipt alone, or by its process as well: one death."""
    run = make()
    run.send("e0", "e1")
    run.start("e0", "e1")
    run.judge("e0", "crashed", state="crashed")
    assert len(look(run).notices) == 1
    run.die("e0")
    found = look(run)
    assert [one.kind for one in found.series.flags] == ["worker"]
    (notice,) = found.notices
    assert notice.text.startswith("A process of w1@h ended at 15:00 UTC while it ran e0")
    assert notice.evidence.endswith("The entry crashed")


def test_silence_is_a_thing_to_know(make: Make) -> None:
    run = make()
    run.send("e0")
    run.after(130)
    notice = look(run).notices[0]
    assert (notice.code, notice.text) == ("quiet", "Nothing was heard for 2 min 10 s")
    assert notice.remedy.endswith(f"manifest doctor {run.run}")


def test_a_rate_that_fell_is_a_thing_to_know(make: Make) -> None:
    """Since when, and which worker has not been heard since."""
    run = make(entries=1500)
    for second in range(600):
        run.after(1)
        n = 2 * second
        run.do(f"e{n}")
        if second < 400:
            run.start(f"e{n + 1}", worker="w2@h")
            run.judge(f"e{n + 1}", worker="w2@h")
    (notice,) = (one for one in look(run).notices if one.code == "slow")
    assert notice.text.startswith("Rate fell from 2 to 1 a second at 15:07")
    assert "w2@h has not been heard since" in notice.evidence


def test_a_cause_that_rises_is_a_thing_to_know_with_when_a_limit_strikes(make: Make) -> None:
    run = make(entries=100, max_failed="20%")
    run.do(*(f"e{n}" for n in range(10)), status="failed")
    notices = {one.code: one for one in look(run).notices}
    assert "10 entries, 10 in the last minute" in notices["cause"].text
    assert notices["cause"].remedy == "--manifest-max-failed=20% stops the run in about 1 min 00 s"
    assert "no_pass" in notices
    run.fact(Kind.STEERED, command=1, action="pause", by="ann")
    assert not [one for one in look(run).notices if "stops the run" in one.remedy]


@pytest.mark.parametrize("how", ["finished", "stopped", "detached"])
def test_a_run_that_is_over_says_what_it_came_to(make: Make, how: str) -> None:
    run = make(entries=2)
    run.do("e0")
    run.do("e1", status="failed")
    run.stop(how)
    run.lock.release()
    found = look(run)
    assert (found.state, found.is_over) == (how, True)
    assert found.verdict == "1 of 2 entries failed, 1 passed"
    assert (found.eta, found.rate) == (None, None)


def test_the_ledger_may_be_replaced_compacted_or_gone(make: Make, tmp_path: Path) -> None:
    run = make()
    run.do("e0", "e1")
    other = tmp_path / "other.sqlite"
    run.ledger.copy_to(other)
    run.do("e2")
    with run.reader() as reader:
        assert reader.look().done == 3
        run.ledger.compact()
        assert reader.look().done == 3
        run.do("e3")
        assert reader.look().done == 4
        run.ledger.close()
        for path in run.path.parent.glob(f"{run.path.name}*"):
            path.unlink()
        with pytest.raises(LedgerError, match="not a ledger that can be read"):
            reader.look()
        shutil.copy(other, run.path)
        assert reader.look().done == 2
    run.ledger = Ledger.open(run.path)


def test_a_reader_does_not_write(make: Make) -> None:
    """Its connection is read-only, and the lock stays free for a pytest that takes the run up."""
    run = make()
    run.lock.release()
    with run.reader() as reader:
        reader.look()
        run.lock.acquire(run.run)
        with pytest.raises(LedgerError, match="readonly"):
            reader._opened().info.set_status("finished")


def test_without_the_manifest_what_it_says_is_not_known(make: Make, tmp_path: Path) -> None:
    run = make()
    run.do("e0", status="failed")
    for path in (tmp_path / "m.jsonl", *run.path.parent.glob("*.manifest.jsonl")):
        path.unlink()
    found = look(run)
    assert (found.tasks, found.done, len(found.causes)) == ([], 1, 1)


def test_a_brief_reader_has_the_same_counts(make: Make) -> None:
    """The terminal needs no causes, tasks and costs, and reads no receipt for them."""
    run = make()
    run.do("e0", "e1")
    run.do("e2", status="failed")
    run.send("e3")
    run.start("e3")
    with run.reader(detail=False) as reader:
        brief = reader.look()
    found = look(run)
    assert (brief.causes, brief.tasks) == ([], [])
    assert figures(brief) == figures(found)
    assert (brief.counts, brief.rate) == (found.counts, found.rate)


def test_the_document_is_small_whatever_the_run_is(make: Make) -> None:
    """Long names, many tasks, workers and causes, and a run of a day."""
    many = 400
    run = make(entries=many, tasks=[f"{'t' * 190}{n:03}" for n in range(50)])
    for n in range(many - 20):
        run.after(300)
        worker = f"{'wörker' * 30}{n % 40}@h"
        run.send(f"e{n}")
        run.start(f"e{n}", worker=worker)
        run.judge(f"e{n}", "failed", error="x" * 3000, worker=worker)
    for n in range(30):
        run.fact(
            Kind.STEERED, command=n, action="set", by="ann", reason="r" * 400, data={"window": n}
        )
    found = look(run)
    assert len(found.model_dump_json().encode()) <= MOST_BYTES
    assert len(found.series.done) <= 600
    assert sum(found.series.done) == many - 20
    assert found.more_workers > 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "start", "judge", "fail", "lose", "reopen", "die", "look", "wait"]
        ),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=examples(60))
@given(steps=STEPS)
def test_a_look_by_steps_is_a_look_at_all(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever the order of what is written and read, and its counts are `manifest show`'s."""
    with pytest.MonkeyPatch.context() as patch:
        run = MadeRun(tmp_path_factory.mktemp("run"), patch, entries=6)
        with run.reader() as reader:
            for step, n in steps:
                entry = f"e{n}"
                match step:
                    case "send":
                        run.send(entry)
                    case "start":
                        run.start(entry)
                    case "judge":
                        run.judge(entry)
                    case "fail":
                        run.judge(entry, "failed", error=f"no {n % 2}")
                    case "lose":
                        run.infer(entry, "lost")
                    case "reopen":
                        run.ledger.verdicts.reopen([entry])
                    case "die":
                        run.die(entry)
                    case "wait":
                        run.after(n * 7)
                    case _:
                        reader.look()
            found, whole = reader.look(), look(run)
        figures(found)
        assert found.counts == run.ledger.verdicts.counts()
        causes, named = Causes(), Counter[str]()
        for name, settled in run.ledger.queries.not_passed(f"e{n}" for n in range(6)):
            if settled is not None:
                causes.add(name, settled.verdict, settled.receipt)
                named[settled.verdict.verdict] += 1
        wanted = Counter({(one.title, one.count): 1 for one in causes.largest_first()})
        assert Counter((one.title, one.count) for one in found.causes) == wanted
        same: dict[str, object] = {"causes": [], "notices": [], "series": None, "workers": []}
        assert found.model_copy(update=same) == whole.model_copy(update=same)
        assert Counter((one.title, one.count) for one in whole.causes) == wanted
        run.close()


def test_a_merged_run_is_read_as_one(tmp_path: Path) -> None:
    """Each shard's facts and verdicts count."""
    shards = Shards(tmp_path, total=3)
    for _ in range(3):
        shards.add()
    merged = merge(shards.paths)
    with RunReader(merged.ledger) as reader:
        found = reader.look()
    with Ledger.open(merged.ledger) as ledger:
        assert found.counts == ledger.verdicts.counts()
    assert (found.total, found.done) == (3, 3)
    assert [(one.task, one.passed) for one in found.tasks] == [("t", 3)]


def test_what_a_cancel_came_too_late_for_is_counted(make: Make) -> None:
    """By their ends; what was asked for again since is not told of."""
    run = make()
    run.do("e0", "e1")
    run.do("e2", status="failed")
    run.infer("e3", "cancelled")
    given: JsonValue = {"entries": ["e0", "e1", "e2", "e3", "e4"]}
    run.fact(Kind.STEERED, command=1, action="cancel", by="ann", data=given)
    run.fact(Kind.STEERED, command=2, action="requeue", by="ann", data={"entries": ["e1"]})
    run.fact(Kind.STEERED, command=3, action="cancel", by="ann", data={"entries": ["e3"]})
    limits: JsonValue = {"deadline": 7200.0, "window": 5}
    run.fact(Kind.STEERED, command=4, action="set", by="ann", data=limits)
    with Ledger.open(run.path) as ledger:
        found = [one.detail for one in actions_in(ledger, run.run)]
    assert found[:3] == ["5 entries, of which 2 ended otherwise", "1 entry", "1 entry"]
    assert found[3] == "deadline = 2 h 00 min, window = 5"
