"""``manifest triage``: what is open, accepted, sent again and approved, by sessions of pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from scripts.schemas import FOLDER
from tests.plugin.conftest import Project

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
QUICK = ("-p", "no:cacheprovider", "--manifest-broker=memory://", "--manifest=m.jsonl")
REASON = ("--reason=the sandbox is down", "--until=14d")


def triage(project: Project, *arguments: str, status: int = 0) -> str:
    """What the command prints; it ends with this status."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_manifest", "triage", *arguments],
        cwd=project.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def listed(project: Project) -> dict[str, Any]:
    """The list for programs, which its schema accepts."""
    found: dict[str, Any] = json.loads(triage(project, "--json"))
    schema = json.loads((FOLDER / "triage.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(found)
    return found


def batch(project: Project) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "task": "jobs.double", "kwargs": {"n": 1}},
        {"id": "b", "task": "jobs.fail", "kwargs": {"message": "b"}, "idempotent": True},
        {"id": "c", "task": "jobs.fail", "kwargs": {"message": "c"}, "meta": {"owner": "ann"}},
    ]
    project.manifest("m.jsonl", rows)


def test_what_is_open_is_accepted_and_then_known(project: Project) -> None:
    """The list, the file that it is written into, and the run that goes by it."""
    batch(project)
    project.run(*QUICK)
    first = project.ledgers()[0].stem
    project.run(*QUICK, "--manifest-rerun")
    (cause,) = listed(project)["causes"]
    assert cause["entries"] == ["b", "c"]
    assert (cause["first_run"], cause["owners"]) == (first, ["ann"])
    assert (cause["safe_to_run_again"], cause["accepted"]) == (1, 0)
    shown = triage(project)
    assert "ValueError at jobs.py:" in shown
    assert "1 of 2" in shown
    said = triage(project, "accept", "b", *REASON, "--issue=SHOP-12")
    day = datetime.now(timezone.utc).date() + timedelta(days=14)
    assert f"dispositions.toml accepts 1 entry until {day}" in said
    text = (project.path / "dispositions.toml").read_text("utf-8")
    assert text == (
        '[[accept]]\nentry = "b"\ncause = "ValueError at jobs.py:* in fail"\n'
        f'reason = "the sandbox is down"\nissue = "SHOP-12"\nuntil = {day}\n'
    )
    triage(project, "accept", "--cause=ValueError at *", *REASON)
    done = project.run(*QUICK, "--manifest-rerun")
    done.assert_outcomes(passed=1, xfailed=2)
    (cause,) = listed(project)["causes"]
    assert (cause["entries"], cause["accepted"]) == (["b", "c"], 2)
    assert cause["accepted_until"] == str(day)
    assert cause["cause"].startswith("ValueError at jobs.py:")


def test_a_run_is_approved_and_the_gate_goes_by_it(project: Project) -> None:
    batch(project)
    project.run(*QUICK)
    run = project.ledgers()[0].stem
    said = triage(project, "approve", "last")
    assert said == f"run {run}: 1 passed, 2 not; wrote {project.path / 'm.baseline.json'}\n"
    schema = json.loads((FOLDER / "baseline.schema.json").read_text("utf-8"))
    found = json.loads((project.path / "m.baseline.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(found)
    assert found["not_passed"] == ["b", "c"]
    done = project.run(*QUICK, "--manifest-rerun", "--manifest-gate=no-new")
    done.assert_outcomes(passed=1, xfailed=2)
    assert done.ret == pytest.ExitCode.OK


@LATER
def test_an_approved_run_has_what_it_passed_whatever_is_accepted(project: Project) -> None:
    batch(project)
    project.run(*QUICK)
    triage(project, "accept", "b", *REASON)
    triage(project, "approve", "last")
    found = json.loads((project.path / "m.baseline.json").read_text("utf-8"))
    assert found["not_passed"] == ["b", "c"]


def test_what_is_open_is_sent_again_by_its_run(project: Project) -> None:
    """What may run twice is left, unless it is asked for; a resume sends what was ordered."""
    batch(project)
    project.run_process(*QUICK)
    said = triage(project, "requeue", "--cause=ValueError at *", "--dry-run")
    assert "1 entry would be sent again; left: 'c': it may have run and is not idempotent" in said
    run = project.ledgers()[0].stem
    kept = f"kept for pytest --manifest=m.jsonl --manifest-resume --manifest-run={run}"
    assert kept in triage(project, "requeue", "b", "--reason=again")
    (cause,) = listed(project)["causes"]
    assert cause["entries"] == ["b", "c"]


@LATER
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accept", "b"), "add --reason TEXT and --until DAY"),
        (("accept", "b", "--reason=x", "--until=soon"), "--until=soon: write a day"),
        (("accept", "b", "--reason=x", "--until=2020-01-01"), "that day is over"),
        (("accept", "a", *REASON), "entry 'a' is not open"),
        (("accept", *REASON), "name entries, or choose them by --cause"),
        (("accept", "--cause=Nothing*", *REASON), "nothing is open by it"),
        (("approve", "20200101"), "20200101"),
    ],
)
def test_what_cannot_be_done_is_said(
    project: Project, arguments: tuple[str, ...], said: str
) -> None:
    batch(project)
    project.run(*QUICK)
    assert said in triage(project, *arguments, status=2)
    assert not (project.path / "dispositions.toml").exists()


@LATER
def test_only_a_whole_run_is_approved(project: Project) -> None:
    batch(project)
    project.run(*QUICK, "m.jsonl::entry[a]")
    said = triage(project, "approve", "last", status=2)
    assert "is of 1 of 3 entries; approve one of all" in said


@LATER
def test_without_a_run_it_is_not_known_what_is_open(project: Project) -> None:
    """Nor of a manifest that has none: its name may be misspelt."""
    assert "there is no run in" in triage(project, status=2)
    assert "nosuch.jsonl: there is no run of it in" in triage(
        project, "--manifest=nosuch.jsonl", status=2
    )
