"""``--manifest-audit``: an earlier run is judged again, by today's manifest; nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.conftest import Project, change, kill_in_the_middle
from tests.plugin.ways import xdist_in

MEMORY = "--manifest-broker=memory://"
RECEIPTS = ("--manifest-audit", "--manifest-receipts=r.jsonl")

Row = dict[str, object]


@pytest.fixture
def done(project: Project) -> Project:
    """A project whose four doubles d-0 ... d-3 have run and passed, and whose stack is gone."""
    project.doubles(count=4)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=4)
    return project


def receipts(project: Project) -> Path:
    """The exported receipts of the newest run, copied beside the manifest."""
    exported = project.ledgers()[-1].with_suffix(".receipts.jsonl")
    return project.write("r.jsonl", exported.read_text("utf-8"))


def edit(file: Path, how: Callable[[list[Row]], list[Row]]) -> None:
    rows: list[Row] = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in how(rows)), "utf-8")


# From the ledger


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_an_audit_of_a_finished_run_needs_no_stack(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """The same verdicts as the first time, also of what failed and was skipped; nothing runs."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1, "key": "good"}},
            {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no film", "key": "bad"}},
            {"id": "late", "task": "jobs.double", "args": [1, "late"], "after": ["bad"]},
            {"id": "nobody", "task": "jobs.nobody"},
        ],
    )
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=2, skipped=1)
    before = project.verdicts()
    result = project.run("--manifest=m.jsonl", "--manifest-audit", "-rs", *xdist)
    result.assert_outcomes(passed=1, failed=2, skipped=1)
    text = result.stdout.str()
    assert "no film" in text
    assert "it waits for 'bad', which did not pass (failed)" in text
    assert project.verdicts() == before
    assert project.ran() == {"good": 1, "bad": 1}
    assert len(project.ledgers()) == 1


