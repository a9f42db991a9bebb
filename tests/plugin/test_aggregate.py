"""``--manifest-aggregate``: one test for many entries."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from tests.plugin.allure_support import label, parameter, results
from tests.plugin.conftest import Project
from tests.plugin.ways import BOTH, xdist_in

MEMORY = "--manifest-broker=memory://"
BY_TWO, BY_TASK = "--manifest-aggregate=chunk:2", "--manifest-aggregate=task"


def batch(project: Project) -> None:
    """Six entries, a pair good, a pair of which one fails, a pair that depends on that."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good-0", "task": "jobs.double", "kwargs": {"n": 1, "key": "good-0"}},
            {"id": "good-1", "task": "jobs.double", "kwargs": {"n": 2, "key": "good-1"}},
            {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no film", "key": "bad"}},
            {"id": "good-2", "task": "jobs.double", "kwargs": {"n": 3, "key": "good-2"}},
            {"id": "late-0", "task": "jobs.double", "args": [1, "late-0"], "after": ["bad"]},
            {"id": "late-1", "task": "jobs.double", "args": [1, "late-1"], "after": ["good-2"]},
        ],
    )


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """What ``-v`` says of each test, without xdist's worker and percentage."""
    found: dict[str, str] = {}
    for line in result.stdout.lines:
        words = line.split()
        for name in (word for word in words if "::entr" in word):
            said = [word for word in words if word in ("PASSED", "FAILED", "ERROR", "SKIPPED")]
            if said and " - " not in line:
                found[name.partition("::")[2]] = said[0]
    return found


@pytest.mark.ring(2)
@pytest.mark.parametrize("xdist", BOTH)
def test_each_group_is_one_test(project: Project, xdist: tuple[str, ...]) -> None:
    """Every job runs once; a group passes, fails or is skipped by its entries; entries count."""
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TWO, "-v", "-rsf", *xdist)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert outcomes(result) == {
        "entries[00001-00002]": "PASSED",
        "entries[00003-00004]": "FAILED",
        "entries[00005-00006]": "SKIPPED",
    }
    result.stdout.fnmatch_lines(
        [
            "1 of 2 entries failed, 1 passed.",
            "By cause:",
            "  1  ValueError at jobs.py:* in fail",
            "     no film",
            "     bad",
            "The first ones:",
            "  bad  failed  The task raised ValueError: no film on *",
            "Read on:",
            "  every entry  .manifest/runs/*.summary.json, at the session's end",
            "  receipts     .manifest/runs/*.receipts.jsonl",
            "  one in full  pytest --manifest=m.jsonl --manifest-audit * 'm.jsonl::entry[[]bad[]]'",
        ]
    )
    result.stdout.fnmatch_lines(["m.jsonl: run *, 6 entries: 1 failed, 4 passed, 1 skipped"])
    result.stdout.fnmatch_lines(
        ["SKIPPED*m.jsonl:5: 1 of 2 entries held back, 1 passed; 'late-0': *"]
    )
    result.stdout.fnmatch_lines(
        ["FAILED m.jsonl::entries[[]00003-00004[]] - 1 of 2 entries failed, 1 passed*"]
    )
    ran = ["good-0", "good-1", "bad", "good-2", "late-1"]
    assert project.ran() == dict.fromkeys(ran, 1)
    summary = json.loads(project.ledgers()[-1].with_suffix(".summary.json").read_text("utf-8"))
    assert summary["statistics"]["outcomes"] == {"passed": 4, "failed": 1, "skipped": 1}


def test_what_a_failed_group_says_to_type_works(project: Project) -> None:
    """The command that shows one entry in full, as it is printed."""
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TWO)
    (line,) = [line for line in result.stdout.lines if "one in full" in line]
    command = line.split("pytest ")[1].replace("'", "").split()
    shown = project.run(*command)
    shown.assert_outcomes(failed=1)
    shown.stdout.fnmatch_lines(["*state*succeeded*failed", "*in fail", "*ValueError: no film"])


