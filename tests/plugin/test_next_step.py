"""The command by which a run goes on: one that gets its entries further, and none that loops."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping

import pytest
import redis

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.facts import HandedOn
from tests.plugin.conftest import INI, Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.support import eventually
from tests.unit.cli_support import as_json

MEMORY = "--manifest-broker=memory://"
UNSAFE = "to run them again: pytest --manifest=m.jsonl --manifest-resume=unsafe"


def fail(key: str, **more: object) -> dict[str, object]:
    return {"id": key, "task": "jobs.fail", "args": ["no luck", key], **more}


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_resume_that_would_send_nothing_is_not_named(
    project: Project, quiet: tuple[str, ...]
) -> None:
    """What failed may have run and is not idempotent, and what waits for it is blocked: the hint
    says so, also with -q, and names what sends it."""
    after = {"id": "then", "task": "jobs.double", "args": [1, "then"], "after": ["f"]}
    project.manifest("m.jsonl", [fail("f"), after])
    for options in ((), ("--manifest-resume",)):
        result = project.run("--manifest=m.jsonl", MEMORY, *options, *quiet)
        lines = [line.strip() for line in result.outlines]
        assert "a resume sends nothing: 'f' may have run and is not idempotent" in lines
        assert f"{UNSAFE} {MEMORY}" in lines
        assert not any(line.startswith("to go on:") for line in lines)
    assert project.ran() == {"f": 1}
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume=unsafe")
    assert project.ran() == {"f": 2}


def test_a_resume_of_one_that_failed_names_a_new_run(project: Project) -> None:
    """Nothing waits for it, so the failed ones alone may be sent anew."""
    project.manifest("m.jsonl", [fail("f"), {"id": "a", "task": "jobs.double", "args": [1, "a"]}])
    first = project.run("--manifest=m.jsonl", MEMORY)
    assert "a resume sends nothing" not in first.stdout.str(), "nobody has asked to resume"
    again = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "-q")
    again.stdout.fnmatch_lines(["  or as a new run: pytest --manifest=m.jsonl --lf *"])
    project.run("--manifest=m.jsonl", MEMORY, "--lf").assert_outcomes(failed=1)
    assert project.ran() == {"f": 2, "a": 1}


LATER = """

@app.task(name="jobs.later", bind=True)
def later(self, key):
    count(key)
    raise self.retry(countdown=600)
"""


@pytest.mark.live
def test_what_was_taken_back_between_tries_is_not_offered_by_last_failed(project: Project) -> None:
    """Its test was skipped, so pytest has no failed one: the command would run all again."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + LATER)
    project.manifest("m.jsonl", [{"id": "p", "task": "jobs.later", "args": ["p"]}])
    with pytest_beside(project, "--manifest=m.jsonl") as session:
        eventually(lambda: project.ran() == {"p": 1}, within=60, what="its first try")
        eventually(lambda: "retry" in tried(project), within=30, what="it was handed on")
        session.send_signal(signal.SIGINT)
        session.communicate(timeout=60)
    assert project.verdicts() == {"p": "withdrawn"}
    again = project.run("--manifest=m.jsonl", "--manifest-resume")
    again.stdout.fnmatch_lines(["*a resume sends nothing: 'p' may have run *"])
    assert "--lf" not in again.stdout.str()


def tried(project: Project) -> list[str]:
    """How executions of the newest run have handed their jobs on."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        [one] = ledger.jobs.of_entry("p")
        return [fact.how for fact in one.own.each(HandedOn)]


def test_why_calls_pytest_as_the_run_was_called(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By settings of another file and on another stack; the command does what it says."""
    project.manifest("m.jsonl", [fail("f")])
    project.write("own.ini", INI)
    project.write("pytest.ini", "[pytest]\n")
    project.run("-c", "own.ini", "--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1)
    monkeypatch.chdir(project.path)
    command = as_json("why", "f")["insist"]
    assert command == f"pytest --manifest=m.jsonl 'm.jsonl::entry[f]' -c own.ini {MEMORY}"
    project.run(*shlex.split(command)[1:]).assert_outcomes(failed=1)
    assert project.ran() == {"f": 2}


def test_what_an_idempotent_one_blocks_is_resumed(project: Project) -> None:
    """There a resume gets further."""
    after = {"id": "then", "task": "jobs.double", "args": [1, "then"], "after": ["f"]}
    project.manifest("m.jsonl", [fail("f", idempotent=True), after])
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.stdout.fnmatch_lines(["  to go on: pytest --manifest=m.jsonl --manifest-resume *"])


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_a_killed_worker_holds_is_resumed_with_repair(project: Project, broker: str) -> None:
    """To wait for it would take as long as the broker's visibility timeout; each failure names the
    worker."""
    held = project.hold("a")
    project.manifest("m.jsonl", [{"id": key, "task": "jobs.hold", "args": [key]} for key in "abc"])
    at = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with (
        worker(project, broker, *INSTRUMENTED, name="dying", slots=1) as dying,
        pytest_beside(project, *at, "--manifest-deadline=30s") as session,
        redis.Redis.from_url(broker) as client,
    ):
        # Not before: a worker that is killed between two commands to the broker loses the message.
        eventually(
            lambda: (
                project.ran()["a"] == 1
                and (client.hlen("unacked"), client.llen("celery")) == (2, 0)
            ),
            within=60,
            what="one is running and two are prefetched",
        )
        os.killpg(dying.pid, signal.SIGKILL)
        held.unlink()
        with worker(project, broker, *INSTRUMENTED, name="other", slots=1):
            text, _ = session.communicate(timeout=120)
    assert "worker dying@localhost had taken it and answers no more" in text
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume --manifest-repair" in text
    assert "--manifest-audit=wait" not in text
    with worker(project, broker, *INSTRUMENTED, name="other", slots=1):
        project.run(*at, "--manifest-resume", "--manifest-repair")
    assert {key: project.ran()[key] for key in "bc"} == {"b": 1, "c": 1}


@pytest.mark.parametrize("repeats", [True, False])
def test_a_new_run_is_named_only_by_a_command_that_is_not_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, repeats: bool
) -> None:
    """Who has insisted does so again; a header that forbids a second run is not argued with."""
    entries: list[Mapping[str, object]] = [
        fail("f"),
        {"id": "a", "task": "jobs.double", "args": [1, "a"]},
    ]
    project.manifest("m.jsonl", [{"manifest": 1, "rerun": repeats}, *entries])
    first = project.run("--manifest=m.jsonl", MEMORY).stdout.str()
    assert ("--manifest=m.jsonl --lf" in first) == repeats
    monkeypatch.chdir(project.path)
    insist = str(as_json("why", "f")["insist"])
    assert ("--manifest-rerun" in insist) != repeats
    if not repeats:
        refused = project.run("--manifest=m.jsonl", MEMORY, "--lf").stderr.str()
        assert "--manifest-rerun insists" in refused
    again = project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun")
    again.stdout.fnmatch_lines(["*: pytest --manifest=m.jsonl --lf --manifest-rerun *"])
    project.run("--manifest=m.jsonl", MEMORY, "--lf", "--manifest-rerun").assert_outcomes(failed=1)
    assert project.ran() == {"f": 3, "a": 2}
