"""``after``: what waits is sent when what it waits for has passed, and never when that did not."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.ways import XDIST_LATER

MEMORY = "--manifest-broker=memory://"


def entry(name: str, *after: str, task: str = "jobs.flaky") -> dict[str, object]:
    return {"id": name, "task": task, "kwargs": {"key": name}, "after": list(after)}


@pytest.mark.parametrize("xdist", XDIST_LATER)
def test_jobs_begin_in_the_order_of_their_dependencies(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """A diamond written upside down: each job begins after the ones that it waits for."""
    project.manifest(
        "m.jsonl",
        [entry("d", "b", "c"), entry("c", "a"), entry("b", "a"), entry("a"), entry("free")],
    )
    project.run("--manifest=m.jsonl", MEMORY, *xdist).assert_outcomes(passed=5)
    order = project.order()
    assert sorted(order) == ["a", "b", "c", "d", "free"]
    order.remove("free")
    assert (order[0], order[-1]) == ("a", "d")


@pytest.mark.live
@pytest.mark.ring(2)
def test_what_waits_begins_when_its_predecessor_has_ended(project: Project) -> None:
    """With a free worker at hand, the second job still waits until the first has passed."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "slow", "task": "jobs.nap", "kwargs": {"sec": 1, "key": "slow"}},
            entry("next", "slow"),
            entry("other"),
        ],
    )
    project.run("--manifest=m.jsonl").assert_outcomes(passed=3)
    assert project.order()[-1] == "next"


@pytest.mark.parametrize("xdist", XDIST_LATER)
def test_a_failed_entry_holds_back_the_chain_behind_it(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """What waits for it is skipped, directly or not; the sentence names the chain."""
    project.break_("a")
    project.manifest(
        "m.jsonl", [entry("a"), entry("b", "a"), entry("c", "b"), entry("d", "c"), entry("free")]
    )
    result = project.run("--manifest=m.jsonl", MEMORY, "-rs", *xdist)
    result.assert_outcomes(passed=1, failed=1, skipped=3)
    assert project.ran() == {"a": 1, "free": 1}
    text = result.stdout.str()
    assert "it waits for 'a', which did not pass (failed)" in text
    assert "it waits for 'b', which waits for 'a', which did not pass (failed)" in text
    assert "it waits for 'c', which waits for 'b', which waits for 'a', which did not pass" in text
    assert project.verdicts()["d"] == "skipped"


def test_an_expectation_that_is_not_met_holds_back_too(project: Project) -> None:
    """What counts is the verdict, not how the task ended."""
    project.manifest(
        "m.jsonl", [{**entry("a"), "expect": {"result": {"key": "other"}}}, entry("b", "a")]
    )
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.assert_outcomes(failed=1, skipped=1)
    assert project.ran() == {"a": 1}


def test_a_failing_test_of_the_users_holds_back_nothing(project: Project) -> None:
    """The predecessor's verdict is passed; that a verification fails concerns its test alone."""
    project.write(
        "workflows/demo/verify.py",
        """
import pytest

@pytest.mark.entries
def test_it(entry, receipt):
    assert entry.id != "a"
""",
    )
    header = '{"manifest": 1, "workflow": "demo"}\n'
    path = project.manifest("m.jsonl", [entry("a"), entry("b", "a")])
    path.write_text(header + path.read_text("utf-8"), "utf-8")
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.assert_outcomes(passed=1, failed=1)
    assert project.order() == ["a", "b"]


def test_a_deselected_predecessor_that_never_ran_holds_back(project: Project) -> None:
    """-k chose only the second of two: it is skipped, and the sentence says why."""
    project.manifest("m.jsonl", [entry("first"), entry("second", "first"), entry("third")])
    result = project.run("--manifest=m.jsonl", MEMORY, "-k", "second or third", "-rs")
    result.assert_outcomes(passed=1, skipped=1, deselected=1)
    assert project.ran() == {"third": 1}
    result.stdout.fnmatch_lines(["*'first', which was not selected and has not passed in this*"])


def test_a_deselected_predecessor_that_has_passed_counts(project: Project) -> None:
    """In the same run, gone on with, the second is sent though the first is deselected."""
    broken = project.break_("second")
    project.manifest("m.jsonl", [entry("first"), {**entry("second", "first"), "idempotent": True}])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1)
    broken.unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "-k", "second")
    assert result.parseoutcomes()["passed"] == 1
    assert project.ran() == {"first": 1, "second": 2}


def test_what_was_held_back_is_sent_by_resume(project: Project) -> None:
    """When the culprit passes at last, what waited for it follows in the same run."""
    broken = project.break_("a")
    rows = [{**entry("a"), "idempotent": True}, entry("b", "a"), entry("c", "b")]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1, skipped=2)
    broken.unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=3)
    assert project.order() == ["a", "a", "b", "c"]
    result.stdout.fnmatch_lines(["resume: sends 'b': never sent (skipped)"])


def test_an_unsatisfied_wait_is_held_anew_by_resume(project: Project) -> None:
    """The culprit is left, as it may have run; what waits for it stays skipped, and says so."""
    project.break_("a")
    project.manifest("m.jsonl", [entry("a"), entry("b", "a")])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1, skipped=1)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "-rs")
    result.assert_outcomes(failed=1, skipped=1)
    assert project.ran() == {"a": 1}
    result.stdout.fnmatch_lines(["*it waits for 'a', which did not pass (failed)*"])


@pytest.mark.parametrize("xdist", XDIST_LATER)
def test_entries_that_wait_for_one_another_are_refused(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """A circle is named with its lines, and nothing is sent."""
    project.manifest("m.jsonl", [entry("a", "c"), entry("b", "a"), entry("c", "b"), entry("free")])
    result = project.run("--manifest=m.jsonl", MEMORY, *xdist)
    assert result.ret != pytest.ExitCode.OK
    text = result.stdout.str() + result.stderr.str()
    assert (
        "entries wait for one another: 'a' (line 1) -> 'c' (line 3) -> 'b' (line 2) -> 'a'" in text
    )
    assert not project.ran()
    assert not project.ledgers()


def test_an_unknown_predecessor_is_refused(project: Project) -> None:
    """An id that no entry has is a fault of the manifest, with its line."""
    project.manifest("m.jsonl", [entry("a"), entry("b", "nobody")])
    result = project.run("--manifest=m.jsonl", MEMORY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*m.jsonl:2: 'after' names 'nobody', which no entry here has*"])
    assert not project.ran()
