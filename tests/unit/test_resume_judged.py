"""What a resumed run says of its jobs is what the run itself would have said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest import signing
from pytest_manifest.ledger import Descendant
from pytest_manifest.run.casebook import require_signatures
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.schema.facts import ChildUnsent, Ended, Moved
from pytest_manifest.schema.run_facts import Segment
from tests.reports import add_starts
from tests.unit.ledger_support import start
from tests.unit.resume_rig import ResumeRig, entry, resume_rig
from tests.unit.run_world import Delivery

RISKY = "; it may have run and is not idempotent"


def drop(rig: ResumeRig, delivery: Delivery) -> None:
    """Have nobody run it any more, without a word."""
    rig.world.workers["w1@box"].running.remove(delivery)


def sentence(rig: ResumeRig, name: str) -> str:
    with rig.ledger() as ledger:
        found = ledger.verdicts.of_entry(name)
    assert found is not None
    return found.verdict.sentence


def test_a_success_after_which_its_job_went_on_is_no_end(rig: ResumeRig) -> None:
    """As ``retry(throw=False)`` leaves it; what that has sent is nowhere."""
    delivery = rig.begin("a")
    worker = rig.world.workers["w1@box"]
    rig.world.end(worker, delivery, "retried")
    rig.world.queue.clear()
    rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", f"lost in flight{RISKY}")}
    assert rig.statuses() == {"a": "lost"}


def test_a_child_that_its_parent_could_not_send_is_not_missing(rig: ResumeRig) -> None:
    """Its parent has seen that, and ended as it should."""
    rig.end("a")
    root = rig.task_id("a")
    with rig.ledger() as ledger:
        ledger.descendants.add([Descendant("d1", root, root, "u", "call")])
        ledger.facts.append([("a", ChildUnsent(**stamp("d1")))])
    rig.resume(["a"])
    assert rig.decided() == {"a": ("keep", "passed")}
    assert rig.statuses() == {"a": "passed"}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_job_that_is_to_crash_has_passed_where_its_process_is_gone(
    tmp_path: Path, *, is_there: bool
) -> None:
    """That it is nowhere else shows nothing of it."""
    with resume_rig(tmp_path, entry("a", expect={"state": "crashed"})) as rig:
        delivery = rig.begin("a")
        drop(rig, delivery)
        if not is_there:
            assert delivery.execution is not None
            rig.world.dead.add(delivery.execution.pid)
        rig.resume(["a"])
        assert rig.statuses() == {"a": "lost" if is_there else "passed"}
        assert rig.decided()["a"][0] == ("leave" if is_there else "keep")


def test_a_job_with_an_unsigned_end_alone_is_forged(rig: ResumeRig) -> None:
    """Whatever the search has found of it."""
    with rig.ledger() as ledger:
        require_signatures(ledger, signing.generate()[1])
    delivery = rig.begin("a")
    drop(rig, delivery)
    told = rig.receipt("a", "succeeded")
    with rig.ledger() as ledger:
        end = Ended(**stamp(rig.task_id("a")), receipt=told, fault="it is not signed")
        ledger.facts.append([("a", end)])
    rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", f"forged{RISKY}")}
    assert rig.statuses() == {"a": "forged"}
    assert "it is not signed" in sentence(rig, "a")


def test_what_a_dead_worker_had_begun_has_crashed(rig: ResumeRig) -> None:
    """Also where its process cannot be asked for from here: its message was taken out."""
    with rig.ledger() as ledger:
        begun = replace(start(rig.task_id("a"), "x"), worker="w1@box")
        add_starts(ledger, [begun])
        ledger.facts.append([(None, Segment(**stamp(), kills=3, lifetime=3600.0))])
        ledger.facts.append([("a", Moved(**stamp(rig.task_id("a")), how="taken_out"))])
    rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", f"lost in flight{RISKY}")}
    assert rig.statuses() == {"a": "crashed"}
