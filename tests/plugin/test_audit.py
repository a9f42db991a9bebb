"""``--manifest-audit``: an earlier run is judged again, by today's manifest; nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.plugin.conftest import Project, kill_in_the_middle
from tests.plugin.ways import XDIST_LATER

MEMORY = "--manifest-broker=memory://"

Row = dict[str, object]


def change(manifest: Path, entry: str, fields: Mapping[str, object]) -> None:
    """Replace fields of one entry, where it stands in the file."""
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    for row in rows:
        if row.get("id") == entry:
            row.update(fields)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


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


@pytest.mark.parametrize("xdist", XDIST_LATER)
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


def test_new_expectations_bring_new_verdicts(done: Project) -> None:
    """One fails by what the manifest says now; the run's own ledger stays as it is."""
    (ledger,) = done.ledgers()
    before = ledger.read_bytes()
    change(done.path / "m.jsonl", "d-2", {"expect": {"result": {"n": 5}}})
    result = done.run("--manifest=m.jsonl", "--manifest-audit")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*result.n*5*4*"])
    result.stdout.fnmatch_lines(["note: m.jsonl is not what run * was made of*"])
    assert ledger.read_bytes() == before
    assert set(done.verdicts().values()) == {"passed"}
    assert sum(done.ran().values()) == 4


def test_new_expectations_may_turn_red_into_green(project: Project) -> None:
    """What failed by a wrong expectation passes by the right one."""
    project.doubles(count=2)
    change(project.path / "m.jsonl", "d-1", {"expect": {"result": {"n": 3}}})
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1, failed=1)
    change(project.path / "m.jsonl", "d-1", {"expect": {"result": {"n": 2}}})
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=2)
    assert project.verdicts()["d-1"] == "failed"


def test_a_failure_that_is_expected_now_passes(project: Project) -> None:
    """A receipt of an error is held against the new expected state and error."""
    row = {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no film", "key": "bad"}}
    project.manifest("m.jsonl", [row])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1)
    expect = {"state": "failed", "error": {"type": "ValueError", "match": "film"}}
    change(project.path / "m.jsonl", "bad", {"expect": expect})
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=1)


def test_a_receipt_of_other_work_says_nothing(done: Project) -> None:
    """An entry whose arguments were changed is an error: the run did not do this work."""
    change(done.path / "m.jsonl", "d-1", {"kwargs": {"n": 50, "key": "d-1"}})
    result = done.run("--manifest=m.jsonl", "--manifest-audit")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*its job was changed (kwargs) since*--manifest-resume-changed runs it*"]
    )
    assert set(done.verdicts().values()) == {"passed"}


def test_a_new_entry_has_no_verdict_in_an_old_run(done: Project) -> None:
    """What was added since is an error that says that it was not part of the run."""
    done.doubles(count=5)
    result = done.run("--manifest=m.jsonl", "--manifest-audit")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*'d-4'*has no verdict: it was not part of the run*"])


def test_an_older_run_is_audited_by_its_name(project: Project) -> None:
    """--manifest-run picks the first of two runs; an unknown name is refused."""
    broken = project.break_("a")
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.flaky", "args": ["a"]}])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1)
    (first,) = project.ledgers()
    broken.unlink()
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1)
    audit = ("--manifest=m.jsonl", "--manifest-audit")
    project.run(*audit).assert_outcomes(passed=1)
    project.run(*audit, f"--manifest-run={first.stem}").assert_outcomes(failed=1)
    refused = project.run(*audit, "--manifest-run=nobody")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"*there is no run nobody*{first.stem}*"])


def test_an_audit_of_a_run_whose_pytest_was_killed(project: Project) -> None:
    """What has its receipt passes; of the rest it is said what was sent and what never was."""
    kill_in_the_middle(project)
    result = project.run("--manifest=m.jsonl", "--manifest-audit")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 1
    assert outcomes["errors"] == 4
    text = result.stdout.str()
    assert "it was never sent: the run ended before its turn" in text
    assert "There is no receipt yet" in text
    assert "  to go on: pytest --manifest=m.jsonl --manifest-resume" in result.outlines
    assert project.verdicts()["n-0"] == "passed"


def test_an_audit_without_a_run_is_refused(project: Project) -> None:
    """There is nothing to judge, and the sentence says what to do."""
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", "--manifest-audit")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*there is no run of this manifest*dispatch it first*"])


# From exported receipts alone


def test_receipts_alone_are_enough(done: Project) -> None:
    """Without any ledger the exported receipts bring the same verdicts, and leave nothing."""
    receipts(done)
    for path in (done.path / ".manifest/runs").iterdir():
        path.unlink()
    options = ("--manifest-audit", "--manifest-receipts=r.jsonl")
    done.run("--manifest=m.jsonl", *options).assert_outcomes(passed=4)
    assert sum(done.ran().values()) == 4
    assert not done.ledgers()


