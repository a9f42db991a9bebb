"""Second attempts: what may be sent again is, what may not is not, and what kills is taken out."""

from __future__ import annotations

import pytest

from pytest_manifest.ledger import AttemptRow, Ledger
from tests.plugin.conftest import Project
from tests.plugin.ways import BOTH

pytestmark = pytest.mark.live


def attempts(project: Project, entry: str) -> list[AttemptRow]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return ledger.attempts.of_entry(entry)


def double(name: str) -> dict[str, object]:
    return {"id": name, "task": "jobs.double", "kwargs": {"n": 1, "key": name}}


@pytest.mark.ring(2)
def test_what_crashes_once_is_sent_again_where_that_does_no_harm(project: Project) -> None:
    """The idempotent entry passes at the second attempt; the other one fails at its first."""
    job = {"task": "jobs.die_once", "retries": 2}
    project.manifest(
        "m.jsonl",
        [
            {"id": "again", "kwargs": {"key": "again"}, "idempotent": True, **job},
            {"id": "once", "kwargs": {"key": "once"}, **job},
            double("plain"),
        ],
    )
    result = project.run("--manifest=m.jsonl")
    result.assert_outcomes(passed=2, failed=1)
    assert project.ran() == {"again": 2, "once": 1, "plain": 1}
    assert project.verdicts() == {"again": "passed", "once": "crashed", "plain": "passed"}
    first, second = attempts(project, "again")
    assert (first.status, first.reason) == ("crashed", None)
    assert (second.status, second.reason) == ("passed", "crashed")
    assert first.task_id != second.task_id
    assert len(attempts(project, "once")) == 1
    result.stdout.fnmatch_lines(["*further sendings: 1 crashed"])


@pytest.mark.ring(2)
@pytest.mark.parametrize("xdist", BOTH)
def test_an_entry_that_crashes_at_all_attempts_tells_of_each(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """It fails after one attempt and its retry, and its text has a line for each of them."""
    row = {"id": "bad", "task": "jobs.die", "args": ["bad"], "idempotent": True, "retries": 1}
    project.manifest("m.jsonl", [row, double("good")])
    result = project.run(
        "--manifest=m.jsonl", "--override-ini=manifest_kills=9", "--junitxml=j.xml", *xdist
    )
    result.assert_outcomes(passed=1, failed=1)
    assert project.ran() == {"bad": 2, "good": 1}
    assert [row.status for row in attempts(project, "bad")] == ["crashed"] * 2
    result.stdout.fnmatch_lines(
        [
            "Attempts:",
            "  1  crashed  The process that ran the task*",
            "  2  crashed  sent again (crashed): The process that ran the task*",
        ],
    )
    junit = (project.path / "j.xml").read_text("utf-8")
    assert 'name="manifest_attempts" value="2"' in junit


RETRIES = """
import os, signal
from pathlib import Path
from celery.signals import before_task_publish, task_retry, worker_process_init
from jobs import app, count

def die(**_):
    marker = Path(__file__).with_name("died")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

@worker_process_init.connect
def connect(**_):
    MOMENT.connect(die, weak=False)

@app.task(name="retries.patient", bind=True)
def patient(self, key):
    count(key)
    if not self.request.retries:
        raise self.retry(countdown=3)
    return {"key": key}
"""


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_is_killed_as_it_had_asked_for_its_retry_goes_on(
    project: Project, *, idempotent: bool
) -> None:
    """Its next run is waited for: another attempt beside it would be a second job for one entry."""
    patient(project, "task_retry", idempotent=idempotent).assert_outcomes(passed=1)
    assert (project.ran(), len(attempts(project, "a"))) == ({"a": 2}, 1)


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_is_killed_before_the_message_of_its_retry_is_out_has_crashed(
    project: Project, *, idempotent: bool
) -> None:
    """No message of it is found, and the result store goes on telling of its end."""
    done = patient(project, "before_task_publish", idempotent=idempotent)
    done.assert_outcomes(passed=idempotent, failed=not idempotent)
    assert [one.status for one in attempts(project, "a")] == ["crashed", "passed"][: 1 + idempotent]
    assert project.ran() == {"a": 3 if idempotent else 1}


def patient(project: Project, moment: str, *, idempotent: bool) -> pytest.RunResult:
    """Run a task that asks for a retry, the process of which is killed at this signal."""
    project.write("retries.py", RETRIES.replace("MOMENT", moment))
    row = {"task": "retries.patient", "retries": 1, "idempotent": idempotent}
    project.manifest("m.jsonl", [{"id": "a", "kwargs": {"key": "a"}, **row}])
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", ini.replace("jobs:app", "retries:app"))
    return project.run("--manifest=m.jsonl")


def test_a_task_that_fails_is_not_sent_again(project: Project) -> None:
    """An error that the task raised is its answer: retries are for what crashed or got lost."""
    row = {"id": "bad", "task": "jobs.fail", "args": ["no", "bad"]}
    project.manifest("m.jsonl", [{**row, "idempotent": True, "retries": 3}])
    project.run("--manifest=m.jsonl", "--manifest-broker=memory://").assert_outcomes(failed=1)
    assert project.ran() == {"bad": 1}


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    "poison",
    [
        {"task": "jobs.die", "idempotent": True, "retries": 5},
        {"task": "jobs.die_late", "expect": {"executions": 9}},
    ],
    ids=["early-ack", "late-ack"],
)
def test_what_kills_its_worker_again_and_again_is_quarantined(
    project: Project, poison: dict[str, object]
) -> None:
    """After two deaths it is taken out, whoever sent it the second time; the others pass."""
    rows = [{"id": "poison", "args": ["poison"], **poison}, *(double(f"d-{n}") for n in range(6))]
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", "--override-ini=manifest_kills=2")
    result.assert_outcomes(passed=6, failed=1)
    assert project.verdicts()["poison"] == "quarantined"
    # Between the second death and the revocation the broker may hand it out again, on a busy
    # machine more than once; but not as often as it would have run without the quarantine.
    assert 2 <= project.ran()["poison"] < 6
    result.stdout.fnmatch_lines(["*killed its worker again and again (2 processes died of it*"])


