"""A resume where it cannot be known what workers did: nothing runs twice by accident."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
import redis

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, unacknowledged, worker
from tests.support import eventually

MEMORY = "--manifest-broker=memory://"

FAILING = """
from pathlib import Path

def pytest_manifest_dispatched(run):
    failing = Path(__file__).with_name("failing")
    run.watch_stack(lambda: [], lambda: "the stack has ended" if failing.exists() else None)
"""


def hold(key: str, **fields: object) -> dict[str, object]:
    return {"id": key, "task": "jobs.hold", "args": [key], **fields}


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_a_plain_worker_had_may_have_run(project: Project, broker: str) -> None:
    """A stock worker dies with a job: that others announce their starts says nothing of it."""
    held = project.hold("a")
    project.manifest("m.jsonl", [hold("a", queue="plain"), hold("b", queue="celery")])
    url = f"--manifest-broker={broker}"
    with worker(project, broker, "-Q", "celery", *INSTRUMENTED):
        with (
            worker(project, broker, "-Q", "plain", name="plain") as plain,
            pytest_beside(project, "--manifest=m.jsonl", url) as first,
            redis.Redis.from_url(broker) as client,
        ):
            eventually(lambda: len(project.ran()) == 2, within=60, what="both jobs have begun")
            # Else the broker has it still, and gives it back when its visibility timeout is over.
            eventually(lambda: "a" not in unacknowledged(client), what="it has told so")
            os.killpg(plain.pid, signal.SIGKILL)
            first.kill()
        held.unlink()
        left = project.run("--manifest=m.jsonl", url, "--manifest-resume")
        left.assert_outcomes(passed=1, errors=1)
        left.stdout.fnmatch_lines(["resume: leaves 'a': *it may have run and is not idempotent"])
        # Not lost: it may have come to an end that such a worker leaves no word of.
        assert project.verdicts() == {"a": "unknown", "b": "passed"}
        assert project.ran() == {"a": 1, "b": 1}
        with worker(project, broker, "-Q", "plain", name="plain"):
            sent = project.run("--manifest=m.jsonl", url, "--manifest-resume=unsafe")
            sent.assert_outcomes(passed=2)
    assert project.ran() == {"a": 2, "b": 1}


@pytest.mark.ring(2)
@pytest.mark.live
def test_another_broker_tells_nothing_of_what_waits(project: Project, broker: str) -> None:
    """What is in none of its queues may be in the first one's, and will run from there."""
    second, store = (f"{broker.removesuffix('/0')}/{number}" for number in (1, 2))
    project.hold("a")
    project.manifest("m.jsonl", [hold(key) for key in "abc"])
    options = ("--manifest=m.jsonl", f"--manifest-backend={store}")
    one = ("--prefetch-multiplier=1", *INSTRUMENTED)
    with (
        worker(project, broker, *one, backend=store, slots=1) as first,
        pytest_beside(project, *options, f"--manifest-broker={broker}") as process,
        redis.Redis.from_url(broker) as client,
    ):
        waiting = "one job runs, one is taken and one waits"
        eventually(lambda: project.ran() and client.llen("celery") == 1, within=60, what=waiting)
        process.kill()
        os.killpg(first.pid, signal.SIGKILL)
    with worker(project, second, *INSTRUMENTED, backend=store, name="another"):
        result = project.run(*options, f"--manifest-broker={second}", "--manifest-resume")
    assert project.ran() == {"a": 1}
    result.assert_outcomes(failed=1, errors=2)
    assert project.verdicts() == {"a": "crashed", "b": "unknown", "c": "unknown"}
    result.stdout.fnmatch_lines(["*jobs were sent to another broker, redis://*"])


@pytest.mark.ring(2)
@pytest.mark.live
def test_after_a_run_gave_up_starts_may_be_unknown(project: Project, broker: str) -> None:
    """What is in no queue any more, and no worker said it had begun, may have run all the same."""
    held = project.hold("a")
    project.manifest("m.jsonl", [hold(key) for key in "abcd"])
    url = f"--manifest-broker={broker}"
    conftest = project.write("conftest.py", FAILING)
    one = ("--prefetch-multiplier=1", *INSTRUMENTED)
    with worker(project, broker, *one, slots=1), redis.Redis.from_url(broker) as client:
        with pytest_beside(project, "--manifest=m.jsonl", url) as first:
            eventually(
                lambda: project.ran() and client.llen("celery") == 2,
                within=60,
                what="one job runs, one is taken and two wait",
            )
            client.delete("celery")
            project.write("failing", "")
            text, _ = first.communicate(timeout=60)
        assert "the run gave up: the stack has ended" in text
        conftest.unlink()
        held.unlink()
        result = project.run("--manifest=m.jsonl", url, "--manifest-resume")
    ran = project.ran()
    assert ran == {"a": 1, "b": 1}
    result.assert_outcomes(passed=2, errors=2)
    for name in ("c", "d"):
        result.stdout.fnmatch_lines([f"resume: leaves '{name}': *it may have run*"])


@pytest.mark.parametrize(
    "stack",
    [(MEMORY,), pytest.param((), marks=[pytest.mark.live, pytest.mark.ring(2)])],
    ids=["memory", "embedded"],
)
def test_a_run_that_is_going_on_is_not_gone_on_with(
    project: Project, stack: tuple[str, ...]
) -> None:
    """--manifest-resume beside a pytest that is at work is refused, and does not disturb it."""
    held = project.hold("a")
    project.manifest("m.jsonl", [hold(key) for key in "abc"])
    with pytest_beside(project, "--manifest=m.jsonl", *stack) as first:
        eventually(project.ran, within=60, what="the first job has begun")
        refused = project.run("--manifest=m.jsonl", *stack, "--manifest-resume")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines(["*is going on in another pytest; wait until that has ended"])
        held.unlink()
        text, _ = first.communicate(timeout=60)
    assert first.returncode == pytest.ExitCode.OK
    assert "3 entries: 3 passed" in text
    assert project.ran() == dict.fromkeys("abc", 1)


