"""``after``: what waits is sent when what it waits for has passed, and never when that did not."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.ways import xdist_in

MEMORY = "--manifest-broker=memory://"


def entry(name: str, *after: str, task: str = "jobs.flaky") -> dict[str, object]:
    return {"id": name, "task": task, "kwargs": {"key": name}, "after": list(after)}


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_what_waits_is_sent_when_what_it_waits_for_has_passed(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """A diamond written upside down begins in its order; behind what did not pass nothing does.

    What waits for such an entry is skipped, directly or not, and the sentence names the chain. What
    counts is the verdict, not how the task ended.
    """
    project.break_("x")
    wrong = {"expect": {"result": {"key": "other"}}}
    project.manifest(
        "m.jsonl",
        [
            *(entry("d", "b", "c"), entry("c", "a"), entry("b", "a"), entry("a"), entry("free")),
            *(entry("x"), entry("y", "x"), entry("z", "y"), entry("last", "z")),
            *({**entry("odd"), **wrong}, entry("even", "odd")),
        ],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, "-rs", *xdist)
    result.assert_outcomes(passed=5, failed=2, skipped=4)
    assert project.ran() == dict.fromkeys(["a", "b", "c", "d", "free", "x", "odd"], 1)
    order = [key for key in project.order() if key in "abcd"]
    assert (order[0], order[-1]) == ("a", "d")
    text = result.stdout.str()
    assert "it waits for 'x', which did not pass (failed)" in text
    assert "it waits for 'y', which waits for 'x', which did not pass (failed)" in text
    assert "it waits for 'z', which waits for 'y', which waits for 'x', which did not pass" in text
    assert "it waits for 'odd', which did not pass (failed)" in text
    assert project.verdicts()["last"] == "skipped"


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


def test_a_run_that_is_resumed_knows_what_has_passed(project: Project) -> None:
    """What waited for a culprit that passes at last follows in the same run.

    What waits for one that is left, as it may have run, stays skipped and says so; what waits for
    an entry that has passed before is sent though that one is deselected.
    """
    broken = [project.break_(key) for key in ("a", "second", "left")]
    project.manifest(
        "m.jsonl",
        [
            *({**entry("a"), "idempotent": True}, entry("b", "a"), entry("c", "b")),
            *(entry("first"), {**entry("second", "first"), "idempotent": True}),
            *(entry("left"), entry("held", "left")),
        ],
    )
    run = ("--manifest=m.jsonl", MEMORY)
    project.run(*run).assert_outcomes(passed=1, failed=3, skipped=3)
    for file in broken:
        file.unlink()
    chosen = project.run(*run, "--manifest-resume", "-k", "second")
    assert chosen.parseoutcomes()["passed"] == 1
    assert project.ran()["second"] == 2
    held = "leaves 'held': it waits for 'left', which has not passed"
    looked = project.run(*run, "--manifest-resume", "--collect-only")
    looked.stdout.fnmatch_lines_random(["sends 'b': never sent (skipped)", held])
    result = project.run(*run, "--manifest-resume", "-rs")
    result.assert_outcomes(passed=5, failed=1, skipped=1)
    assert [key for key in project.order() if key in "abc"] == ["a", "a", "b", "c"]
    assert project.ran()["first"] == project.ran()["left"] == 1
    result.stdout.fnmatch_lines_random(
        [
            "resume: sends 'b': never sent (skipped)",
            f"resume: {held}",
            "*it waits for 'left', which did not pass (failed)*",
        ]
    )


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
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
