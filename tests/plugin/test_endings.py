"""However a run ends, its summary is written, and its ledger says what there is to go on with."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.processes import said_by_system
from tests.support import eventually

MEMORY = "--manifest-broker=memory://"

ENDING = """
from pathlib import Path
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish():
    Path(__file__).with_name("ending").touch()
    return (yield)
"""

LINGERING = """
import time
from pathlib import Path

def pytest_unconfigure():
    lingering = Path(__file__).with_name("lingering")
    lingering.touch()
    until = time.monotonic() + 60
    while lingering.exists() and time.monotonic() < until:
        time.sleep(0.02)
"""

WAITING_AT_ITS_GATE = """
import time
from pathlib import Path

Path(__file__).with_name("booting").touch()
until = time.monotonic() + 60
while Path(__file__).with_name("gate").exists() and time.monotonic() < until:
    time.sleep(0.02)
"""

SLOW_START = """
from celery.signals import task_prerun

@task_prerun.connect(weak=False)
def slowly(**_):
    Path(__file__).with_name("taken").touch()
    time.sleep(1.5)
"""


def the_ledger(project: Project) -> Path:
    (ledger,) = eventually(project.ledgers, what="a ledger")
    return ledger


def in_the_way(path: Path) -> None:
    """A folder where a file is to be written, as good as a disk that takes nothing."""
    path.mkdir()
    (path / "occupied").touch()


@pytest.mark.live
@pytest.mark.ring(2)
def test_papers_that_cannot_be_written_do_not_stop_the_end(project: Project) -> None:
    """The session fails and says what could not be kept; no traceback, and all is stopped."""
    held = project.hold("a")
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.hold", "args": ["a"]}])
    with pytest_beside(project, "--manifest=m.jsonl", "--manifest-workers=1") as process:
        eventually(project.ran, within=100, what="the job has begun")
        children = psutil.Process(process.pid).children(recursive=True)
        ledger = the_ledger(project)
        in_the_way(ledger.with_suffix(".receipts.jsonl"))
        in_the_way(ledger.with_suffix(".worker-1.log"))
        held.unlink()
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED  # what CI collects is not there
    assert "m.jsonl: run " in text
    assert "1 entry: 1 passed" in text
    assert "the receipts were not exported, so this session fails: " in text
    assert "the workers' logs were not kept, so this session fails: " in text
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert project.verdicts() == {"a": "passed"}
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running()]


@pytest.mark.live
@pytest.mark.ring(2)
def test_ctrl_c_before_a_start_is_heard_of_waits_for_the_job(project: Project) -> None:
    """What a worker has taken and not yet announced is given its time too, and has its verdict."""
    taken = project.path / "taken"
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + SLOW_START)
    project.manifest(
        "m.jsonl", [{"id": f"n-{n}", "task": "jobs.nap", "args": [1, f"n-{n}"]} for n in range(3)]
    )
    options = ("--manifest=m.jsonl", "--manifest-workers=1", "--override-ini=manifest_grace=30s")
    with pytest_beside(project, *options) as process:
        eventually(taken.exists, within=100, what="a worker has taken a job")
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in text
    assert project.ran() == {"n-0": 1}
    assert project.verdicts() == {"n-0": "passed", "n-1": "withdrawn", "n-2": "withdrawn"}


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal that was sent to a process has not come to it yet."""
    status = said_by_system(pid, "status")
    pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in pending)


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_a_second_ctrl_c_at_once_is_no_crash(project: Project, xdist: tuple[str, ...]) -> None:
    """Two within the time in which pytest reports of the first: it ends, waits for nothing."""
    project.hold("a")
    project.manifest("m.jsonl", [{"id": key, "task": "jobs.hold", "args": [key]} for key in "ab"])
    options = ("--manifest=m.jsonl", "--override-ini=manifest_grace=50s", *xdist)
    with pytest_beside(project, *options) as process:
        eventually(lambda: len(project.ran()) == 1, within=100, what="a job has begun")
        process.send_signal(signal.SIGINT)
        # Two that come before the first is taken are one to a process.
        eventually(lambda: not is_pending(process.pid, signal.SIGINT), what="the first is taken")
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in text
    # How many depends on whether the broker has answered in what little time there was for it.
    assert re.search(r"stopped: (1 entry|2 entries) without a verdict", text)


