"""``--manifest-resume``: what has not passed is sent, what has passed is kept, each says why."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.rows import RunStatus
from tests.plugin.conftest import Project, change, kill_in_the_middle
from tests.support import eventually

MEMORY = "--manifest-broker=memory://"
XDIST = pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
LATER = pytest.mark.ring(2)

BROKEN = """

@app.task(name="jobs.broken")
def broken():
    count("b")
    return 1 / 0
"""

Row = dict[str, object]


def flaky(name: str, **fields: object) -> Row:
    return {"id": name, "task": "jobs.flaky", "kwargs": {"key": name}, **fields}


def double(name: str, n: int, **fields: object) -> Row:
    return {
        "id": name,
        "task": "jobs.double",
        "kwargs": {"n": n, "key": name},
        "expect": {"result": {"n": 2 * n}},
        **fields,
    }


def reasons(project: Project) -> dict[str, str | None]:
    """Why the newest attempt of each entry was made."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return {row.entry: row.reason for row in ledger.attempts.newest()}


# What is sent


@pytest.mark.ring(2)
@XDIST
def test_what_passed_is_kept_and_what_failed_runs_again(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """Three passed and one failed: only that one runs a second time, in the same run, and its
    receipt comes from its worker, as the first ones."""
    broken = project.break_("b")
    project.manifest("m.jsonl", [flaky(n, idempotent=True) for n in "abcd"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=3, failed=1)
    broken.unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", *xdist)
    result.assert_outcomes(passed=4)
    assert project.ran() == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert len(project.ledgers()) == 1
    result.stdout.fnmatch_lines(["resume: sends 'b': failed"])
    assert reasons(project) == {"a": None, "b": "failed", "c": None, "d": None}
    with Ledger.open(project.ledgers()[0]) as ledger:
        first, second = ledger.attempts.of_entry("b")
        assert (first.status, second.status) == ("failed", "passed")
        settled = ledger.verdicts.of_entry("b")
    assert settled is not None
    assert settled.receipt is not None
    assert (settled.receipt.source, settled.receipt.attempt) == ("worker", 2)
    assert settled.receipt.started_at is not None


def test_what_may_have_run_and_must_not_run_twice_is_left(project: Project) -> None:
    """It is named with the reason, stays red, does not run; --manifest-resume=unsafe sends it."""
    broken = project.break_("b")
    project.manifest("m.jsonl", [flaky(n) for n in "abc"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2, failed=1)
    broken.unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["resume: leaves 'b': failed; it has run and is not idempotent"])
    assert project.ran() == {"a": 1, "b": 1, "c": 1}
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume=unsafe")
    result.assert_outcomes(passed=3)
    assert project.ran() == {"a": 1, "b": 2, "c": 1}


def test_there_may_be_nothing_to_go_on_with(project: Project) -> None:
    """Where all have passed, all tests pass and nothing runs, and a look says so; without a run it
    is refused."""
    project.doubles(count=3)
    refused = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*there is no run of this manifest*dispatch it first*"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=3)
    shown = project.run("--manifest=m.jsonl", "--manifest-resume", "--collect-only", "-q")
    shown.stdout.fnmatch_lines(["there is nothing to be sent: every entry has passed"])
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=3)
    assert project.ran() == {f"d-{n}": 1 for n in range(3)}
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert ledger.info.status == "finished"


def test_an_entry_that_was_not_selected_before_is_sent(project: Project) -> None:
    """A run of two entries is gone on with for all four: the other two follow."""
    project.doubles(count=4)
    project.run("--manifest=m.jsonl", MEMORY, "-k", "d-1 or d-2").assert_outcomes(
        passed=2, deselected=2
    )
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=4)
    assert project.ran() == {f"d-{n}": 1 for n in range(4)}
    result.stdout.fnmatch_lines(["resume: sends 'd-0': never sent", "*4 entries: 4 passed"])


def test_resume_sends_only_what_is_selected(project: Project) -> None:
    """-k chooses among what would be sent; the other one waits for another time."""
    for name in "ab":
        project.break_(name)
    project.manifest("m.jsonl", [flaky(n, idempotent=True) for n in "abc"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=2)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "-k", "entry[a]")
    result.assert_outcomes(failed=1, deselected=2)
    assert project.ran() == {"a": 2, "b": 1, "c": 1}


def test_what_no_worker_knew_is_sent_when_one_does(project: Project) -> None:
    """What was withheld for an unknown task is sent by a resume, once a worker has that task."""
    project.manifest("m.jsonl", [{"id": "x", "task": "jobs.later", "args": []}, flaky("a")])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1)
    text = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", f'{text}\n@app.task(name="jobs.later")\ndef later(): count("x")\n')
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=2)
    assert project.ran() == {"a": 1, "x": 1}
    result.stdout.fnmatch_lines(["resume: sends 'x': never sent (unknown_task)"])


# After a stop