def test_a_selected_group_alone_is_dispatched(project: Project) -> None:
    """By its node id as it was typed, and by -k; nothing of other groups runs."""
    project.manifest(
        "m.jsonl",
        [
            {"id": f"{n}", "task": ("jobs.double", "jobs.größe")[n % 2], "args": [n]}
            for n in range(4)
        ],
    )
    node = "m.jsonl::entries[jobs.größe]"
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TASK, "-v", node)
    result.assert_outcomes(failed=1)
    assert list(outcomes(result)) == ["entries[jobs.größe]"]
    assert not project.ran()
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TASK, "-v", "-k", "double")
    result.assert_outcomes(passed=1)
    assert project.ran() == {"0": 1, "2": 1}


def test_the_last_failed_groups_are_run_again(project: Project) -> None:
    """--lf knows groups by their names, and sends only their entries."""
    broken = project.break_("f-2")
    project.manifest(
        "m.jsonl",
        [{"id": f"f-{n}", "task": "jobs.flaky", "kwargs": {"key": f"f-{n}"}} for n in range(4)],
    )
    project.run("--manifest=m.jsonl", MEMORY, BY_TWO).assert_outcomes(passed=1, failed=1)
    broken.unlink()
    project.run("--manifest=m.jsonl", MEMORY, BY_TWO, "--lf").assert_outcomes(passed=1)
    assert project.ran() == {"f-0": 1, "f-1": 1, "f-2": 2, "f-3": 2}


def test_resume_sends_what_has_not_passed_of_a_group(project: Project) -> None:
    """Of a failed group the entry that failed; the group then passes."""
    broken = project.break_("f-2")
    project.manifest(
        "m.jsonl",
        [
            {"id": f"f-{n}", "task": "jobs.flaky", "kwargs": {"key": f"f-{n}"}, "idempotent": True}
            for n in range(4)
        ],
    )
    project.run("--manifest=m.jsonl", MEMORY, BY_TWO).assert_outcomes(passed=1, failed=1)
    broken.unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TWO, "--manifest-resume")
    result.assert_outcomes(passed=2)
    assert project.ran() == {"f-0": 1, "f-1": 1, "f-2": 2, "f-3": 1}


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_a_group_is_judged_when_its_last_verdict_is_there(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """The others' tests run while a job of the first group is still running, and end it."""
    held = project.hold("h")
    rows: list[dict[str, object]] = [{"id": "h", "task": "jobs.hold", "args": ["h"]}]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(5)]
    rows[0]["after"] = ["d-4"]
    project.manifest("m.jsonl", rows)
    project.write(
        "conftest.py",
        f"""
from pathlib import Path

def pytest_runtest_logreport(report):
    if "entries[00001" not in report.nodeid and report.when == "teardown":
        Path({str(held)!r}).unlink(missing_ok=True)
""",
    )
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TWO, "-v", *xdist)
    result.assert_outcomes(passed=3)
    assert next(iter(outcomes(result))) != "entries[00001-00002]"
    assert project.verdicts()["h"] == "passed"