@pytest.mark.live
@pytest.mark.ring(2)
def test_impatience_leaves_nothing_behind(project: Project) -> None:
    """Ctrl-C again and again while it ends: nothing is broken off, and jobs that run stay open."""
    project.workers(2)
    ending = project.path / "ending"
    project.write("conftest.py", ENDING)
    for key in "ab":
        project.hold(key)
    project.manifest("m.jsonl", [{"id": key, "task": "jobs.hold", "args": [key]} for key in "abc"])
    with pytest_beside(
        project, "--manifest=m.jsonl", "--override-ini=manifest_grace=2s"
    ) as process:
        eventually(lambda: len(project.ran()) == 2, within=100, what="two jobs have begun")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        eventually(ending.exists, within=100, what="the session's end")
        for _ in range(3):  # at once: the first hurries it, and at its end pytest's handler is back
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert "stopped: 2 entries without a verdict (2 that were running)" in text
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running()]
    with Ledger.open(the_ledger(project)) as ledger:
        assert ledger.verdicts.statuses() == {"c": "withdrawn"}
        assert ledger.info.status == "stopped"


@pytest.mark.live
@pytest.mark.ring(2)
def test_ctrl_c_twice_while_the_stack_starts_is_no_crash(project: Project) -> None:
    """Before there is a run: the worker is still importing its application."""
    gate, booting = project.write("gate", ""), project.path / "booting"
    project.write("jobs.py", WAITING_AT_ITS_GATE + (project.path / "jobs.py").read_text("utf-8"))
    project.doubles()
    private = ("--manifest-broker=private", "--manifest-workers=1")
    with pytest_beside(project, "--manifest=m.jsonl", *private) as process:
        eventually(booting.exists, within=100, what="a worker imports its application")
        children = psutil.Process(process.pid).children(recursive=True)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        text, _ = process.communicate(timeout=100)
    gate.unlink()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in text
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running()]


def test_ctrl_c_after_the_summary_is_no_crash(project: Project) -> None:
    """Twice, in the last steps of a session whose tests have all passed."""
    project.write("conftest.py", LINGERING)
    lingering = project.path / "lingering"
    project.doubles(count=1)
    with pytest_beside(project, "--manifest=m.jsonl", MEMORY) as process:
        eventually(lingering.exists, within=100, what="the last steps")
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        lingering.unlink()
        text, _ = process.communicate(timeout=100)
    assert "1 passed" in text
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in text


WITHOUT_REPORTER = """
import pytest
from pytest_manifest.plugin.session import ManifestSession
from pytest_manifest.reporting import terminal

close = ManifestSession.close


def noted(state):
    open("closed", "w").close()
    close(state)


def fail(*_):
    raise ValueError("nobody reads this")


ManifestSession.close = noted
terminal.write_summary = fail


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.pluginmanager.unregister(name="terminalreporter")
"""


def test_a_summary_that_cannot_be_written_keeps_nothing_running(project: Project) -> None:
    """Beside a reporter that asks for none it is written last; all ends the same.

    Versions of pytest that keep their reporter to themselves have none written.
    """
    project.doubles(count=1)
    project.write("conftest.py", WITHOUT_REPORTER)
    command = (sys.executable, "-m", "pytest", "--manifest=m.jsonl", MEMORY)
    result = project.pytester.run(*command)
    assert ("nobody reads this" in result.stderr.str()) == hasattr(pytest, "TerminalReporter")
    assert (project.path / "closed").exists()
