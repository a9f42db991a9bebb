"""Gates: a canary that goes first, and a number of failures at which sending ends."""

from __future__ import annotations

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.ways import xdist_in

MEMORY = "--manifest-broker=memory://"


def flaky(project: Project, count: int, *broken: int) -> None:
    """A manifest of ``count`` entries f-0, f-1, ...; those in ``broken`` fail."""
    for n in broken:
        project.break_(f"f-{n}")
    project.manifest(
        "m.jsonl",
        [{"id": f"f-{n}", "task": "jobs.flaky", "kwargs": {"key": f"f-{n}"}} for n in range(count)],
    )


def begin(project: Project, *lines: str) -> None:
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", ini + "".join(f"{line}\n" for line in lines))


def states(project: Project) -> dict[str, int]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return dict(ledger.attempts.send_states())


def test_the_others_follow_a_canary_that_passes(project: Project) -> None:
    """Three spread over the manifest run first, then all the others; each runs once."""
    flaky(project, 9)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-canary=3")
    result.assert_outcomes(passed=9)
    assert sorted(project.order()[:3]) == ["f-0", "f-3", "f-6"]
    assert len(project.order()) == 9


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_nothing_follows_a_canary_that_fails(project: Project, xdist: tuple[str, ...]) -> None:
    """The others are skipped, and each says which entry of the canary did not pass."""
    flaky(project, 9, 3)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-canary=3", "-rs", *xdist)
    result.assert_outcomes(passed=2, failed=1, skipped=6)
    assert sorted(project.order()) == ["f-0", "f-3", "f-6"]
    result.stdout.fnmatch_lines(["*the canary failed: 'f-3' did not pass*"])
    assert states(project) == {"sent": 3, "withheld": 6}


def test_a_canary_and_dependencies_go_together(project: Project) -> None:
    """What waits for an entry of the canary is sent when the canary has passed as a whole."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.flaky", "args": ["a"]},
            {"id": "b", "task": "jobs.flaky", "args": ["b"], "after": ["a"]},
            {"id": "c", "task": "jobs.flaky", "args": ["c"]},
        ],
    )
    project.break_("c")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-canary=2")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert sorted(project.order()) == ["a", "c"]


def test_resume_sends_what_a_failed_canary_held_back(project: Project) -> None:
    """What never ran is sent, and the canary's broken entry is left: it may have done harm.

    The run was finished, as every entry had its verdict: another one of the whole is its own.
    """
    flaky(project, 6, 0)
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-canary=1").assert_outcomes(
        failed=1, skipped=5
    )
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert ledger.info.status == "finished"
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=5, failed=1)
    assert project.ran() == {f"f-{n}": 1 for n in range(6)}
    result.stdout.fnmatch_lines(["resume: leaves 'f-0': failed; it has run and is not idempotent"])
    (project.path / "broken-f-0").unlink()
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=6)
    assert len(project.ledgers()) == 2


def test_sending_ends_when_too_many_have_failed(project: Project) -> None:
    """The second failure is one too many: what is not sent is skipped, and says why.

    A resume sends it, as the summary says.
    """
    flaky(project, 8, 1, 3, 5)
    result = project.run(
        "--manifest=m.jsonl", MEMORY, "--manifest-max-failed=1", "--manifest-window=1", "-rs"
    )
    result.assert_outcomes(passed=2, failed=2, skipped=4)
    assert project.order() == ["f-0", "f-1", "f-2", "f-3"]
    result.stdout.fnmatch_lines(
        [
            "*2 of 8 entries have failed, more than --manifest-max-failed=1 allows*",
            f"  to go on: pytest --manifest=m.jsonl --manifest-resume {MEMORY}",
        ]
    )


def test_the_share_of_a_resumed_run_is_of_what_it_sends(project: Project) -> None:
    """What has passed before is no ground to let everything that is sent now fail."""
    flaky(project, 8, 6, 7)
    manifest = project.path / "m.jsonl"
    text = manifest.read_text("utf-8").replace('"task"', '"idempotent": true, "task"')
    manifest.write_text(text, "utf-8")
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=6, failed=2)
    options = ("--manifest-max-failed=20%", "--manifest-window=1", "-rs")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", *options)
    result.assert_outcomes(passed=6, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*1 of 2 entries have failed*"])


def naps(project: Project) -> None:
    """One that fails after a moment, behind naps that fill both workers and their queue."""
    rows: list[dict[str, object]] = [{"id": "bad", "task": "jobs.fail", "args": ["no", "bad"]}]
    rows += [
        {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0.7, "key": f"n-{n}"}}
        for n in range(10)
    ]
    project.manifest("m.jsonl", rows)


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize("choice", ["", ":revoke"], ids=["drain", "revoke"])
def test_what_is_sent_already_is_drained_or_revoked(project: Project, choice: str) -> None:
    """Of six in flight all run to their end, or those that have not begun are taken back."""
    naps(project)
    limit = f"--manifest-max-failed=0{choice}"
    result = project.run("--manifest=m.jsonl", "--manifest-window=6", limit)
    verdicts = project.verdicts()
    counts = {kind: list(verdicts.values()).count(kind) for kind in set(verdicts.values())}
    assert len(verdicts) == 11
    assert counts.pop("failed") == 1
    assert counts.pop("skipped") == 5
    if not choice:
        assert counts == {"passed": 5}
    else:
        assert counts["revoked"] >= 1
        result.stdout.fnmatch_lines(["*as more had failed than --manifest-max-failed allows*"])
        assert sum(counts.values()) == 5
        # What the run took back is no cause, however many that are.
        result.stdout.fnmatch_lines(["  first: start from the worker's traceback (m.jsonl:1)"])
    ran = project.ran()
    assert {name for name, kind in verdicts.items() if kind in ("passed", "failed")} == set(ran)
    assert set(ran.values()) == {1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_gates_are_ini_options_too(project: Project) -> None:
    """manifest_canary and manifest_max_failed of the configuration file count; options win."""
    begin(project, "manifest_canary = 2", "manifest_max_failed = 0")
    flaky(project, 6, 0)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1, skipped=4)
    options = ("--manifest-canary=6", "--manifest-max-failed=100%")
    project.run("--manifest=m.jsonl", MEMORY, *options).assert_outcomes(passed=5, failed=1)
