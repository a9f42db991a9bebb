"""What is held of a steered run in the end is seen where it is broken."""

from __future__ import annotations

from pytest_manifest.ledger.commands import Answer
from tests.chaos.operator_faults import steering_flaws
from tests.unit.run_rig import Plan, rig
from tests.unit.test_steering import asked, entry


def test_what_is_broken_of_a_steered_run_is_named() -> None:
    """In a sentence each, and nothing of one that is whole."""
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        assert asked(made, "cancel", entries=["b"]).changed
        path, ledger = made.ledger.path, made.ledger
        assert not steering_flaws(path)
        number = ledger.commands.add("pause", "ada@box")
        assert steering_flaws(path) == ["the operator's pause has no answer"]
        ledger.commands.answer(number, Answer(True, True, ""))
        ledger.attempts.mark([made.task_id("b")], "intent", sent_at=made.world.clock.utc_now())
        (fact,) = ledger.jobs.run_facts().steered
        ledger.facts.append([(None, fact)])
        assert steering_flaws(path) == [
            "b was cancelled, and sent after",
            "command 1 took effect twice",
        ]