@pytest.mark.parametrize("edited", ["one in front", "first gone", "turned round"])
def test_receipts_are_believed_wherever_their_entries_stand_now(done: Project, edited: str) -> None:
    """A manifest that was edited since still has the work that was done."""
    path = done.path / "m.jsonl"
    lines = path.read_text("utf-8").splitlines()
    if edited == "one in front":
        lines.insert(0, '{"id": "new", "task": "jobs.double", "args": [1]}')
    elif edited == "first gone":
        del lines[0]
    else:
        lines.reverse()
    receipts(done)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    result = done.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl")
    new = int(edited == "one in front")
    result.assert_outcomes(passed=len(lines) - new, errors=new)


def audited(project: Project, how: Callable[[list[Row]], list[Row]]) -> pytest.RunResult:
    edit(receipts(project), how)
    return project.run(
        "--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl", "-v"
    )


def test_a_receipt_that_is_missing_is_an_error(done: Project) -> None:
    """The one entry whose receipt was dropped is not known; the others pass."""
    result = audited(done, lambda rows: [r for r in rows if r["entry"] != "d-2"])
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*entry[[]d-2] ERROR*", "*r.jsonl has no receipt of it*"])


def test_receipts_swapped_between_two_entries_are_not_believed(done: Project) -> None:
    """Exactly the two are red, and the sentence names the lie."""

    def swap(rows: list[Row]) -> list[Row]:
        names = {"d-1": "d-2", "d-2": "d-1"}
        return [{**r, "entry": names.get(str(r["entry"]), r["entry"])} for r in rows]

    result = audited(done, swap)
    outcomes = result.parseoutcomes()
    assert outcomes.pop("passed") == 2
    assert sum(outcomes.values()) == 2
    text = result.stdout.str()
    said = text.partition("= manifest runs =")[0]
    assert said.count("The receipt cannot be trusted (it is of another task id") == 2
    for name in ("d-1", "d-2"):
        assert f"entry[{name}] PASSED" not in text


def test_bodies_swapped_between_two_entries_are_not_believed(done: Project) -> None:
    """What keeps the names of the sending and carries another job's content is told by digests."""

    def swap(rows: list[Row]) -> list[Row]:
        names = ("entry", "task_id", "attempt", "run", "sent_at")
        first, second = rows[1], rows[2]
        rows[1] = {**second, **{name: first[name] for name in names}}
        rows[2] = {**first, **{name: second[name] for name in names}}
        return rows

    result = audited(done, swap)
    said = result.stdout.str().partition("= manifest runs =")[0]
    assert result.parseoutcomes()["passed"] == 2
    assert said.count("cannot be trusted (the job ran with other arguments") == 2


def test_an_edited_result_is_not_believed(done: Project) -> None:
    """A result that was made to fit the expectation is not the one that the worker signed."""
    change(done.path / "m.jsonl", "d-3", {"expect": {"result": {"n": 77}}})

    def forge(rows: list[Row]) -> list[Row]:
        rows[3]["result"] = {"n": 77, "type": "number"}
        return rows

    result = audited(done, forge)
    assert result.parseoutcomes()["passed"] == 3
    text = result.stdout.str()
    assert "The receipt cannot be trusted (its result" in text
    assert "so it was changed on its way" in text
    assert "entry[d-3] PASSED" not in text


def test_receipts_of_two_runs_are_refused(done: Project) -> None:
    """One file is to be of one run."""
    first = receipts(done).read_text("utf-8")
    done.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=4)
    second = receipts(done).read_text("utf-8")
    done.write("r.jsonl", first + second)
    result = done.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*r.jsonl: holds receipts of several runs (*give the receipts of*"]
    )


def test_a_receipt_that_is_there_twice_is_said_so(done: Project) -> None:
    """A doubled line changes no verdict, and a note tells of it; so of a stranger's."""

    def double(rows: list[Row]) -> list[Row]:
        return [*rows, rows[0], {**rows[1], "entry": "stranger"}]

    result = audited(done, double)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*1 receipts are of an attempt that has another one*",
            "*1 receipts are of entries that are not in the manifest*",
        ]
    )


def test_a_file_that_is_no_receipts_is_refused(done: Project) -> None:
    """A line that is cut short is named with its number."""
    path = receipts(done)
    path.write_text(path.read_text("utf-8")[:-30], "utf-8")
    result = done.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*r.jsonl:4*"])


def test_a_missing_file_of_receipts_is_refused(done: Project) -> None:
    """The sentence names the file."""
    result = done.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=nowhere.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*nowhere.jsonl: there is no such file of receipts"])


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
    result = project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["The task raised ValueError: no luck*"])
