"""What runs the tests leaves nothing of them behind, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.interrupting import interrupted
from tests.processes import TEMPORARY_VARIABLE, said_by_system

ROOT = Path(__file__).resolve().parents[2]
BUSY_SECONDS = 60
"""When a busy machine has to have done what is to take five seconds."""
LONG = "import signal as s, time; [s.signal(n, s.SIG_IGN) for n in (1, 2, 15)]; time.sleep(300)"
"""A program that nothing ends but being killed."""
STUBBORN = f"""
import os, subprocess, sys, time
from pathlib import Path
import pytest

def start():
    subprocess.Popen([sys.executable, "-c", {LONG!r}], start_new_session=True)

@pytest.fixture(scope="session")
def server():
    process = subprocess.Popen([sys.executable, "-c", {LONG!r}], start_new_session=True)
    yield
    process.terminate()
    process.wait(300)

@pytest.mark.parametrize("number", range(20))
def test_long(server, number):
    if os.fork() == 0:  # as a daemon: nobody's child, in a session of its own
        start()
        os._exit(0)
    Path(os.environ["{TEMPORARY_VARIABLE}"], f"begun-{{number}}").touch()
    time.sleep(300)
"""
LEAVING = f"""
import os, subprocess, sys

def test_short():
    left = subprocess.Popen([sys.executable, "-c", {LONG!r}], start_new_session=True)
    print("pid", left.pid, os.environ["{TEMPORARY_VARIABLE}"])
    assert left.poll() == 0
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The tests of a folder of their own, in two processes."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    config = ["-c", str(tmp_path / "pytest.ini"), "-p", "no:manifest", "-p", "no:cacheprovider"]
    return [
        sys.executable,
        "-m",
        "tests.launcher",
        "-n",
        "2",
        *config,
        "--durations=10",
        str(tmp_path),
    ]


def has_begun(processes: list[psutil.Process]) -> bool:
    """Whether both tests sleep, and servers and daemons ignore what they are sent."""
    ignoring = 0
    for process in processes:
        status = said_by_system(process.pid, "status")
        ignored = int(status.partition("SigIgn:")[2].strip().partition("\n")[0] or "0", 16)
        ignoring += bool(ignored & 1 << signal.SIGTERM - 1)
    return ignoring == 4


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_an_interrupt_ends_all_that_was_started(
    command: list[str], tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    """Servers and daemons that ignore signals, in sessions of their own, and the folder of all."""
    (tmp_path / "test_long.py").write_text(STUBBORN)
    log = tmp_path / "output.txt"
    seen = interrupted(
        command, log=log, ready=has_begun, cwd=ROOT, number=number, whole_group=whole_group
    )
    assert seen.left == []
    assert seen.seconds < BUSY_SECONDS
    # On a machine that is busy enough it is killed before it has printed what it knows.
    assert seen.status in {pytest.ExitCode.INTERRUPTED, 128 + signal.SIGKILL}, seen.output
    assert "interrupted: all had ended" in seen.output


def test_what_is_left_behind_is_named_and_killed(command: list[str], tmp_path: Path) -> None:
    """The tests' own status stays; nothing lives on, and the folder of all is gone."""
    (tmp_path / "test_short.py").write_text(LEAVING)
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    pid, temporary = next(
        line.split()[1:] for line in done.stdout.splitlines() if line.startswith("pid ")
    )
    assert f"left behind by the tests, and killed: {pid} " in done.stderr
    assert not psutil.pid_exists(int(pid))
    assert not Path(temporary).exists()


def test_the_status_is_that_of_pytest(command: list[str], tmp_path: Path) -> None:
    """And nothing is said where nothing was left."""
    (tmp_path / "test_short.py").write_text("def test_short():\n    pass\n")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
