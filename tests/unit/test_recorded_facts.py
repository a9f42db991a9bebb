"""What a session sees and does is in the ledger afterwards, in its order, once each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, cast
from unittest import mock

import pytest
from pydantic import JsonValue

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.facts import document_of
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.run.connections import NodeFinding, add_nodes, record_unknown_workers
from pytest_manifest.run.fact_log import FactLog, note_emptied, record_own_limits
from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.run.schedule import REPEATS
from pytest_manifest.schema.facts import FactSource, Kind, Sending
from pytest_manifest.schema.run_facts import JobFact, JobFacts, RunFact, Segment
from tests.reports import add_starts, facts_after
from tests.unit.ledger_support import INFO, MOMENT, receipt, start
from tests.unit.record_support import SENT_AT
from tests.unit.resume_rig import ResumeRig, resume_rig
from tests.unit.reuse_rig import CODE, double
from tests.unit.reuse_rig import Rig as ReuseRig
from tests.unit.run_family import Family, announced, chord, with_announced
from tests.unit.run_family import entry as family_entry
from tests.unit.run_rig import Plan, Rig, begun, first, rig
from tests.unit.test_run_engine import NOTHING_ARRIVES, ended, entry

Said = tuple[object, ...]
FIND_WORKERS = f"{record_unknown_workers.__module__}.find_workers"
SENT: list[Said] = [("sending", 1), ("send result", 1, "published")]


def said(fact: JobFact | RunFact) -> Said:
    """A fact in short: its kind, and what of it a test is about."""
    document = document_of(fact)
    kept = ("number", "outcome", "place", "how", "of", "why", "stage", "code", "what", "key")
    name = fact.kind.name.lower().replace("_", " ")
    values = [document[one] for one in kept if one in document]
    if isinstance(found := document.get("receipt"), dict):
        values.append(found["state"])
    return name, *values


def own(ledger: Ledger, name: str = "a", number: int = -1) -> JobFacts:
    return ledger.jobs.of_entry(name)[number].own


def of(made: Rig, name: str = "a", number: int = -1) -> list[Said]:
    """What is recorded of an entry's job, in order."""
    return [said(fact) for fact in own(made.ledger, name, number).facts]


def of_run(made: Rig | ResumeRig) -> list[Said]:
    """What is recorded of the run, after what each run of a rig begins with."""
    ledger = made.ledger if isinstance(made, Rig) else made.reading
    facts = ledger.jobs.run_facts().facts
    return [said(fact) for fact in (facts[2:] if isinstance(made, Rig) else facts)]


def of_child(made: Rig, name: str) -> list[Said]:
    (attempt,) = made.ledger.jobs.of_entry("a")
    (found,) = (one for one in attempt.descendants if one.job.task_id == name)
    return [said(fact) for fact in found.facts]


# Sending


def test_what_passes_has_two_facts() -> None:
    """Its start and its end: a third row would be felt."""
    with rig(Plan((entry(),))) as made:
        made.finish()
        assert of(made) == [*SENT, ("started",), ("ended", "succeeded")]
        found = [one.fact.kind for one in facts_after(made.ledger, 0) if one.entry]
        assert found == [Kind.STARTED, Kind.ENDED]


def test_each_sending_that_may_have_gone_astray_is_kept_with_its_result() -> None:
    """Published again, it has another time, and a receipt may be of either."""
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.append(NOTHING_ARRIVES)
        made.step()
        made.finish()
        assert of(made)[:5] == [
            *[("sending", 1), ("send result", 1, "uncertain")],
            ("nowhere",),
            *[("sending", 2), ("send result", 2, "published")],
        ]
        times = [one.sent_at for one in own(made.ledger).facts if isinstance(one, Sending)]
        assert len(set(times)) == 2


def test_the_tries_of_an_outage_are_one_sending() -> None:
    """Until the broker takes something; and the numbers go on in another session."""
    with rig(Plan((entry(deadline=90.0), entry("b", deadline=20.0)))) as made:
        made.world.broker_down = made.world.clock.now + 40
        made.run(30)
        assert of(made) == [("sending", 1), ("send result", 1, "unsent")]
        assert of(made, "b")[2:] == [("time over", "deadline")]
        made.finish()
        assert of(made)[2:4] == [("sending", 2), ("send result", 2, "published")]