@pytest.mark.live
@pytest.mark.ring(2)
def test_an_audit_after_the_embedded_stack_is_gone(project: Project) -> None:
    """The ledger holds every receipt, with the process that ran it."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=2)
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=2)
    assert project.ran() == {"d-0": 1, "d-1": 1}


def test_an_audit_judges_by_the_manifest_as_it_is_now(done: Project) -> None:
    """What is expected now decides; the run's own ledger stays as it is, and nothing runs.

    An entry whose job was changed, and one that is new, are errors: the run did not do that work.
    """
    (ledger,) = done.ledgers()
    before = ledger.read_bytes()
    done.doubles(count=5)
    change(done.path / "m.jsonl", "d-1", {"kwargs": {"n": 50, "key": "d-1"}})
    change(done.path / "m.jsonl", "d-2", {"expect": {"result": {"n": 5}}})
    result = done.run("--manifest=m.jsonl", "--manifest-audit")
    result.assert_outcomes(passed=2, failed=1, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*its job was changed (kwargs) since*a new run with --manifest-reuse does it*",
            "*result.n*5*4*",
            "*'d-4'*has no verdict: it was not part of the run*",
            "note: m.jsonl is not what run * was made of*",
        ]
    )
    assert ledger.read_bytes() == before
    assert set(done.verdicts().values()) == {"passed"}
    assert sum(done.ran().values()) == 4


def test_new_expectations_may_turn_red_into_green(project: Project) -> None:
    """What failed by a wrong expectation passes by the right one, and so does an expected error."""
    rows: list[Row] = [
        {"id": "odd", "task": "jobs.double", "args": [1], "expect": {"result": {"n": 3}}},
        {"id": "bad", "task": "jobs.fail", "args": ["no film"]},
    ]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=2)
    change(project.path / "m.jsonl", "odd", {"expect": {"result": {"n": 2}}})
    expect = {"state": "failed", "error": {"type": "ValueError", "match": "film"}}
    change(project.path / "m.jsonl", "bad", {"expect": expect})
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=2)
    assert set(project.verdicts().values()) == {"failed"}


@pytest.mark.ring(2)
def test_an_older_run_is_audited_by_its_name(project: Project) -> None:
    """--manifest-run picks the first of two runs, by its id or the beginning of that; an unknown
    one is refused."""
    broken = project.break_("a")
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.flaky", "args": ["a"]}])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1)
    (first,) = project.ledgers()
    broken.unlink()
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1)
    audit = ("--manifest=m.jsonl", "--manifest-audit")
    project.run(*audit).assert_outcomes(passed=1)
    for name in (first.stem, first.stem[:-2]):
        project.run(*audit, f"--manifest-run={name}").assert_outcomes(failed=1)
    refused = project.run(*audit, "--manifest-run=nobody")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"*there is no run nobody*{first.stem}*"])


@pytest.mark.ring(2)
def test_an_audit_of_a_run_whose_pytest_was_killed(project: Project) -> None:
    """What has its receipt passes; of the rest it is said what was sent and what never was.

    In groups, pending and unknown entries make an ERROR, and the text says which it is.
    """
    kill_in_the_middle(project)
    result = project.run("--manifest=m.jsonl", "--manifest-audit")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 1
    assert outcomes["errors"] == 4
    text = result.stdout.str()
    unsent = (
        "The job was not run (it was never sent: the run ended before its turn); send it "
        "with --manifest-resume"
    )
    assert text.count(unsent) >= 2
    assert "There is no receipt, and the private stack ended" in text
    assert "  to go on: pytest --manifest=m.jsonl --manifest-resume" in result.outlines
    assert project.verdicts()["n-0"] == "passed"

    groups = project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-aggregate=chunk:2")
    groups.assert_outcomes(errors=3)
    text = groups.stdout.str()
    assert "1 of 2 entries pending, 1 passed." in text
    assert "1 of 2 entries remained unknown, 1 pending." in text
    assert "1 of 1 entry remained unknown." in text


def test_an_audit_without_a_run_is_refused(project: Project) -> None:
    """There is nothing to judge, and the sentence says what to do."""
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", "--manifest-audit")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*there is no run of this manifest*dispatch it first*"])


# From exported receipts alone


@pytest.mark.ring(2)
def test_receipts_alone_are_enough(done: Project) -> None:
    """Without any ledger the exported receipts bring the same verdicts, and leave nothing."""
    receipts(done)
    for path in (done.path / ".manifest/runs").iterdir():
        path.unlink()
    done.run("--manifest=m.jsonl", *RECEIPTS).assert_outcomes(passed=4)
    assert sum(done.ran().values()) == 4
    assert not done.ledgers()


@pytest.mark.ring(2)
def test_receipts_are_believed_wherever_their_entries_stand_now(done: Project) -> None:
    """A manifest that was edited since still has the work that was done."""
    receipts(done)
    path = done.path / "m.jsonl"
    lines = path.read_text("utf-8").splitlines()
    new = '{"id": "new", "task": "jobs.double", "args": [1]}'
    for edited in ([new, *lines], lines[1:], lines[::-1]):
        path.write_text("".join(f"{line}\n" for line in edited), "utf-8")
        result = done.run("--manifest=m.jsonl", *RECEIPTS)
        errors = edited.count(new)
        result.assert_outcomes(passed=len(edited) - errors, errors=errors)


@pytest.mark.ring(2)
def test_receipts_that_were_tampered_with_are_not_believed(project: Project) -> None:
    """Each sentence names the lie, or that there is none; who was left alone passes.

    Of e-1 and e-2 the names were swapped, of e-3 and e-4 the contents under the names of their
    sendings; the result of e-5 was made to fit what is expected now, the receipt of e-6 is gone,
    that of e-0 stands there twice, and one is of an entry that the manifest does not have.
    """
    rows = [{"id": f"e-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(8)]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=8)
    change(project.path / "m.jsonl", "e-5", {"expect": {"result": {"n": 77}}})
    edit(receipts(project), tampered)
    result = project.run("--manifest=m.jsonl", *RECEIPTS, "-v")
    outcomes = result.parseoutcomes()
    assert outcomes.pop("passed") == 2
    assert sum(outcomes.values()) == 6
    text = result.stdout.str()
    said = text.partition("= manifest runs =")[0]
    assert said.count("The receipt cannot be trusted (it is of another task id") == 2
    assert said.count("cannot be trusted (the job ran with other arguments") == 2
    assert said.count("The receipt cannot be trusted (its result") == 1
    assert "so it was changed on its way" in said
    for n in range(1, 7):
        assert f"entry[e-{n}] PASSED" not in text
    result.stdout.fnmatch_lines_random(
        [
            "*entry[[]e-6] ERROR*",
            "*r.jsonl has no receipt of it*",
            "*1 receipts are of an attempt that has another one*",
            "*1 receipts are of entries that are not in the manifest*",
        ]
    )


def tampered(rows: list[Row]) -> list[Row]:
    names = ("entry", "task_id", "attempt", "run", "sent_at")
    swapped = {
        1: {**rows[1], "entry": "e-2"},
        2: {**rows[2], "entry": "e-1"},
        3: {**rows[4], **{name: rows[3][name] for name in names}},
        4: {**rows[3], **{name: rows[4][name] for name in names}},
        5: {**rows[5], "result": {"n": 77, "type": "number"}},
    }
    left = [swapped.get(n, row) for n, row in enumerate(rows) if n != 6]
    return [*left, rows[0], {**rows[7], "entry": "stranger"}]


@pytest.mark.ring(2)
def test_a_file_that_is_not_of_one_run_or_no_receipts_is_refused(done: Project) -> None:
    """The sentence names the file, and the line that is cut short."""
    first = receipts(done).read_text("utf-8")
    done.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=4)
    second = receipts(done).read_text("utf-8")
    for text, sentence in (
        (first + second, "*r.jsonl: holds receipts of several runs (*name the file of*"),
        (first[:-30], "*r.jsonl:4*"),
        (None, "*--manifest-receipts=*r.jsonl: there is no such file*"),
    ):
        (done.path / "r.jsonl").unlink()
        if text is not None:
            done.write("r.jsonl", text)
        result = done.run("--manifest=m.jsonl", *RECEIPTS)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([sentence])
        done.write("r.jsonl", "")


@pytest.mark.ring(2)
def test_receipts_alone_advise_no_resume(project: Project) -> None:
    """Of what ran for too long, and what was not sent: the run that they are of may be anywhere."""
    rows = [{"id": f"e-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(2)]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    late = {"state": "timed_out", "result": None, "result_sha256": None}
    edit(receipts(project), lambda found: [{**found[0], **late}])
    result = project.run("--manifest=m.jsonl", *RECEIPTS)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.no_fnmatch_line("*to go on: *")


@pytest.mark.ring(2)
def test_receipts_of_failed_jobs_and_second_attempts_are_judged_too(project: Project) -> None:
    """Exported receipts of a resumed run: the second attempt's receipt is the one that counts."""
    broken = project.break_("a")
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.flaky", "args": ["a"], "idempotent": True},
            {"id": "b", "task": "jobs.fail", "args": ["no luck", "b"]},
        ],
    )
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=2)
    broken.unlink()
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume").assert_outcomes(
        passed=1, failed=1
    )
    receipts(project)
    result = project.run("--manifest=m.jsonl", *RECEIPTS)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["The task raised ValueError: no luck*"])
