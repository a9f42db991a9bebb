"""``--manifest-detach``: the run is left to a process of its own; one JSON record says which."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.interrupting import is_alive
from tests.plugin.conftest import Project
from tests.support import eventually

pytestmark = pytest.mark.ring(2)
LONGEST = 120.0


def detach(project: Project, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The record that pytest prints, on stdout alone."""
    done = project.run_process("--manifest=m.jsonl", "--manifest-detach", *arguments)
    assert done.ret == status
    record: dict[str, Any] = json.loads(done.stdout.str())
    return record


def manifest(project: Project, *arguments: str) -> Any:
    command = [sys.executable, "-m", "pytest_manifest", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=project.path, capture_output=True, text=True, timeout=LONGEST
    )
    return json.loads(done.stdout)


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(is_alive, processes))


@pytest.fixture
def held(project: Project) -> Iterator[Path]:
    """A manifest of one quick job and one that runs until the file is removed."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "quick", "task": "jobs.double", "args": [1], "timeout": 60},
            {"id": "long", "task": "jobs.hold", "args": ["x"], "timeout": 60},
        ],
    )
    path = project.hold("x")
    yield path
    path.unlink(missing_ok=True)


def test_a_run_goes_on_without_its_terminal_and_ends_by_itself(
    project: Project, held: Path
) -> None:
    """The shell that began it dies by SIGHUP; the run is followed, ends, and leaves no process."""
    script = f"{sys.executable} -m pytest --manifest=m.jsonl --manifest-detach; sleep 600"
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=project.path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        record = json.loads(shell.stdout.readline())
        os.killpg(shell.pid, signal.SIGHUP)
    processes = family(record["pid"])
    assert len(processes) > 2, "the private stack is with the run's process"
    assert record["ledger"].endswith(f"{record['run']}.sqlite")
    assert record["page"].startswith("http://127.0.0.1:")
    assert Path(record["output"]).name == f"{record['run']}.out"
    eventually(lambda: manifest(project, "status")["running"] == 1, within=30)
    assert manifest(project, "status")["state"] == "running"
    held.unlink()
    eventually(lambda: gone(processes), within=60, what="all processes of the run end")
    found = manifest(project, "status")
    assert (found["state"], found["counts"]) == ("finished", {"passed": 2})
    assert "2 passed" in Path(record["output"]).read_text("utf-8")


def test_a_detached_run_is_steered_and_ends_by_a_signal(project: Project, held: Path) -> None:
    """It answers ``manifest ctl``, keeps a second one out, and takes its stack with it."""
    record = detach(project, "-o", "manifest_grace=1s")
    processes = family(record["pid"])
    answer = manifest(project, "ctl", record["run"], "pause", "--reason=test")
    assert (answer["applied"], answer["changed"]) == (True, True)
    second = project.run_process("--manifest=m.jsonl", "--manifest-detach")
    assert second.ret == pytest.ExitCode.USAGE_ERROR
    assert second.stdout.str() == ""
    second.stderr.fnmatch_lines(["*ERROR: *"])
    assert sorted(project.path.glob(".manifest/runs/detached-*")) == []
    os.kill(record["pid"], signal.SIGTERM)
    eventually(lambda: gone(processes), within=60, what="all processes of the run end")
    assert manifest(project, "status")["state"] == "stopped"


WAITING = """
import os, time
from pathlib import Path
import pytest


def wait():
    Path("new").write_text(str(os.getpid()))
    Path("new").rename("child")
    time.sleep(120)


def pytest_configure():
    if {early}:
        wait()


@pytest.fixture(scope="session")
def dispatch():
    wait()
"""


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    ("early", "sentence"),
    [
        (True, r"interrupted: the run's process has ended before anything was sent\n"),
        (False, r"interrupted: the run's process has ended while the run began; see \S+\.out\n"),
    ],
)
def test_ctrl_c_at_the_start_ends_what_was_started(
    project: Project, early: bool, sentence: str
) -> None:
    """With one sentence, before the other process takes its signals itself, and after."""
    project.doubles("m.jsonl", 1)
    project.write("conftest.py", WAITING.format(early=early))
    command = [sys.executable, "-m", "pytest", "--manifest=m.jsonl", "--manifest-detach"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        child = project.path / "child"
        eventually(child.exists, within=60, what="the process of the run waits")
        other = psutil.Process(int(child.read_text()))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, out) == (pytest.ExitCode.INTERRUPTED, "")
    assert re.fullmatch(sentence, err), err
    assert gone([other])
    assert not project.ledgers()
    assert len(list(project.path.glob(".manifest/runs/detached-*"))) == (not early)


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--manifest=m.jsonl", "--manifest-dispatch-only"], "leave out --manifest-dispatch-only"),
        ([], "--manifest-detach needs --manifest=FILE"),
        (["--manifest=m.jsonl", "--collect-only"], "starts a run, and here no test is to run"),
        (["--manifest=m.jsonl", "--manifest=n.jsonl"], "is of one manifest"),
    ],
)
def test_what_starts_no_run_is_refused(project: Project, options: list[str], said: str) -> None:
    project.doubles("m.jsonl", 1)
    project.doubles("n.jsonl", 1)
    done = project.run_process("--manifest-detach", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*{said}*"])
    assert not project.ledgers()
