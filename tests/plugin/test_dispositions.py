"""``dispositions.toml`` and ``--manifest-gate``: known failures are xfails, with their reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_manifest.analysis.dispositions import baseline_file, baseline_of
from pytest_manifest.manifest import read_manifest
from pytest_manifest.schema.run_digest import RunDigest
from tests.plugin.conftest import Project

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
QUICK = ("-p", "no:cacheprovider", "--manifest-broker=memory://", "--manifest=m.jsonl", "-rxX")
REASON = "the sandbox is down"
NOW = datetime.now(timezone.utc).date()
SOON, GONE = NOW + timedelta(days=9), NOW - timedelta(days=1)


def accept(project: Project, *tables: tuple[str, object], until: object = SOON) -> None:
    """Accept by these fields, a table for each."""
    text = "".join(
        f'[[accept]]\n{name} = "{value}"\nreason = "{REASON}"\nissue = "SHOP-12"\nuntil = {until}\n'
        for name, value in tables
    )
    project.write("dispositions.toml", text)


def batch(project: Project, *, passing: Iterable[str] = ("a",)) -> None:
    """Jobs that pass, and two whose error is the same."""
    rows: list[dict[str, object]] = [
        {"id": name, "task": "jobs.double", "kwargs": {"n": 1}} for name in passing
    ]
    rows += [{"id": name, "task": "jobs.fail", "kwargs": {"message": name}} for name in ("b", "c")]
    project.manifest("m.jsonl", rows)


def digest(project: Project) -> RunDigest:
    path = project.ledgers()[-1].with_suffix(".digest.json")
    return RunDigest.model_validate_json(path.read_bytes())


def test_an_accepted_failure_is_an_xfail_with_its_reason_in_every_report(
    project: Project,
) -> None:
    """Terminal, JUnit, Allure, page, summary, Markdown; the digest has what happened."""
    batch(project)
    accept(project, ("entry", "b"), ("cause", "ValueError at *"))
    done = project.run_process(
        *QUICK,
        "--junitxml=j.xml",
        "--alluredir=allure",
        "--manifest-report=r.html",
        "--manifest-report=r.md",
        "--manifest-report=r.json",
    )
    done.assert_outcomes(passed=1, xfailed=2)
    assert done.ret == pytest.ExitCode.OK
    by = f"accepted until {SOON} (dispositions.toml:1, SHOP-12): {REASON}"
    done.stdout.fnmatch_lines(
        [
            "m.jsonl: run *, 3 entries: 2 failed, 1 passed (2 accepted)",
            f"  1 {by} (such as b)",
            f"XFAIL m.jsonl::entry[[]b] - {by}. The task raised ValueError: b*",
            "*= m.jsonl: 2 failed, 1 passed, 2 of these accepted of 3 entries =*",
        ]
    )
    assert "pytest.xfail" in (junit := (project.path / "j.xml").read_text("utf-8"))
    assert by in junit
    results = [json.loads(one.read_text()) for one in project.path.glob("allure/*-result.json")]
    shown = {one["name"]: one for one in results}
    found = next(one for name, one in shown.items() if "b" in name)
    assert found["status"] == "skipped"
    assert REASON in found["statusDetails"]["message"]
    page = (project.path / "r.html").read_text("utf-8")
    assert "failed-accepted" in page
    assert REASON in page
    summary = json.loads((project.path / "r.json").read_text("utf-8"))
    assert [one["count"] for one in summary["accepted"]] == [1, 1]
    assert summary["statistics"]["outcomes"] == {"passed": 1, "skipped": 2}
    assert summary["statistics"]["causes"] == []
    assert summary["failed"] == []
    assert REASON in summary["unfinished"][0]["sentence"]
    markdown = (project.path / "r.md").read_text("utf-8")
    assert "#### Accepted failures" in markdown
    assert REASON in markdown
    assert digest(project).outcomes == {"passed": 1, "failed": 2}
    assert [one.bad for one in digest(project).tasks] == [0, 2]
    (cause,) = digest(project).causes
    assert (cause.error, cause.count) == ("ValueError", 2)


@pytest.mark.ring(2)
def test_under_xdist_it_is_the_same(project: Project) -> None:
    batch(project)
    accept(project, ("entry", "b"))
    done = project.run_process("-n2", *QUICK)
    done.assert_outcomes(passed=1, xfailed=1, failed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["XFAIL m.jsonl::entry[[]b]*the sandbox is down*"])


def test_one_that_is_over_fails_and_says_so(project: Project) -> None:
    batch(project)
    accept(project, ("entry", "b"), ("entry", "c"), until=GONE)
    done = project.run(*QUICK)
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            f"  Accepted until {GONE} (dispositions.toml:1, SHOP-12): {REASON}; that is over.",
            f"  dispositions.toml:1: accepted until {GONE}, which is over, so it fails again",
        ]
    )


def test_one_whose_entries_pass_is_reported(project: Project) -> None:
    batch(project, passing=("a", "a-2"))
    accept(project, ("entry", "a*"), ("entry", "b"))
    done = project.run(*QUICK, "--manifest-report=r.json")
    said = "dispositions.toml:1: 'a' and 1 more passed, so it is not needed any more; take it out"
    done.stdout.fnmatch_lines([f"  {said}"])
    summary = json.loads((project.path / "r.json").read_text("utf-8"))
    assert said in summary["run"]["findings"]
    assert done.ret == pytest.ExitCode.TESTS_FAILED  # c


@pytest.mark.parametrize("how", ["after", "canary"])
def test_what_never_ran_is_not_accepted(project: Project, how: str) -> None:
    """Else an accepted failure at the beginning would make a green session of an empty night."""
    rows: list[dict[str, object]] = [
        {"id": "b", "task": "jobs.fail", "kwargs": {"message": "b"}},
        {"id": "later", "task": "jobs.double", "kwargs": {"n": 1}},
    ]
    if how == "after":
        rows[1]["after"] = ["b"]
    project.manifest("m.jsonl", rows)
    accept(project, ("entry", "b"))
    more = ["--manifest-canary=1"] if how == "canary" else []
    done = project.run(*QUICK, *more)
    done.assert_outcomes(xfailed=1, skipped=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        ["  1 entry held back in a run whose failures are accepted, so this session fails: *"]
    )


@LATER
def test_a_file_that_is_wrong_sends_nothing(project: Project) -> None:
    batch(project)
    project.write("dispositions.toml", "\n[[accept]]\nentry = 'b'\nreason = 'r'\n")
    done = project.run(*QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*dispositions.toml:2: it has no day until which it is accepted*"])
    assert project.ledgers() == []


@LATER
def test_runxfail_accepts_nothing(project: Project) -> None:
    batch(project)
    accept(project, ("entry", "b"))
    done = project.run(*QUICK, "--runxfail", "--manifest-report=r.json")
    done.assert_outcomes(passed=1, failed=2)
    summary = json.loads((project.path / "r.json").read_text("utf-8"))
    assert summary["accepted"] == []


@LATER
def test_tests_of_the_users_own_are_xfails_too(project: Project) -> None:
    """By the verdict of their entry; what they find themselves is not accepted by that."""
    batch(project)
    accept(project, ("entry", "b"), ("entry", "a"))
    project.write(
        "test_user.py",
        "import pytest\n"
        "pytestmark = pytest.mark.manifest('m.jsonl')\n"
        "def test_receipt(receipt):\n"
        "    assert receipt.state == 'failed'\n",
    )
    done = project.run(*QUICK, "test_user.py")
    done.assert_outcomes(failed=2, xfailed=1)  # a by its test, c by its verdict
    done.stdout.fnmatch_lines(["XFAIL test_user.py::test_receipt[[]b]*"])


@LATER
def test_a_group_whose_failures_are_all_accepted_is_an_xfail(project: Project) -> None:
    batch(project)
    accept(project, ("entry", "b"))
    one = project.run(*QUICK, "--manifest-aggregate=task")
    one.assert_outcomes(passed=1, failed=1)
    accept(project, ("entry", "b"), ("entry", "c"))
    both = project.run(*QUICK, "--manifest-aggregate=task", "--manifest-rerun")
    both.assert_outcomes(passed=1, xfailed=1)
    both.stdout.fnmatch_lines(["XFAIL *2 of 2 entries accepted; accepted *"])


@LATER
def test_an_audit_goes_by_what_is_accepted_today(project: Project) -> None:
    batch(project)
    assert project.run(*QUICK).ret == pytest.ExitCode.TESTS_FAILED
    accept(project, ("cause", "ValueError at *"))
    audit = project.run(*QUICK, "--manifest-audit")
    audit.assert_outcomes(passed=1, xfailed=2)
    accept(project, ("cause", "ValueError at *"), until=GONE)
    project.run(*QUICK, "--manifest-audit").assert_outcomes(passed=1, failed=2)


def approve(project: Project, **passed: bool) -> Path:
    """Approve a baseline by hand; ``manifest triage approve`` makes it of a run."""
    manifest = read_manifest(project.path / "m.jsonl")
    some = [(one, passed[one.id]) for one in manifest if one.id in passed]
    made = baseline_of("m.jsonl", "r1", datetime.now(timezone.utc), some, "ann")
    path = baseline_file(project.path / "m.jsonl")
    path.write_text(made.model_dump_json(), "utf-8")
    return path


def test_the_gate_fails_only_for_what_the_baseline_had_passed(project: Project) -> None:
    batch(project)
    approve(project, a=True, b=False, c=True)
    done = project.run_process("-n2", *QUICK, "--manifest-gate=no-new")
    done.assert_outcomes(passed=1, xfailed=1, failed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        ["XFAIL m.jsonl::entry[[]b] - no new failure: the approved run r1 had not passed it*"]
    )
    approve(project, a=True, b=False, c=False)
    again = project.run(*QUICK, "--manifest-gate=no-new", "--manifest-rerun")
    again.assert_outcomes(passed=1, xfailed=2)
    assert again.ret == pytest.ExitCode.OK


@LATER
def test_a_gate_without_a_baseline_sends_nothing(project: Project) -> None:
    batch(project)
    done = project.run(*QUICK, "--manifest-gate=no-new")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*m.baseline.json: there is no approved baseline*"])
    assert project.ledgers() == []