@pytest.mark.ring(2)
@pytest.mark.live
def test_after_a_first_failure_the_rest_is_sent(project: Project) -> None:
    """-x stopped the run: what was revoked or never sent runs once, and what passed is kept."""
    rows: list[Row] = [{"id": "bad", "task": "jobs.fail", "args": ["no", "bad"]}]
    rows += [
        {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0.3, "key": f"n-{n}"}}
        for n in range(12)
    ]
    project.manifest("m.jsonl", rows)
    first = project.run("--manifest=m.jsonl", "-x", "--manifest-window=6")
    outcomes = first.parseoutcomes()
    assert outcomes["failed"] == 1
    assert outcomes.keys() <= {"failed", "passed"}, "no test runs after the failure"
    first.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    # Those that a worker has taken in advance may come to an end before the summary, as withdrawn.
    first.stdout.re_match_lines([r"  stopped: |.* \d+ withdrawn"])
    before = project.ran()
    assert len(before) < len(rows)
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    ran = project.ran()
    assert set(ran) == {str(row["id"]) for row in rows}
    assert set(ran.values()) == {1}
    # What was running when the stack went is not idempotent: it is left, and said so.
    verdicts = project.verdicts()
    left = {name for name, kind in verdicts.items() if kind != "passed"}
    assert left <= set(before)
    gone = {name for name, kind in verdicts.items() if kind == "unknown"}  # as its receipt may be
    result.assert_outcomes(passed=len(rows) - len(left), failed=len(left - gone), errors=len(gone))
    for name in left:
        result.stdout.fnmatch_lines([f"resume: leaves '{name}': *run and is not idempotent*"])


@LATER
@pytest.mark.live
def test_after_ctrl_c_the_rest_is_sent(project: Project) -> None:
    """What was never sent and what was revoked runs once; what passed before is not sent again."""
    rows = [
        {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0.5, "key": f"n-{n}"}}
        for n in range(10)
    ]
    project.manifest("m.jsonl", rows)
    command = [sys.executable, "-m", "pytest", "--manifest=m.jsonl", "--manifest-window=6"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            eventually(lambda: len(project.ran()) >= 3, within=60, what="three jobs have begun")
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume" in text
    before = project.ran()
    assert 3 <= len(before) < 10
    # A job that was running had the grace period to end in, so nothing is left.
    project.run("--manifest=m.jsonl", "--manifest-resume").assert_outcomes(passed=10)
    assert project.ran() == {f"n-{n}": 1 for n in range(10)}
    assert {reasons(project)[name] for name in before} == {None}


def test_after_a_kill_only_what_is_certain_or_harmless_is_sent(project: Project) -> None:
    """The stack went with pytest: what may have run is left, unless it may run twice."""
    kill_in_the_middle(project)
    ran = project.ran()
    assert ran == {"n-0": 1, "n-1": 1}
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=4, errors=1)
    lines = result.stdout.str().splitlines()
    told = {line for line in lines if line.startswith("resume: ")}
    assert told == {
        "resume: leaves 'n-1': lost in flight; it may have run and is not idempotent",
        "resume: sends 'n-2': lost in flight",
        "resume: sends 'n-3': never sent",
        "resume: sends 'n-4': never sent",
        "resume: --manifest-resume=unsafe sends what is left as well",
    }
    assert project.ran() == ran | {f"n-{n}": 1 for n in (2, 3, 4)}
    # It was begun, and may have ended: its receipt would be gone with the stack.
    assert project.verdicts()["n-1"] == "unknown"


# A changed manifest


def test_a_changed_manifest_is_refused(project: Project) -> None:
    """Also only to look; what has passed there a new run reuses."""
    path = project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    change(path, "d-0", {"kwargs": {"n": 7, "key": "d-0"}})
    run = project.ledgers()[-1].stem
    look = ("--manifest=m.jsonl", "--collect-only", "-q")
    for call in (("--manifest=m.jsonl", MEMORY), look):
        result = project.run(*call, "--manifest-resume")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        kept, then = f"{run}.*.manifest.jsonl", f"begin a new run with --manifest-reuse={run}"
        said = f"*m.jsonl: was changed since run {run}; restore it from {kept}*, or {then}"
        result.stderr.fnmatch_lines([said])
    assert project.ran() == {"d-0": 1, "d-1": 1}
    again = project.run("--manifest=m.jsonl", MEMORY, f"--manifest-reuse={run}")
    again.assert_outcomes(passed=1, failed=1)
    assert project.ran() == {"d-0": 2, "d-1": 1}


def unfinished(project: Project, status: RunStatus) -> str:
    """Have the only run look unfinished, on a stack that goes on; return its id."""
    (ledger,) = project.ledgers()
    with Ledger.open(ledger, write=True) as writing:
        writing.info.set_meta("is_private", "0")
        writing.info.set_status(status)
    return ledger.stem


