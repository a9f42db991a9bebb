"""However pytest ends, nothing of the embedded stack stays behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest
import redis

from pytest_manifest.ledger import Ledger
from tests.interrupting import is_alive
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.plugin.test_run_page import data_of
from tests.support import eventually

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
TWO = ("-n", "2")


@pytest.fixture
def long(project: Project) -> Project:
    """A manifest of jobs that take far longer than the test."""
    project.manifest(
        "m.jsonl",
        [
            {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 60, "key": f"n-{n}"}}
            for n in range(6)
        ],
    )
    return project


@contextmanager
def running(
    project: Project, *arguments: str, output: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """pytest in the middle of a run: at least one job has started."""
    command = [sys.executable, "-m", "pytest", "--manifest=m.jsonl", *arguments]
    with (
        nullcontext(subprocess.PIPE) if output is None else output.open("w") as written,
        subprocess.Popen(
            command,
            cwd=project.path,
            stdout=written,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            eventually(project.ran, within=100, what="a job starts")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Every process that descends from pytest now; keeper, Valkey and workers are among them."""
    found = psutil.Process(process.pid).children(recursive=True)
    assert any("valkey" in child.name() for child in found)
    return found


def private_broker(process: subprocess.Popen[str]) -> redis.Redis:
    """A client of the broker that pytest has started."""
    worker = next(p for p in family(process) if "celery" in p.cmdline())
    return redis.Redis.from_url(worker.environ()["CELERY_BROKER_URL"])


def all_gone(processes: list[psutil.Process]) -> None:
    eventually(lambda: not any(map(is_alive, processes)), within=30, what="every process has ended")


def private_folders(processes: list[psutil.Process]) -> list[Path]:
    folders = {Path(p.cwd()) for p in processes if "valkey" in p.name()}
    return list(folders)


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("xdist", "number", "status"),
    [
        pytest.param((), signal.SIGINT, pytest.ExitCode.INTERRUPTED, id="Ctrl-C"),
        pytest.param(
            TWO, signal.SIGINT, pytest.ExitCode.INTERRUPTED, id="Ctrl-C-xdist", marks=LATER
        ),
        pytest.param((), signal.SIGTERM, 128 + signal.SIGTERM, id="SIGTERM", marks=LATER),
        pytest.param(TWO, signal.SIGHUP, 128 + signal.SIGHUP, id="SIGHUP-xdist", marks=LATER),
    ],
)
def test_a_signal_ends_everything(
    long: Project, xdist: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    """In the middle: pytest says what was left, and leaves no process and no folder."""
    long.workers(2)
    with running(long, *xdist, "--override-ini=manifest_grace=1s") as process:
        eventually(lambda: len(long.ran()) == 2, what="both workers have begun a job")
        children = family(process)
        folders = private_folders(children)
        process.send_signal(number)
        text, _ = process.communicate(timeout=100)
    assert process.returncode == status
    assert "6 entries: 4 withdrawn" in text
    assert "stopped: 2 entries without a verdict (2 that were running)" in text
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume" in text
    assert "INTERNALERROR" not in text
    assert long.ledgers()[0].with_suffix(".receipts.jsonl").exists()
    all_gone(children)
    assert not [folder for folder in folders if folder.exists()]
    with Ledger.open(long.ledgers()[0]) as ledger:
        assert ledger.info.status == "stopped"
        (part,) = ledger.info.segments()
    assert part.stopped is not None
    assert part.stopped > part.started


@LATER
@pytest.mark.parametrize("xdist", [(), TWO], ids=["plain", "xdist"])
def test_kill_9_leaves_nothing(long: Project, xdist: tuple[str, ...]) -> None:
    """kill -9 of pytest in the middle: the stack ends by itself; what its broker held is kept."""
    with running(long, *xdist) as process:
        children = family(process)
        folders = private_folders(children)
        process.kill()
        process.wait(timeout=30)
        all_gone(children)
    private = [folder for folder in folders if not folder.is_relative_to(long.path)]
    eventually(lambda: not [f for f in private if f.exists()], what="the private folders are gone")


def test_after_a_kill_the_run_is_gone_on_with(project: Project) -> None:
    """What was queued when pytest was killed runs once; what was running is left, and said so."""
    rows: list[dict[str, object]] = [
        {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 60 if n < 2 else 0, "key": f"n-{n}"}}
        for n in range(6)
    ]
    project.manifest("m.jsonl", rows)
    with running(project, "--manifest-workers=2") as process:
        eventually(lambda: len(project.ran()) == 2, what="both workers have begun a job")
        children = family(process)
        process.kill()
        process.wait(timeout=30)
        all_gone(children)  # nobody has ended the stack: it does so by itself
    refused = project.run("--manifest=m.jsonl")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*is unfinished*go on with it by --manifest-resume*"])
    # Refused, or nothing to be done: what the broker held stays.
    unknown = project.run("--manifest=m.jsonl", "--manifest-resume", "--manifest-run=none")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        ["resume: leaves 'n-0': *may have run and is not idempotent", "*2 crashed, 4 passed*"]
    )
    assert sorted(project.ran()) == [f"n-{n}" for n in range(6)]
    assert not list((project.path / ".manifest/stacks").iterdir())