def test_stop_at_the_first_failed_group(project: Project) -> None:
    """-x sends nothing more, as of single entries."""
    project.manifest(
        "m.jsonl",
        [{"id": "bad", "task": "jobs.fail", "args": ["no luck"]}]
        + [{"id": f"n-{n}", "task": "jobs.nap", "args": [0.5, f"n-{n}"]} for n in range(20)],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-aggregate=chunk:1", "-x")
    result.assert_outcomes(failed=1)
    assert len(project.ran()) < 20


# Audits


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_an_audit_tells_of_groups_as_the_run_did(project: Project, xdist: tuple[str, ...]) -> None:
    """From the ledger, and from receipts alone, where what was held back has no receipt."""
    batch(project)
    project.run("--manifest=m.jsonl", MEMORY, BY_TWO)
    result = project.run("--manifest=m.jsonl", "--manifest-audit", BY_TWO, *xdist)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    project.ledgers()[-1].with_suffix(".receipts.jsonl").rename(project.path / "r.jsonl")
    for path in (project.path / ".manifest/runs").iterdir():
        path.unlink()
    receipts = ("--manifest-audit", "--manifest-receipts=r.jsonl", BY_TWO, "-v")
    result = project.run("--manifest=m.jsonl", *receipts, *xdist)
    assert outcomes(result) == {
        "entries[00001-00002]": "PASSED",
        "entries[00003-00004]": "FAILED",
        "entries[00005-00006]": "ERROR",
    }
    result.stdout.fnmatch_lines(
        ["1 of 2 entries remained unknown, 1 passed.", "*r.jsonl has no receipt of it*"]
    )


@pytest.mark.ring(2)
def test_new_entries_have_no_verdict_in_an_old_run(project: Project) -> None:
    """Their group is an error that says that they were not part of the run."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    project.doubles(count=3)
    result = project.run("--manifest=m.jsonl", "--manifest-audit", BY_TWO)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["  d-2  no verdict  It has no verdict: it was not part of *"])


@pytest.mark.ring(2)
def test_allure_has_one_result_a_group(project: Project) -> None:
    """What remained unknown is broken, and no failure; the history outlives the file's name."""
    batch(project)
    project.run("--manifest=m.jsonl", MEMORY)
    rows = (project.path / "m.jsonl").read_text("utf-8").splitlines()
    new = json.dumps({"id": "new", "task": "jobs.double", "args": [1]})
    project.write("m.jsonl", "\n".join([*rows, new]) + "\n")
    audit = ("--manifest-audit", BY_TWO, "--alluredir=allure-results")
    project.run("--manifest=m.jsonl", *audit)
    found = {parameter(one, "group"): one for one in results(project.path / "allure-results").all}
    assert {name: one["status"] for name, one in found.items()} == {
        "00001-00002": "passed",
        "00003-00004": "failed",
        "00005-00006": "skipped",
        "00007-00007": "broken",
    }
    failed = found["00003-00004"]
    assert "By cause:" in failed["statusDetails"]["message"]
    counts = {name: parameter(failed, name) for name in ("entries", "passed", "failed", "errors")}
    assert counts == {"entries": "2", "passed": "1", "failed": "1", "errors": "0"}
    assert label(failed, "parentSuite") == "m"
    assert len({one["historyId"] for one in found.values()}) == 4


# A workflow's own verification


VERIFY = """
def test_each(entry, receipt):
    assert receipt is not None

def test_all(manifest_run):
    assert len(manifest_run.settled) == 2
"""


def workflow(project: Project) -> None:
    """A manifest of a workflow that verifies its entries itself."""
    project.write("workflows/w/verify.py", VERIFY)
    rows = [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(2)]
    lines = [{"manifest": 1, "workflow": "w"}, *rows]
    project.write("m.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def test_a_verification_of_entries_does_not_go_with_groups(project: Project) -> None:
    """Nothing is sent, and the sentence says what can be done; that works."""
    workflow(project)
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TWO)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    advised = "pytest --manifest=m.jsonl --manifest-aggregate=chunk:2 m.jsonl"
    result.stderr.fnmatch_lines([f"*verify.py::test_each verifies each entry by itself*{advised}"])
    assert not project.ran()
    project.run(*advised.split()[1:], MEMORY).assert_outcomes(passed=1)
    assert sum(project.ran().values()) == 2


def test_a_verification_of_the_whole_run_goes_with_groups(project: Project) -> None:
    """It is named beside the manifest, and waits for all of it."""
    workflow(project)
    whole = "workflows/w/verify.py::test_all"
    result = project.run("--manifest=m.jsonl", MEMORY, BY_TASK, "m.jsonl", whole)
    result.assert_outcomes(passed=2)


# Reports


@pytest.mark.ring(2)
@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_junit_has_one_case_a_group(project: Project, family: str) -> None:
    """With the counts of its entries, and the time that its jobs ran."""
    batch(project)
    path = project.path / "report.xml"
    options = ("-o", f"junit_family={family}", f"--junitxml={path}")
    project.run("--manifest=m.jsonl", MEMORY, BY_TASK, *options)
    cases = {one.get("name"): one for one in ET.parse(path).getroot().iter("testcase")}
    assert set(cases) == {"entries[jobs.double]", "entries[jobs.fail]"}
    case = cases["entries[jobs.double]"]
    told = {one.get("name", ""): one.get("value", "") for one in case.iter("property")}
    counts = {"entries": "5", "passed": "4", "skipped": "1", "failed": "0", "errors": "0"}
    assert {name: told[f"manifest_{name}"] for name in counts} == counts
    assert told["manifest_outcome"] == "skipped"
    assert told["manifest_verdicts"] == "1 skipped"
    assert float(case.get("time", "")) == pytest.approx(float(told["manifest_runtime"]), abs=0.5)