def kill_in_the_first_job(project: Project, name: str, keys: str) -> None:
    """kill -9 of a pytest with a stack of its own, whose first job runs and whose others wait."""
    project.manifest(name, [hold(key) for key in keys])
    held = project.hold(keys[0])
    with pytest_beside(project, f"--manifest={name}", "--manifest-workers=1") as process:
        eventually(lambda: keys[0] in project.ran(), within=60, what="a job has begun")
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        psutil.wait_procs(family, timeout=30)
    held.unlink()


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_a_killed_run_left_in_its_broker_is_gone_on_with(project: Project) -> None:
    """A new private stack takes up its data: what ran may not run again, what waited runs once."""
    kill_in_the_first_job(project, "m.jsonl", "ab")
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    result.assert_outcomes(passed=1, failed=1)
    assert project.verdicts() == {"a": "crashed", "b": "passed"}
    assert project.ran() == dict.fromkeys("ab", 1)
    assert not list((project.path / ".manifest/stacks").iterdir())


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_two_killed_runs_left_is_gone_on_with_one_by_one(project: Project) -> None:
    """One stack can take up one broker's jobs: both at once are refused, and nothing is lost."""
    kill_in_the_first_job(project, "one.jsonl", "ab")
    kill_in_the_first_job(project, "two.jsonl", "cd")
    stacks = project.path / ".manifest/stacks"
    kept = set(stacks.iterdir())
    assert len(kept) == 2
    both = project.run("--manifest=one.jsonl", "--manifest=two.jsonl", "--manifest-resume")
    assert both.ret == pytest.ExitCode.USAGE_ERROR
    both.stderr.fnmatch_lines(["*resume these manifests one by one"])
    assert set(stacks.iterdir()) == kept
    for name in ("one.jsonl", "two.jsonl"):
        result = project.run(f"--manifest={name}", "--manifest-resume")
        result.assert_outcomes(passed=1, failed=1)
    assert project.ran() == dict.fromkeys("abcd", 1)
    assert not list(stacks.iterdir())


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_ledger_that_has_lost_its_last_records_sends_nothing_twice(
    project: Project, broker: str
) -> None:
    """As where RUN.sqlite alone was saved: what it calls unsent has run, runs, and waits."""
    held = project.hold("b")
    done = {"id": "d", "task": "jobs.double", "args": [1, "d"]}
    project.manifest("m.jsonl", [done, hold("b"), hold("c")])
    url = f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED, slots=1):
        with pytest_beside(project, "--manifest=m.jsonl", url) as first:
            eventually(lambda: len(project.ran()) == 2, within=60, what="the second has begun")
            first.kill()
        (log,) = (project.path / ".manifest/runs").glob("*.sqlite-wal")
        log.unlink()
        held.unlink()
        result = project.run("--manifest=m.jsonl", url, "--manifest-resume")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*is older than what was sent by it: *; nothing was sent*"])
        eventually(lambda: len(project.ran()) == 3, within=60, what="the third has begun")
    assert project.ran() == dict.fromkeys("dbc", 1)


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_is_not_selected_keeps_what_was_heard_of_it(project: Project, broker: str) -> None:
    """Its receipt is read along with the others', once: it is judged by it when its turn comes."""
    held = {key: project.hold(key) for key in "ab"}
    project.manifest("m.jsonl", [hold(key) for key in "ab"])
    options = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with worker(project, broker, *INSTRUMENTED), redis.Redis.from_url(broker) as client:
        with pytest_beside(project, *options) as first:
            eventually(lambda: len(project.ran()) == 2, within=60, what="both have begun")
            first.kill()
        with pytest_beside(project, *options, "--manifest-resume", "-k", "[b]") as some:
            assert some.stdout is not None
            said = next(line for line in some.stdout if line.startswith("resume: "))
            (stream,) = client.keys("manifest:*:receipts")
            before = client.xlen(stream)
            held["a"].unlink()
            eventually(lambda: client.xlen(stream) > before, within=60, what="a's receipt")
            held["b"].unlink()
            text, _ = some.communicate(timeout=60)
        assert said == "resume: waits for 'b': held or run by a worker\n"
        assert "1 passed, 1 deselected" in text
        client.delete(*client.keys("celery-task-meta-*"))  # as when their time is over
        project.run(*options, "--manifest-resume").assert_outcomes(passed=2)
    assert project.ran() == dict.fromkeys("ab", 1)


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_nobody_can_tell_is_an_end(project: Project, broker: str) -> None:
    """A finished run is finished, whatever its verdicts are; without a worker none is invented."""
    entry = {"id": "a", "task": "jobs.double", "args": [1], "expect": {"max_wait": 60}}
    project.manifest("m.jsonl", [entry])
    options = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with worker(project, broker):
        for _ in range(2):
            project.run(*options).assert_outcomes(errors=1)
    assert project.verdicts() == {"a": "unknown"}
    assert len(project.ledgers()) == 2
    deserted = project.run(*options, "--manifest-deadline=2s", "-o", "manifest_dir=alone")
    deserted.stdout.fnmatch_lines(["note: no worker answered within 1 s *"])
    deserted.stdout.fnmatch_lines(["*1 pending"])
    again = project.run(*options, "-o", "manifest_dir=alone")
    again.stderr.fnmatch_lines(["*is unfinished and its jobs may still be queued or running*"])
