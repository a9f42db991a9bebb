"""Where a session's jobs go, and that the user is told before any goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker

NAMING = '\napp.conf.update(broker_url="{url}", result_backend="{url}")\n'
UNREACHABLE = "redis://:hunter2@127.0.0.1:1/0"


def names(project: Project, url: str) -> None:
    """Have the project's app name this broker in its settings."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + NAMING.format(url=url))
    project.doubles(count=2)


@pytest.mark.live
@pytest.mark.parametrize("verbosity", ["-v", pytest.param("-q", marks=pytest.mark.ring(2))])
def test_an_app_that_names_a_broker_has_its_jobs_there(
    project: Project, broker: str, verbosity: str
) -> None:
    """Its own workers run them; the first lines say so, and how to have a private stack."""
    names(project, broker)
    with worker(project, broker, *INSTRUMENTED):
        result = project.run("--manifest=m.jsonl", verbosity)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["manifest: the app's own broker redis://:*@* (broker_url of jobs:app; *=private *)"]
    )
    assert broker not in result.stdout.str()
    assert result.outlines.index(next(x for x in result.outlines if "own broker" in x)) < 10
    with redis.Redis.from_url(broker) as client:
        assert client.exists("_kombu.binding.celery")


@pytest.mark.live
def test_a_private_stack_is_had_for_the_asking(project: Project, broker: str) -> None:
    """By the option, and by the file; the app's broker is not touched."""
    names(project, broker)
    result = project.run("--manifest=m.jsonl", "--manifest-broker=private")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["manifest: private stack (--manifest-broker=private)"])
    with redis.Redis.from_url(broker) as client:
        assert not client.keys()
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", ini + "manifest_broker = private\n")
    shown = project.run("--manifest=m.jsonl", "--collect-only")
    shown.stdout.fnmatch_lines(["*would go to: private stack (manifest_broker = private)"])


def test_the_apps_own_broker_is_refused_where_it_names_none(project: Project) -> None:
    """Nobody's default broker is taken for the app's choice."""
    project.doubles(count=1)
    refused = project.run("--manifest=m.jsonl", "--manifest-broker=app")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*=app: the app jobs:app names no broker*set broker_url*"])


@pytest.mark.parametrize(
    "where", [(), ("--manifest-broker=memory://",), ("--manifest-check",)], ids=str
)
def test_a_module_with_two_apps_is_no_answer(project: Project, where: tuple[str, ...]) -> None:
    """Neither is taken silently, wherever the jobs would go; an attribute decides."""
    project.doubles(count=1)
    project.write(
        "pair.py",
        "from celery import Celery\nshop = Celery('shop')\nfrom jobs import app as till\n",
    )
    refused = project.run("--manifest=m.jsonl", "--manifest-app=pair", *where)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    said = " ".join((refused.stdout.str() + refused.stderr.str()).split())
    assert "'pair' has 2 Celery apps" in said
    assert "name the one that is meant: pair:shop, pair:till" in said
    assert not project.ledgers()
    looks = where if where else ("--collect-only",)
    assert project.run("--manifest=m.jsonl", "--manifest-app=pair:till", *looks).ret == 0


def test_an_own_broker_that_is_away_is_refused_with_both_ways_out(project: Project) -> None:
    """Nothing is sent elsewhere instead, and no password is shown."""
    names(project, UNREACHABLE)
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*broker redis://:*@127.0.0.1:1/0 cannot be used: *refused*",
        ]
    )
    result.stderr.fnmatch_lines(
        [
            "*(it is what broker_url of jobs:app names; start it*=private*--manifest-broker=URL)",
        ]
    )
    assert "hunter2" not in result.stdout.str() + result.stderr.str()
    assert not project.ledgers()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--manifest=m.jsonl", "--collect-only"), "manifest: nothing is sent; would go to: "),
        (("--manifest-plan=numbers:all",), "it would go to: "),
    ],
    ids=["collect-only", "plan"],
)
def test_what_sends_nothing_says_where_it_would_go(
    project: Project, arguments: tuple[str, ...], line: str
) -> None:
    """Before anything is at stake, and without asking the broker."""
    names(project, UNREACHABLE)
    project.write("conftest.py", PLAN)
    result = project.run(*arguments)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [f"{line}the app's own broker redis://:*@127.0.0.1:1/0 (broker_url of jobs:app; *)"]
    )
    assert "hunter2" not in result.stdout.str()
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", f"{jobs}\napp.conf.broker_read_url = 'redis://127.0.0.1:2/0'\n")
    result = project.run(*arguments)
    result.stdout.fnmatch_lines(["*; the app's workers read from redis://127.0.0.1:2/0)"])
    project.write("jobs.py", "import no_such_module\n")
    broken = project.run(*arguments)
    assert broken.ret == 0
    broken.stdout.fnmatch_lines([f"{line}that is not known yet: *no_such_module*"])