def test_what_is_published_in_vain_has_each_of_its_sendings() -> None:
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.extend([NOTHING_ARRIVES] * (REPEATS + 2))
        made.run(300)
        numbers = [one[1] for one in of(made) if one[0] == "sending"]
        assert numbers == list(range(1, REPEATS + 2))
        assert of(made)[-1] == ("nowhere",)


@pytest.mark.parametrize("how", ["succeeded", "failed"])
def test_another_attempt_says_why_it_was_made(how: Literal["succeeded", "failed"]) -> None:
    with rig(Plan((entry(retries=1),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.kill(first(made), restart=0.2)
        made.run(10)
        assert [one.own.job.why for one in made.ledger.jobs.of_entry("a")] == ["first", "retry"]
        before = own(made.ledger, number=0)
        assert [said(one) for one in before.facts[-2:]] == [("gone",), ("nowhere",)]
        assert before.facts[-1].seq < own(made.ledger).job.seq
        made.world.end(first(made), begun(made), how)
        made.finish()


def test_why_an_entry_is_not_sent_is_kept_as_a_code() -> None:
    with rig(Plan((entry("a"), entry("b", after=("a",)), entry("c", after=("b",))))) as made:
        made.step()
        made.world.end(first(made), begun(made), "failed")
        made.finish()
        assert of(made, "c") == [("withheld", "after")]
        (fact,) = own(made.ledger, "c").facts
        assert document_of(fact) == {
            "code": "after",
            "names": ["b", "a"],
            "fields": {"end": "failed", "left_out": 0},
        }


@pytest.mark.parametrize(
    ("plan", "code", "fields"),
    [
        (Plan((entry("a"), entry("b"), entry("c")), canary=1), "canary", {"more": 0}),
        (
            Plan((entry("a"), entry("b"), entry("c")), window=1, max_failed=0),
            "max_failed",
            {"failed": 1, "entries": 3, "limit": "0"},
        ),
    ],
)
def test_what_closes_a_run_is_kept_with_its_figures(plan: Plan, code: str, fields: object) -> None:
    with rig(plan) as made:
        made.step()
        made.world.end(first(made), begun(made), "failed")
        made.finish()
        for name in "bc":
            assert of(made, name) == [("withheld", code)]
            (fact,) = own(made.ledger, name).facts
            assert document_of(fact).get("fields") == fields


# Searches


def test_what_is_nowhere_is_kept_with_what_its_search_had_seen() -> None:
    """One row for the search, whoever else is missing, and one for each that is."""
    with rig(Plan((entry("a"), entry("b"), entry("c")))) as made:
        made.step()
        for _ in "ab":
            made.world.take(first(made), vanishes=True)
        made.run(15)
        assert [of(made, name)[2:] for name in "abc"] == [[("nowhere",)], [("nowhere",)], []]
        found = [one for one in made.ledger.jobs.run_facts().facts if one.kind is Kind.SEARCH]
        documents = [document_of(one) for one in found]
        assert [one["answered"] for one in documents] == [["w1@box", "w2@box"]]
        assert [one["counts"]["missing"] for one in documents] == [2]  # type: ignore[index, call-overload]  # as it is written
        (nowhere,) = own(made.ledger).facts[2:]
        assert document_of(nowhere) == {"as_of": documents[0]["as_of"]}
        assert documents[0]["as_of"] == own(made.ledger).facts[0].seq


def test_a_search_that_misses_nothing_leaves_no_row() -> None:
    """However often it looks for what waits."""
    with rig(Plan((entry(),))) as made:
        made.run(120)
        assert (of(made), of_run(made)) == (SENT, [])


def test_what_is_done_with_a_dead_workers_message_is_kept() -> None:
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        begun(made)
        made.world.take(first(made))
        made.step()
        made.world.kill(first(made), restart=0.2)
        made.run(12)
        assert of(made, "b")[2:] == [("moved", "put_back")]
        assert of(made)[2:] == [("started",), ("gone",), ("nowhere",)]


def test_a_begun_message_is_taken_out_after_its_process_is_gone() -> None:
    with rig(Plan((entry(late=True),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.kill(first(made), restart=0.2)
        made.run(10)
        assert of(made)[2:] == [("started",), ("gone",), ("moved", "taken_out")]
        gone = own(made.ledger).facts[3]
        assert gone.source is FactSource.SUPERVISOR
        assert document_of(gone)["exit_code"] == -9


def test_a_process_that_is_gone_is_kept_once() -> None:
    """As it is seen from here, where no supervisor says it."""
    with rig(Plan((entry(),), owned=False)) as made:
        made.step()
        delivery = begun(made)
        made.step()
        made.world.kill_child(first(made), delivery)
        made.world.losses.clear()
        first(made).running.clear()
        made.run(60)
        gone = [one for one in own(made.ledger).facts if one.kind is Kind.GONE]
        assert [one.source for one in gone] == [FactSource.SEARCH]
        assert document_of(gone[0])["execution"] == "x2"
        assert made.kind("a") == "crashed"  # so its death comes before what is found of the job
        assert [one[0] for one in of(made)[3:]] == ["gone", "nowhere"]


# Ends that do not count


def test_an_end_that_the_store_alone_has_is_kept_once() -> None:
    """However often it is read, and though its job's own end comes later."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        made.world.results[made.task_id("a")] = BackendResult("succeeded")
        made.run(20)
        assert of(made)[2:] == [("started",), ("stored", "succeeded")]
        made.world.end(first(made), delivery, "failed")
        made.step(2)
        assert of(made)[4:] == [("ended", "failed")]


def test_an_end_that_counts_since_a_search_is_no_second_one() -> None:
    """It is among the receipts then, and was stored before the search."""
    with rig(Plan((entry("a"),), max_failed=0)) as made:
        made.step()
        made.publisher.revoke([made.task_id("a")])
        made.step(3)
        made.world.queue.clear()
        made.run(30)
        assert of(made)[2:] == [("stored", "revoked"), ("nowhere",)]
        assert len(made.ledger.events.receipts(made.task_id("a"))) == 1


def test_what_cannot_be_read_is_kept_before_the_verdict() -> None:
    with rig(Plan((entry(),))) as made:
        made.step()
        made.collector.flaws.add_result(made.task_id("a"), "no JSON")
        made.world.take(first(made), vanishes=True)
        made.run(15)
        assert made.kinds() == {"a": "unknown"}
        stored, nowhere = own(made.ledger).facts[2:]
        assert (document_of(stored), said(nowhere)) == ({"unreadable": "no JSON"}, ("nowhere",))


def test_an_end_that_nobody_has_signed_is_kept_with_its_fault(tmp_path: Path) -> None:
    """Once, though it is read again."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0)])
        log = FactLog(ledger)
        for execution in ("x", "x", "y"):
            log.reported("t-a", execution, receipt("a"), "it is not signed")
        log.reported("of another run", None, receipt("b"))
        log.write()
        faults = [document_of(one)["fault"] for one in own(ledger).facts]
        assert faults == ["it is not signed"] * 2


def test_two_records_of_one_start_are_both_kept(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0)])
        add_starts(ledger, [start("t-a", "x")])
        log = FactLog(ledger)
        log.clashing(start("t-a", "x"))
        log.clashing(start("t-a", "x"))
        log.write()
        assert [said(one) for one in own(ledger).facts] == [("started",)] * 2


# Trees


@pytest.fixture
def family() -> Iterator[Family]:
    with rig(Plan((family_entry(),))) as made:
        yield Family(made)


def test_what_a_tree_is_told_of_is_kept(family: Family) -> None:
    """What could not be sent, or went elsewhere, and that nothing more comes of a handler."""
    family.made.step()
    job = family.begin()
    family.spawn("c1", "c2")
    key = [{"key": "x/after", "how": "after", "task": "t", "count": 1}]
    unsent = {"unsent": ["c1"], "elsewhere": {"c2": "redis://other"}, "announced": key}
    family.end(job, facts=unsent)  # type: ignore[arg-type]  # JSON
    family.spawn(closes="x/after")
    family.made.step(3)
    assert of(family.made)[2:] == [
        ("started",),
        ("ended", "succeeded"),
        ("announced", 1, "after", "x/after"),
        ("closed", "x/after"),
    ]
    assert of_child(family.made, "c1") == [("child unsent",)]
    assert of_child(family.made, "c2") == [("child elsewhere",)]


def test_a_descendant_has_its_own_facts(family: Family) -> None:
    """And its place in the tree, which is known by the record of its starting."""
    job = family.started_children("c1")
    family.end(job)
    family.run("succeeded")
    family.made.step(2)
    (attempt,) = family.made.ledger.jobs.of_entry("a")
    (child,) = attempt.descendants
    spawn = child.job.spawn
    assert spawn is not None
    assert (spawn.root, spawn.parent, spawn.by_record) == (family.root, family.root, True)
    assert [said(one) for one in child.facts] == [("started",), ("ended", "succeeded")]
    assert attempt.own.job.seq < child.job.seq < child.facts[0].seq


def test_what_stands_for_an_announced_message_has_its_key(family: Family) -> None:
    """It is looked for under an id of our own."""
    told = with_announced(family, announced("k"))
    for member in chord(family):
        family.end(member, facts=told)
    family.made.run(60)
    (attempt,) = family.made.ledger.jobs.of_entry("a")
    keys = {each.job.spawn.announcement for each in attempt.descendants if each.job.spawn}
    assert keys == {"", "k"}
    (body,) = (
        each for each in attempt.descendants if each.job.spawn and each.job.spawn.announcement
    )
    assert [said(fact) for fact in body.facts] == [("nowhere",)]


# Time, and what is taken back


def test_a_timeout_is_kept_as_it_is_over() -> None:
    """With the execution and the limit; what comes later is later."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.run(30 + TIMEOUT_GRACE + 1)
        made.world.end(first(made), delivery, "failed")
        made.look()
        assert of(made)[3:] == [("time over", "timeout"), ("ended", "failed")]
        over = own(made.ledger).facts[3]
        assert document_of(over) == {"of": "timeout", "limit": 30.0, "execution": "x2"}


def test_a_deadline_takes_back_what_waits() -> None:
    with rig(Plan((entry(deadline=20.0),))) as made:
        made.run(25)
        assert of(made)[2:] == [
            ("recalled", "deadline", "asked"),
            ("stored", "revoked"),  # read before it is known that it had not begun
            ("recalled", "deadline", "withdrawn"),
            ("time over", "deadline"),
        ]


def test_a_silent_worker_that_has_it_is_named_when_its_time_is_over() -> None:
    with rig(Plan((entry(deadline=40.0),), owned=False)) as made:
        made.step()
        made.world.take(first(made))
        made.run(12)
        first(made).paused = True
        made.run(35)
        seen = next(one for one in own(made.ledger).facts if one.kind is Kind.SEEN)
        document = document_of(seen)
        assert (document["place"], document["holder"]) == ("unacked", "w1@box")
        assert of(made)[-1] == ("time over", "deadline")


@pytest.mark.parametrize(
    ("plan", "why"), [(Plan((entry(),)), "stop"), (Plan((entry(),), deadline=5.0), "time")]
)
def test_what_a_run_takes_back_at_its_end_is_kept_by_stages(plan: Plan, why: str) -> None:
    with rig(plan) as made:
        made.step()
        if why == "stop":
            made.stop(by_a_person=False)
            made.engine.wind_down()
        else:
            made.run(30)
        stages = ("asked", "heard", "withdrawn")
        found = [one for one in of(made) if one[0] == "recalled"]
        assert found == [("recalled", why, stage) for stage in stages]


def test_what_kills_its_processes_is_taken_back_once() -> None:
    """Though the workers are reminded of it every few seconds."""
    with rig(Plan((entry(late=True, poison="child"), entry("b")), kills=2)) as made:
        made.finish()
        made.run(60)
        assert of(made).count(("recalled", "poison", "asked")) == 1


def test_who_revokes_nothing_records_no_revocation() -> None:
    """As an audit, which has nothing to publish with."""
    with rig(Plan((entry(late=True, poison="child"), entry("b")), kills=2)) as made:
        made.step()
        with mock.patch.object(made.engine._context, "publisher", None):
            made.finish()
        assert "quarantined" in made.kinds().values()
        assert ("recalled", "poison", "asked") not in of(made)


def test_what_waits_is_taken_back_when_too_much_has_failed() -> None:
    plan = Plan((entry("a"), entry("b")), max_failed=0, revoke_on_max_failed=True)
    with rig(plan) as made:
        made.step()
        made.world.end(first(made), begun(made), "failed")
        made.step(4)
        assert ("recalled", "max_failed", "asked") in of(made, "b")


def test_that_a_run_is_over_is_one_row() -> None:
    """After what was seen of its jobs at that moment, and before their verdicts."""
    with rig(Plan((entry("a"), entry("b")), owned=False, deadline=5.0)) as made:
        made.step()
        made.world.store_down = made.world.clock.now + 600
        begun(made)
        made.run(10)
        (over,) = (one for one in made.ledger.jobs.run_facts().facts if one.kind is Kind.RUN_OVER)
        document = document_of(over)
        assert (document["why"], document["limit"]) == ("deadline", 5.0)
        assert "the result store cannot be reached" in str(document["error"])
        assert {seq > over.seq for seq, *_ in made.ledger.verdicts.since(0)} == {True}


def test_a_run_that_nobody_serves_is_over_for_that() -> None:
    with rig(Plan((entry(),), owned=False, deadline=20.0)) as made:
        for worker in made.world.workers.values():
            made.world.kill(worker, restart=None)
        made.run(30)
        assert made.kinds() == {"a": "pending"}
        assert of_run(made)[-1] == ("run over", "unanswered")


# The run


def test_a_store_that_was_emptied_is_kept_before_what_is_nowhere() -> None:
    with rig(Plan((entry(),))) as made:
        made.step()
        ended(made)
        made.world.flush(everything=False)
        made.finish()
        facts: list[JobFact | RunFact] = [
            *own(made.ledger).facts,
            *made.ledger.jobs.run_facts().facts,
        ]
        kinds = [said(one) for one in sorted(facts, key=lambda one: one.seq)]
        assert kinds[4:] == [("store", "emptied"), ("search",), ("nowhere",)]


def test_the_store_is_asked_when_an_end_has_no_start() -> None:
    """What it had then is kept between the end and the verdict that goes by it."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.world.stream.clear()
        made.world.end(first(made), delivery, "succeeded")
        made.step(2)
        assert made.kinds() == {"a": "forged"}
        _, _, look = made.ledger.jobs.run_facts().facts
        (end,) = own(made.ledger).facts[2:]
        ((verdict, *_),) = made.ledger.verdicts.since(0)
        assert said(look) == ("store", "intact")
        assert end.seq < look.seq < verdict


@pytest.mark.parametrize("what", ["reports", "stock", "unserved", "nobody", "silent"])
def test_what_is_known_of_workers_is_kept_by_name(tmp_path: Path, what: str) -> None:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        finding = cast("NodeFinding", what)
        add_nodes(ledger, ["w2", "w1"], finding)
        add_nodes(ledger, [], finding)
        found = [document_of(one) for one in ledger.jobs.run_facts().facts]
        assert found == [{"name": "w1", "what": what}, {"name": "w2", "what": what}]


def test_a_limit_of_a_task_is_kept_as_it_changes(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        for limits in ({"t": 5.0, "u": 1.0}, {"t": 5.0}, {"t": 6.0}):
            record_own_limits(ledger, limits)
        found = [document_of(one) for one in ledger.jobs.run_facts().facts]
        assert [(one["task"], one["limit"]) for one in found] == [
            *[("t", 5.0), ("u", 1.0)],
            ("t", 6.0),
        ]


# What goes over to another ledger


def test_a_reused_job_has_its_facts_and_what_excused_it(tmp_path: Path) -> None:
    """Those of its run are of this job alone here."""
    reusing = ReuseRig(tmp_path)
    record = reusing.begun([double("a")])
    record.attempt("a", code=CODE)
    job = record.task_id("a")
    twice = Sending(seq=0, at=MOMENT, job=job, number=2, sent_at=SENT_AT)
    record.ledger.facts.append([("a", twice)])
    note_emptied(record.ledger)
    reusing.finish(record)
    made = reusing.reuse([double("a")])
    assert made.sent == []
    with Ledger.open(made.path) as ledger:
        found = own(ledger)
        assert (found.job.why, found.job.number) == ("reuse", 0)
        assert found.job.reused is not None
        assert found.job.reused.run == INFO.run
        assert [said(one) for one in found.facts] == [
            *[("started",), ("ended", "succeeded"), ("sending", 2)]
        ]
        assert [said(one) for one in found.extra] == [("store", "emptied")]


# A session that goes on


def test_a_resumed_run_begins_a_segment_with_its_settings(tmp_path: Path) -> None:
    """And what is nowhere by its search is found so, as of that."""
    with resume_rig(tmp_path) as made:
        made.queue("b")
        made.resume(kills=7, max_failed=None, budget=None)
        facts = made.reading.jobs.run_facts().facts
        segment = next(one for one in facts if isinstance(one, Segment))
        assert (segment.kills, segment.lifetime) == (7, 3600)
        assert [said(one) for one in own(made.reading, "a", 0).facts] == [*SENT, ("nowhere",)]
        assert own(made.reading, "a").job.why == "resume"
        assert [said(one) for one in own(made.reading, "b").facts] == SENT
        assert [one[0] for one in of_run(made)] == ["segment", "store", "search"]


def test_a_verdict_that_is_taken_back_is_kept_as_that(tmp_path: Path) -> None:
    with resume_rig(tmp_path) as made:
        made.judge("a", "pending")
        made.queue("a", "b", "c")
        made.resume()
        assert [said(one) for one in own(made.reading, "a").facts] == [
            *SENT,
            ("taken up", "resume"),
        ]
        assert [said(one) for one in own(made.reading, "b").facts] == SENT


def test_what_may_not_be_sent_there_is_told_apart(tmp_path: Path) -> None:
    """The broker that a run was sent to, once it is searched for on another."""
    with resume_rig(tmp_path, is_private=False) as made:
        with made.ledger() as ledger:
            ledger.info.set_meta("broker", "redis://elsewhere:1/0")
        made.queue("a", "b", "c")
        made.resume()
        assert ("place", "other_broker") in of_run(made)


def test_a_fact_of_a_session_that_was_refused_is_not_there(tmp_path: Path) -> None:
    """All that it had prepared is one transaction."""
    with resume_rig(tmp_path) as made:
        refused = made.make()
        refused.prepare(None)
        refused.abandon()
        assert of_run(made) == []


def test_what_a_stopped_segment_ended_with_is_kept(tmp_path: Path) -> None:
    with resume_rig(tmp_path) as made:
        made.queue("a", "b", "c")
        resumed = made.resume()
        resumed.abandon()
        assert of_run(made)[-1] == ("segment ended", "stopped")


def test_a_worker_of_which_nobody_hears_is_kept_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it answers: then what it begins is known."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        for silent, telling in ((["w1"], []), (["w1"], []), ([], ["w1"])):
            answer = _Found(frozenset(telling), frozenset(), frozenset(silent))
            monkeypatch.setattr(FIND_WORKERS, lambda _publisher, answer=answer: answer)
            record_unknown_workers(ledger, None)  # type: ignore[arg-type]  # it is not asked
        facts = [document_of(one) for one in ledger.jobs.run_facts().facts]
        assert [one["what"] for one in facts] == ["silent", "reports"]


class _Found:
    """What workers that were asked have answered."""

    def __init__(
        self, instrumented: frozenset[str], stock: frozenset[str], unresponsive: frozenset[str]
    ) -> None:
        self.instrumented, self.stock, self.unresponsive = instrumented, stock, unresponsive


def test_a_broker_that_fails_while_messages_are_moved_leaves_the_facts_for_the_next_look() -> None:
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made), vanishes=True)

        made.world.between(2, lambda: setattr(made.world, "broker_down", made.world.clock.now + 3))
        made.run(40)
        assert of(made)[-1] == ("nowhere",)
        with closing(Ledger.open(made.ledger.path)) as reading:
            assert of(made) == [said(one) for one in own(reading).facts]


# What a verdict goes by comes before it


def test_what_stands_for_an_announced_task_is_a_job(family: Family) -> None:
    """Nobody has reported that it was sent; that it is nowhere is what completes the tree."""
    job = family.started_children()
    key: list[JsonValue] = [{"key": "x/after", "how": "after", "task": "t", "count": 1}]
    family.end(job, facts={"announced": key})
    family.made.run(30)
    (attempt,) = family.made.ledger.jobs.of_entry("a")
    (awaited,) = attempt.descendants
    assert awaited.job.spawn is not None
    assert awaited.job.spawn.announcement == "x/after"
    assert [said(one)[0] for one in awaited.facts] == ["nowhere"]


def test_a_stored_end_counts_once_its_job_is_nowhere() -> None:
    with rig(Plan((entry(),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.results[made.task_id("a")] = BackendResult("succeeded")
        made.run(1)
        first(made).running.clear()
        made.world.unacked.clear()
        made.run(30)
        assert of(made)[2:] == [("started",), ("stored", "succeeded"), ("nowhere",)]
        assert len(made.ledger.events.receipts(made.task_id("a"))) == 1


@pytest.mark.parametrize("late", [False, True])
def test_what_kills_its_workers_is_recalled_before_its_verdict(late: bool) -> None:
    """A death that is reported later changes nothing of that."""
    with rig(Plan((entry(late=late, retries=5, poison="child"),), kills=2)) as made:
        made.finish()
        assert made.kind("a") == "quarantined"
        (recalled,) = (one for one in own(made.ledger).facts if one.kind is Kind.RECALLED)
        settled = made.ledger.verdicts.since(0)
        assert recalled.seq < settled[0][0]
        assert said(recalled) == ("recalled", "poison", "asked")
