"""A run is steered from another process while pytest follows it, and while none does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project, kill_in_the_middle
from tests.plugin.test_interrupts import TWO, all_gone, family, running
from tests.support import eventually

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)


def ctl(project: Project, *arguments: str, status: int = 0) -> Mapping[str, Any]:
    """What the command answers, in a process of its own."""
    command = [sys.executable, "-m", "pytest_manifest", "ctl", "last", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=project.path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == status, done.stderr or done.stdout
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer


def consistent(project: Project) -> None:
    """The run's record holds."""
    command = [sys.executable, "-m", "pytest_manifest", "check", "last"]
    done = subprocess.run(
        command, cwd=project.path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout


def last_failed(project: Project) -> Mapping[str, Any]:
    """Return the tests that ``--lf`` would run."""
    path = project.path / ".pytest_cache/v/cache/lastfailed"
    found: Mapping[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


@pytest.fixture
def held(project: Project) -> Project:
    """Six jobs for one process: the first goes on as long as its file is there."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.hold", "kwargs": {"key": "a"}},
            {"id": "b", "task": "jobs.flaky", "kwargs": {"key": "b"}, "idempotent": True},
            *(
                {"id": name, "task": "jobs.flaky", "kwargs": {"key": name}}
                for name in ("c", "d", "e", "f")
            ),
        ],
    )
    project.write("hold-a", "")
    return project


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    "xdist", [pytest.param((), id="alone"), pytest.param(TWO, id="xdist", marks=LATER)]
)
def test_a_run_is_paused_and_its_entries_cancelled_and_sent_again(
    held: Project, xdist: tuple[str, ...]
) -> None:
    """What the tasks wrote down is the truth: each ran once, but for what was sent again."""
    held.break_("b")
    with running(held, *xdist, "--manifest-window=3") as process:
        paused = ctl(held, "pause", "--reason=db failover")
        assert (paused["applied"], paused["changed"]) == (True, True)
        assert paused["data"] == {"in_flight": 3}
        cancelled = ctl(held, "cancel", "c", "f")["data"]
        assert (cancelled["taken_back"], cancelled["never_sent"]) == (1, 1)
        (held.path / "hold-a").unlink()
        eventually(lambda: held.verdicts().get("b") == "failed", what="b has failed")
        assert held.ran() == {"a": 1, "b": 1}, "while it is paused nothing new is sent"
        (held.path / "broken-b").unlink()
        assert ctl(held, "requeue", "--failed")["data"]["entries"] == ["b"]
        assert ctl(held, "set", "window=5", "deadline=+1h")["applied"]
        assert ctl(held, "set", "speed=5", status=1)["applied"] is False
        assert ctl(held, "resume")["changed"]
        text, _ = process.communicate(timeout=100)
    assert held.ran() == {"a": 1, "b": 2, "d": 1, "e": 1}
    passed = dict.fromkeys("abde", "passed")
    assert held.verdicts() == {**passed, "c": "cancelled", "f": "cancelled"}
    assert "(db failover): nothing new is sent" in text
    assert "'b' was failed at first and is passed" in text
    assert re.search(r"steered at [\d:]{8} UTC by .+@.+, pause: db failover", text)
    assert re.search(r"steered at [\d:]{8} UTC by .+@.+, cancel \(2 entries\)", text)
    consistent(held)


@pytest.mark.parametrize(
    "xdist", [pytest.param((), id="alone"), pytest.param(TWO, id="xdist", marks=LATER)]
)
def test_what_is_sent_again_is_awaited_though_all_tests_have_run(
    project: Project, xdist: tuple[str, ...]
) -> None:
    entries: list[Mapping[str, object]] = [
        {"id": "b", "task": "jobs.flaky", "kwargs": {"key": "b"}, "idempotent": True},
        {"id": "a", "task": "jobs.hold", "kwargs": {"key": "a"}},
    ]
    project.manifest("m.jsonl", entries)
    project.write("hold-a", "")
    project.break_("b")
    with running(project, *xdist) as process:
        eventually(lambda: project.ran()["a"] == 1, within=100, what="a has begun")
        eventually(lambda: project.verdicts().get("b") == "failed", what="b has failed")
        (project.path / "broken-b").unlink()
        assert ctl(project, "requeue", "b")["data"]["entries"] == ["b"]
        (project.path / "hold-a").unlink()
        text, _ = process.communicate(timeout=100)
    assert project.ran() == {"a": 1, "b": 2}
    assert project.verdicts() == {"a": "passed", "b": "passed"}
    assert "'b' was failed at first and is passed" in text
    assert "without a verdict" not in text
    assert last_failed(project) == {}


@pytest.mark.parametrize(
    ("options", "ends", "status"),
    [
        pytest.param((), "passed", pytest.ExitCode.OK, id="alone"),
        pytest.param((), "failed", pytest.ExitCode.TESTS_FAILED, id="failing", marks=LATER),
        pytest.param(("--ff",), "passed", pytest.ExitCode.OK, id="in order", marks=LATER),
        pytest.param(TWO, "failed", pytest.ExitCode.TESTS_FAILED, id="xdist", marks=LATER),
    ],
)
def test_what_was_cancelled_and_is_wanted_again_is_awaited(
    project: Project, options: tuple[str, ...], ends: str, status: int
) -> None:
    """Its test was skipped; what it comes to after all others decides about the session, too."""
    expected = {"expect": {"result": "not this"}} if ends == "failed" else {}
    entries: list[Mapping[str, object]] = [
        {
            "id": name,
            "task": "jobs.hold",
            "kwargs": {"key": name},
            **(expected if name == "c" else {}),
        }
        for name in "abc"
    ]
    project.manifest("m.jsonl", entries)
    for name in "abc":
        project.write(f"hold-{name}", "")
    with running(project, *options, "--manifest-window=1") as process:
        eventually(lambda: project.ran()["a"] == 1, within=100, what="a has begun")
        assert ctl(project, "cancel", "c")["data"]["never_sent"] == 1
        (project.path / "hold-a").unlink()
        eventually(lambda: project.ran()["b"] == 1, within=100, what="b has begun")
        assert ctl(project, "requeue", "c")["data"]["entries"] == ["c"]
        (project.path / "hold-b").unlink()
        eventually(lambda: project.ran()["c"] == 1, within=100, what="c has begun after b")
        (project.path / "hold-c").unlink()
        text, _ = process.communicate(timeout=100)
    assert project.verdicts() == {"a": "passed", "b": "passed", "c": ends}
    in_order = "-n" in options or ends == "passed"  # xdist's controller knows no test that passed
    assert list(last_failed(project)) == ([] if in_order else ["m.jsonl::entry[c]"])
    assert f"'c' was cancelled at first and is {ends}" in text
    assert "without a verdict" not in text
    assert process.returncode == status


@pytest.mark.ring(2)
def test_a_run_is_stopped_from_another_shell_as_by_a_person(held: Project) -> None:
    with running(held, "--override-ini=manifest_grace=1s") as process:
        children = family(process)
        assert ctl(held, "stop", "--reason=wrong model")["applied"]
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "5 withdrawn" in text
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume" in text
    assert "INTERNALERROR" not in text
    all_gone(children)
    assert held.ran() == {"a": 1}


@pytest.mark.ring(2)
def test_what_is_asked_for_while_no_pytest_lives_holds_for_the_next(project: Project) -> None:
    kill_in_the_middle(project)
    before = project.ran()
    assert "kept" in ctl(project, "cancel", "n-3", "n-4")["message"]
    assert "kept" in ctl(project, "requeue", "n-2")["message"]
    options = "--manifest=m.jsonl", "--manifest-resume", "--manifest-broker=memory://"
    result = project.run_process(*options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED, "n-1 may have run, and is left"
    verdicts = project.verdicts()
    assert verdicts["n-3"] == verdicts["n-4"] == "cancelled"
    assert "at first" not in result.stdout.str(), "never sent is not unknown"
    assert verdicts["n-2"] == "passed"
    assert project.ran() - before == {"n-2": 1}
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert not ledger.commands.open()
        actions = [one.action for one in ledger.jobs.run_facts().steered]
    assert sorted(actions) == ["cancel", "requeue"]
    consistent(project)


def test_a_drained_run_ends_by_itself(held: Project) -> None:
    with running(held, "--manifest-window=1") as process:
        assert ctl(held, "drain")["applied"]
        (held.path / "hold-a").unlink()
        process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert held.ran() == {"a": 1}
    assert held.verdicts() == {"a": "passed"}