def test_what_is_edited_under_its_run_is_not_sent_beside_it(project: Project) -> None:
    """While jobs of that may go on, whatever was edited, unless one insists."""
    path = project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    run = unfinished(project, "detached")
    change(path, "d-0", {"kwargs": {"n": 7, "key": "d-0"}})
    for more in ((), ("--manifest-reuse=all",)):
        result = project.run("--manifest=m.jsonl", MEMORY, *more)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*m.jsonl: was changed under run {run}, whose jobs may*"])
    resumed = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    resumed.stderr.fnmatch_lines(["*whose jobs may still be queued or running; restore it from *"])
    resumed.stderr.no_fnmatch_line("*--manifest-reuse*")
    assert project.ran() == {"d-0": 1, "d-1": 1}
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun", "-k", "d-1")
    assert project.ran() == {"d-0": 1, "d-1": 2}


def test_work_that_may_have_run_before_its_manifest_was_edited_is_left(project: Project) -> None:
    """Where it has not passed in the run that was stopped, is the same work and not idempotent."""
    for name in "abc":
        project.break_(name)
    rows = [flaky("a"), flaky("b"), flaky("c", idempotent=True), double("d", 1)]
    path = project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=3)
    run = unfinished(project, "stopped")
    change(path, "b", {"task": "jobs.double", "kwargs": {"n": 2, "key": "b"}})
    change(path, "a", {"tags": ["edited"]})
    result = project.run("--manifest=m.jsonl", MEMORY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*m.jsonl: 'a' may have run in run {run}, did not*"])
    assert project.ran() == {"a": 1, "b": 1, "c": 1, "d": 1}
    project.run("--manifest=m.jsonl", MEMORY, "-k", "not entry[a]")
    assert project.ran() == {"a": 1, "b": 2, "c": 2, "d": 2}
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun", "-k", "entry[a]")
    assert project.ran() == {"a": 2, "b": 2, "c": 2, "d": 2}


def test_mended_code_leaves_what_passed_as_it_is(project: Project) -> None:
    """Between two resumptions a task is mended: what passed by the old code stays passed."""
    project.write("jobs.py", project.path.joinpath("jobs.py").read_text() + BROKEN)
    rows = [double("a", 1), {"id": "b", "task": "jobs.broken", "idempotent": True}]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1)
    project.write("jobs.py", project.path.joinpath("jobs.py").read_text().replace("1 / 0", "1"))
    for _ in range(2):
        project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume").assert_outcomes(passed=2)
    assert project.ran() == {"a": 1, "b": 2}


# Looking first, and choosing a run


def test_collect_only_shows_and_sends_nothing(project: Project) -> None:
    """Each entry that would be sent or left is named with its reason; ledger and jobs stay."""
    for name in "bc":
        project.break_(name)
    project.manifest("m.jsonl", [flaky("a"), flaky("b"), flaky("c", idempotent=True)])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=2)
    before = project.ledgers()[0].read_bytes()
    result = project.run("--manifest=m.jsonl", "--manifest-resume", "--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*resume: what would be done*",
            "leaves 'b': failed; it has run and is not idempotent",
            "sends 'c': failed",
        ]
    )
    assert "'a'" not in result.stdout.str()
    assert project.ran() == {"a": 1, "b": 1, "c": 1}
    assert project.ledgers()[0].read_bytes() == before


def test_an_older_run_is_gone_on_with_by_its_name(project: Project) -> None:
    """--manifest-run picks the first of two runs; an unknown name is refused with those known."""
    broken = project.break_("b")
    project.manifest("m.jsonl", [flaky(n, idempotent=True) for n in "ab"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1)
    (first,) = project.ledgers()
    broken.unlink()
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun").assert_outcomes(passed=2)
    refused = project.run(
        "--manifest=m.jsonl", MEMORY, "--manifest-resume", "--manifest-run=nobody"
    )
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"*there is no run nobody; runs of m.jsonl: *{first.stem}*"])
    result = project.run(
        "--manifest=m.jsonl", MEMORY, "--manifest-resume", f"--manifest-run={first.stem}"
    )
    result.assert_outcomes(passed=2)
    assert project.ran() == {"a": 2, "b": 3}
    with Ledger.open(first) as ledger:
        assert len(ledger.attempts.of_entry("b")) == 2


def test_two_manifests_are_gone_on_with_or_none(project: Project) -> None:
    """Where one of two has no run, nothing of the other is sent."""
    broken = project.break_("a")
    project.manifest("a.jsonl", [flaky("a", idempotent=True)])
    project.manifest("b.jsonl", [flaky("b", idempotent=True)])
    project.run("--manifest=a.jsonl", MEMORY).assert_outcomes(failed=1)
    broken.unlink()
    both = ("--manifest=a.jsonl", "--manifest=b.jsonl", MEMORY, "--manifest-resume")
    refused = project.run(*both)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*b.jsonl: there is no run of this manifest*"])
    assert project.ran() == {"a": 1}
    project.run("--manifest=b.jsonl", MEMORY).assert_outcomes(passed=1)
    project.run(*both).assert_outcomes(passed=2)
    assert project.ran() == {"a": 2, "b": 1}