@pytest.mark.ring(2)
def test_what_a_dead_worker_had_taken_and_not_begun_still_runs(project: Project) -> None:
    """kill -9 of a worker: the job that it held in reserve is put back, and runs once."""
    rows: list[dict[str, object]] = [
        {"id": "victim", "task": "jobs.nap", "kwargs": {"sec": 60, "key": "victim"}}
    ]
    rows += [
        {"id": f"q-{n}", "task": "jobs.double", "kwargs": {"n": n, "key": f"q-{n}"}}
        for n in range(8)
    ]
    project.manifest("m.jsonl", rows)
    with running(project, "--manifest-workers=1") as process:
        workers = [p for p in family(process) if "celery" in p.cmdline() and p.children()]
        workers[0].kill()
        text, _ = process.communicate(timeout=90)
    assert "1 failed, 8 passed" in text
    assert "ended (exit code -9) while it was running it" in text
    assert project.ran() == {"victim": 1} | {f"q-{n}": 1 for n in range(8)}


@LATER
def test_a_message_that_is_nowhere_is_lost_and_said_so(project: Project) -> None:
    """A queue emptied behind our back: the jobs are judged lost soon, not at the run's deadline."""
    rows: list[dict[str, object]] = [
        {"id": "first", "task": "jobs.nap", "kwargs": {"sec": 4, "key": "first"}}
    ]
    rows += [{"id": f"q-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(5)]
    project.manifest("m.jsonl", rows)
    with running(project, "--manifest-workers=1") as process:
        with private_broker(process) as client:
            eventually(lambda: client.llen("celery") >= 4, what="the others wait in the queue")
            with client.pipeline() as both:
                lost, _ = both.llen("celery").delete("celery").execute()
        text, _ = process.communicate(timeout=90)
    assert lost in (4, 5)  # before Celery 5.6 the worker has taken one of them
    assert f"{6 - lost} passed, {lost} errors" in text
    assert "it waits in no queue of the broker, no worker has it" in text


@LATER
def test_the_private_broker_restarts_in_the_middle(project: Project) -> None:
    """kill -9 of the private Valkey: it comes back with what it held, and the run ends."""
    project.manifest(
        "m.jsonl",
        [
            {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0.5, "key": f"n-{n}"}}
            for n in range(12)
        ],
    )
    with running(project) as process:
        (valkey,) = [p for p in family(process) if "valkey" in p.name()]
        valkey.kill()
        text, _ = process.communicate(timeout=110)
    assert "INTERNALERROR" not in text
    assert "12 entries:" in text
    assert set(project.ran().values()) == {1}


PLANNER = """
import time, pytest
from pathlib import Path
from pytest_manifest import planning_fixture

@pytest.fixture(scope="session")
def engine():
    yield
    Path("torn-down").touch()

@planning_fixture("demo:slow")
def slow(plan, engine):
    Path("planning").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "more", [(), pytest.param(("--manifest-plan-run", "-n1"), marks=LATER)], ids=["plan", "xdist"]
)
def test_sigterm_while_a_plan_is_made_tears_its_fixtures_down(
    project: Project, more: tuple[str, ...]
) -> None:
    """It ends the session as Ctrl-C does: what a planner has opened is closed, nothing is sent."""
    project.write("conftest.py", PLANNER)
    with pytest_beside(project, "--manifest-plan=demo:slow", *more) as process:
        eventually((project.path / "planning").exists, within=100, what="the planner is at work")
        process.terminate()
        text, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert (project.path / "torn-down").exists()
    assert "no tests ran" in text
    assert "Traceback" not in text


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    "xdist", [pytest.param((), id="plain"), pytest.param(TWO, id="xdist", marks=LATER)]
)
def test_what_was_taken_back_is_no_failure(project: Project, xdist: tuple[str, ...]) -> None:
    """After Ctrl-C it is skipped with its reason in every report, and both counts are the same."""
    rows = [{"id": f"n-{n}", "task": "jobs.nap", "args": [0.02, f"n-{n}"]} for n in range(4)]
    rows += [{"id": "held", "task": "jobs.hold", "args": ["held"]}]
    rows += [{"id": f"z-{n}", "task": "jobs.nap", "args": [0.02, f"z-{n}"]} for n in range(30)]
    project.manifest("m.jsonl", rows)
    marker, log = project.hold("held"), project.path / "run.log"
    reports = ["--junitxml=j.xml", "--manifest-report=r.html", "--manifest-report=r.md"]
    reports += ["--alluredir=allure"] if not xdist else []
    with running(project, "-rs", *reports, *xdist, output=log) as process:
        eventually(lambda: "held" in project.ran(), within=100, what="the job has begun")
        with private_broker(process) as client:
            eventually(lambda: client.llen("celery") > 20, what="the others wait in the queue")
            process.send_signal(signal.SIGINT)
            eventually(lambda: not client.llen("celery"), what="what waits has been taken back")
        eventually(lambda: "interrupted: " in log.read_text("utf-8"), what="pytest has said so")
        marker.unlink()  # it comes to its end within the grace period
        process.wait(timeout=100)
    text = log.read_text("utf-8")
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    counts = re.search(r"=+ m\.jsonl: (\d+) passed, (\d+) withdrawn of 35 entries =+", text)
    assert counts is not None
    passed, withdrawn = int(counts[1]), int(counts[2])
    assert passed >= 5
    assert passed + withdrawn == 35
    # pluggy warns where the signal comes within a hook of allure-pytest's, of the old kind.
    assert re.search(rf"=+ {passed} passed, {withdrawn} skipped(, 1 warning)? in ", text)
    assert "failures by cause" not in text
    assert re.search(rf"SKIPPED \[{withdrawn}\] m\.jsonl: The job was taken back before it ", text)
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume" in text

    cases = list(ET.parse(project.path / "j.xml").iter("testcase"))
    assert len(cases) == 35
    assert sum(one.find("skipped") is not None for one in cases) == withdrawn
    assert not [one for one in cases if one.find("failure") is not None]
    markdown = (project.path / "r.md").read_text("utf-8")
    assert markdown.startswith("### \u26a0\ufe0f ")
    assert "Failures by cause" not in markdown
    figures = data_of(project.path / "r.html")["figures"]
    assert figures["outcomes"] == {"passed": passed, "skipped": withdrawn}
    assert figures["causes"] == []
    if not xdist:
        results = (project.path / "allure").glob("*-result.json")
        found = Counter(json.loads(one.read_text("utf-8"))["status"] for one in results)
        # Where a signal comes while a test runs, what is left has no result: none may be red.
        assert set(found) <= {"passed", "skipped"}

    audited = project.run("--manifest=m.jsonl", "--manifest-audit")
    assert audited.ret == pytest.ExitCode.TESTS_FAILED, "the batch is not complete"
    audited.assert_outcomes(passed=passed, skipped=withdrawn)
    resumed = project.run("--manifest=m.jsonl", "--manifest-resume")
    assert resumed.ret == 0
    assert set(project.ran().values()) == {1}
    assert len(project.ran()) == 35
