"""Chords in the tree of an attempt: what is sent only after an end was stored."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reports import tree_counts
from tests.unit.run_family import Family, announced, chord, entry, with_announced
from tests.unit.run_rig import Plan, rig
from tests.unit.run_world import Record, _started, finished, receipt_of


def test_a_body_that_only_its_start_tells_of_is_the_announced_one(family: Family) -> None:
    """The record of its sending was lost with the store."""
    h1, h2 = chord(family)
    facts = with_announced(family, announced("g", "body"))
    family.end(h1, facts=facts)
    family.end(h2, facts=facts)
    assert family.status() is None
    family.send("body")
    family.world.take(family.worker)
    body = family.world.begin(family.worker)
    assert body is not None
    assert body.execution is not None
    family.world.stream.pop()
    told = {**_started(body.execution), "root": family.root, "parent": "h2"}
    family.world._append(Record(0, told, "body", started=True))
    family.end(body)
    assert family.status() == "passed"


def test_the_body_of_a_chord_is_waited_for(family: Family) -> None:
    """It is sent only when the last member's end has been stored."""
    h1, h2 = chord(family)
    facts = with_announced(family, announced("g", "body"))
    family.end(h1, facts=facts)
    family.end(h2, facts=facts)
    assert family.status() is None
    family.spawn("body", parent="h2", how="chord_body", fulfils="g")
    family.send("body")
    assert family.status() is None
    family.run("failed")
    assert family.status() == "failed"
    assert "'task.body' (body), started by 'task.h2', failed" in family.made.sentence("a")


def test_a_body_that_never_comes_is_lost(family: Family) -> None:
    """The worker that should have sent it died between the two."""
    h1, h2 = chord(family)
    facts = with_announced(family, announced("g", "body"))
    family.end(h1, facts=facts)
    family.end(h2, facts=facts)
    family.made.run(30)
    assert family.made.kind("a") == "lost"
    assert "'task.body' (body)" in family.made.sentence("a")


def test_a_body_is_not_lost_while_a_member_may_still_send_it(family: Family) -> None:
    """The member's end is stored, and its process goes on."""
    h1, h2 = chord(family)
    facts = with_announced(family, announced("g", "body"))
    family.end(h1, facts=facts)
    execution = h2.execution
    assert execution is not None
    receipt = receipt_of(execution, "succeeded", family.world.clock.utc_now())
    family.world.tell({**finished(execution.name, receipt), **facts})
    family.made.run(60)
    assert family.made.kind("a") is None
    family.worker.running.remove(h2)
    family.spawn("body", parent="h2", how="chord_body", fulfils="g")
    family.send("body")
    family.made.step()
    family.run("succeeded")
    assert family.status() == "passed"


def test_the_body_of_a_chord_whose_member_failed_is_not_waited_for(family: Family) -> None:
    """Celery sends none then."""
    h1, h2 = chord(family)
    family.end(h1, facts=with_announced(family, announced("g", "body")))
    off = announced("g", "body", is_off=True)
    family.end(h2, "failed", with_announced(family, off))
    assert family.status() == "failed"
    assert "'task.h2' (h2), started by 't', failed" in family.made.sentence("a")


def test_the_body_of_a_chord_whose_member_was_lost_is_not_what_was_lost(family: Family) -> None:
    """Nobody could say that it is off; the entry is what became of the member."""
    job = family.started_children("h1", "h2")
    family.end(job)
    h1 = family.begin()
    family.world.queue.clear()
    family.end(h1, facts=with_announced(family, announced("g", "body")))
    family.made.run(60)
    statuses = tree_counts(family.made.ledger, family.root)
    assert (family.made.kind("a"), statuses) == ("lost", {"passed": 1, "lost": 1, "skipped": 1})
    assert "'task.h2' (h2)" in family.made.sentence("a")


# Chords beside others: only what a chord waits for can keep its body back


def crashed_beside(family: Family, *, of: Sequence[str]) -> None:
    """A complete chord whose body never comes, and a task that crashes, which these wait for."""
    family.made.step()
    job = family.begin()
    family.spawn("h1", chords=["g"], how="chord")
    family.spawn("c", chords=of)
    family.send("h1", "c")
    family.end(job)
    member = family.begin()
    family.end(member, facts=with_announced(family, announced("g", "body")))
    family.begin()
    family.made.step()
    family.world.kill(family.worker, restart=1.0)
    family.made.run(60)


FINISHED = {"descendants": "finished"}


def test_a_body_is_lost_though_something_else_has_crashed() -> None:
    """Whatever may become of tasks: a body that nobody kept back has not come to its end."""
    with rig(Plan((entry(expect=FINISHED),))) as made:
        family = Family(made)
        crashed_beside(family, of=[])
        statuses = tree_counts(made.ledger, family.root)
        assert (made.kind("a"), statuses) == ("lost", {"passed": 1, "crashed": 1, "lost": 1})
        assert "'task.body' (body)" in made.sentence("a")


def test_a_body_is_kept_back_by_what_its_chord_waits_for() -> None:
    """Such as a task of a chain, or of a chord, within its header."""
    with rig(Plan((entry(expect=FINISHED),))) as made:
        family = Family(made)
        crashed_beside(family, of=["inner", "g"])
        statuses = tree_counts(made.ledger, family.root)
        assert (made.kind("a"), statuses) == ("passed", {"passed": 1, "crashed": 1, "skipped": 1})


def test_a_body_whose_member_could_not_be_sent_was_never_sent(family: Family) -> None:
    """The parent saw that, and went on."""
    family.made.step()
    job = family.begin()
    family.spawn("h1", "h2", chords=["g"], how="chord")
    family.send("h1")
    family.end(job, facts={"unsent": ["h2"]})
    family.end(family.begin(), facts=with_announced(family, announced("g", "body")))
    family.made.run(60)
    statuses = tree_counts(family.made.ledger, family.root)
    assert (family.made.kind("a"), statuses) == ("passed", {"passed": 1, "skipped": 2})