PLAN = """
from pytest_manifest import planning_fixture


@planning_fixture("numbers:all")
def numbers(plan):
    plan.add("jobs.double", id="one", kwargs={"n": 1})
"""


def test_a_broker_in_memory_by_the_environment_needs_the_app(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker elsewhere could take jobs from it, so none is waited for."""
    project.doubles(count=1)
    project.write("pytest.ini", "[pytest]\n")
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    refused = project.run("--manifest=m.jsonl", "--manifest-deadline=5")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*the stack in memory needs your Celery application*"])


FLAKY = {"id": "f", "task": "jobs.flaky", "kwargs": {"key": "f"}, "idempotent": True}


@pytest.mark.ring(2)
def test_an_app_that_names_none_has_a_private_stack_and_is_resumed_with_one(
    project: Project,
) -> None:
    """The reason is said, too. Its jobs are nowhere else, whatever the app has come to name."""
    project.manifest("m.jsonl", [FLAKY])
    mended = project.break_("f")
    first = project.run("--manifest=m.jsonl")
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(["manifest: private stack (the app names no broker)"])
    mended.unlink()
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + NAMING.format(url=UNREACHABLE))
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["manifest: private stack (the run to resume had one; *=app *)"])


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_run_on_another_broker_is_not_resumed_on_the_apps_own(
    project: Project, broker: str
) -> None:
    """Nobody has named that one for this batch, and it may be the one of production."""
    own = f"{broker.removesuffix('/0')}/1"
    names(project, own)
    project.manifest("m.jsonl", [FLAKY])
    project.break_("f")
    with worker(project, broker, *INSTRUMENTED):
        first = project.run(
            "--manifest=m.jsonl", f"--manifest-broker={broker}", f"--manifest-backend={broker}"
        )
    first.assert_outcomes(failed=1)
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*nothing was sent: run * was sent to redis://:*@*/0, and * go on at redis://:*@*/1; *"]
    )
    assert own not in result.stderr.str()
    with redis.Redis.from_url(own) as client:
        assert not client.llen("celery")


@pytest.fixture
def kept_stack(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """``manifest stack up`` for the project's app, known to this test alone."""
    runtime: Path = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    command = (sys.executable, "-m", "pytest_manifest", "stack")
    up = (*command, "up", "--app=jobs:app", "--workers=1")
    subprocess.run(up, cwd=project.path, check=True, timeout=150)
    yield
    subprocess.run((*command, "down"), cwd=project.path, check=True, timeout=60)


@pytest.mark.ring(2)
@pytest.mark.live
@pytest.mark.usefixtures("kept_stack")
def test_a_run_on_the_kept_stack_is_resumed_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever broker the app names itself."""
    project.manifest("m.jsonl", [FLAKY])
    mended = project.break_("f")
    project.run("--manifest=m.jsonl", "--manifest-stack").assert_outcomes(failed=1)
    mended.unlink()
    monkeypatch.setenv("CELERY_BROKER_URL", UNREACHABLE)
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["manifest: the stack that * (the run to resume was sent there)"])


@pytest.mark.ring(2)
@pytest.mark.live
@pytest.mark.usefixtures("kept_stack")
def test_an_audit_asks_the_broker_that_the_run_was_sent_to(project: Project, broker: str) -> None:
    """A stack that is kept beside has none of its jobs, which is no sign that they are gone."""
    names(project, broker)
    with worker(project, broker):
        sent = ("--manifest=m.jsonl", "--manifest-dispatch-only", "--manifest-broker=app")
        assert project.run(*sent).ret == 0
        result = project.run("--manifest=m.jsonl", "--manifest-audit=wait")
    result.assert_outcomes(passed=2)