@pytest.mark.ring(2)
def test_how_many_deaths_quarantine_is_an_ini_option(project: Project) -> None:
    """manifest_kills = 1 takes an entry out at its first death, whatever its retries."""
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", f"{ini}manifest_kills = 1\n")
    row = {"id": "bad", "task": "jobs.die", "args": ["bad"], "idempotent": True, "retries": 5}
    project.manifest("m.jsonl", [row])
    project.run("--manifest=m.jsonl").assert_outcomes(failed=1)
    assert project.ran() == {"bad": 1}
    assert project.verdicts() == {"bad": "quarantined"}


@pytest.mark.ring(2)
def test_no_resume_sends_what_is_quarantined_unless_one_insists(project: Project) -> None:
    """Though it is idempotent: it would kill another worker."""
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", f"{ini}manifest_kills = 1\n")
    rows = [{"id": "bad", "task": "jobs.die", "args": ["bad"], "idempotent": True}, double("d-1")]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl").assert_outcomes(failed=1, passed=1)
    resumed = project.run("--manifest=m.jsonl", "--manifest-resume")
    assert resumed.ret == pytest.ExitCode.TESTS_FAILED
    resumed.stdout.fnmatch_lines(
        [
            "*leaves 'bad': quarantined; it killed its worker too often*",
            "*a resume sends nothing: 'bad' killed its worker too often*",
            "*to run *: pytest --manifest=m.jsonl --manifest-resume=unsafe*",
        ]
    )
    assert project.ran()["bad"] == 1
    project.run("--manifest=m.jsonl", "--manifest-resume=unsafe").assert_outcomes(
        failed=1, passed=1
    )
    assert project.ran() == {"bad": 2, "d-1": 1}
