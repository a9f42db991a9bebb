"""``manifest stack``: the stack that stays."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import psutil
import pytest

from pytest_manifest.stack import state
from pytest_manifest.stack.client import own_pythonpath
from pytest_manifest.stack.settings import State
from pytest_manifest.urls import StackAddress
from tests.live.stack_support import (
    READY_SECONDS,
    alive,
    assert_gone,
    call,
    client,
    command_lines,
    family,
    write_app,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(180)

COMMAND = (sys.executable, "-m", "pytest_manifest", "stack")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this test alone, for us and for the commands that we run."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("MANIFEST_APP", raising=False)
    return state.runtime_directory()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_app(tmp_path / "project")


@pytest.fixture
def run(runtime: Path, project: Path) -> Iterator[Run]:
    """Run ``manifest stack`` with arguments in the project; whatever is up at the end goes down."""

    def command(*arguments: str, cwd: Path = project) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=os.environ | own_pythonpath(),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    yield command
    command("down")


def read(runtime: Path) -> State:
    return cast("State", json.loads(state.state_file(runtime).read_text()))


@pytest.mark.ring(1)
def test_a_stack_from_up_to_down(run: Run, runtime: Path) -> None:
    """``up`` starts a stack that stays, all commands know it, and ``down`` leaves nothing."""
    up = run("up", "--app=stackapp:app", "--workers=2")
    assert (up.returncode, up.stderr) == (0, "")
    known = read(runtime)
    password = known["broker_url"].partition("://:")[2].partition("@")[0]
    assert "redis://:***@127.0.0.1" in up.stdout
    assert str(state.state_file(runtime)) in up.stdout
    assert password not in up.stdout

    assert run("url").stdout == f"{known['broker_url']}\n"
    address = state.running_stack()
    assert address == StackAddress(
        known["broker_url"], known["broker_url"], "stackapp:app", is_private=False, is_managed=True
    )
    assert call(address, "add", 1, 2) == 3

    pids = family(known["keeper"])
    assert {known["broker"], known["worker"]} <= set(pids)
    assert password not in command_lines(pids)

    down = run("down")
    assert (down.returncode, down.stdout) == (0, "down\n")
    assert [pid for pid in pids if alive(pid)] == []
    assert not Path(known["directory"]).exists()
    assert not state.state_file(runtime).exists()
    assert state.running_stack() is None


def test_the_state_is_private(run: Run, runtime: Path) -> None:
    """State and directory are for their owner only."""
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0

    assert stat.S_IMODE(state.state_file(runtime).stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(read(runtime)["directory"]).stat().st_mode) == 0o700


def test_up_twice_is_one_stack(run: Run, runtime: Path) -> None:
    """A second ``up``, also one at the same moment, finds the first one's stack."""
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, "up", "--app=stackapp:app", "--workers=1") for _ in range(2)]
        results = [future.result() for future in futures]
    first = read(runtime)
    again = run("up", "--app=stackapp:app")

    assert [result.returncode for result in results] == [0, 0]
    said = sorted(result.stdout.splitlines()[0] for result in results)
    assert said == ["already up", "up"]
    assert again.stdout.startswith("already up\n")
    assert read(runtime) == first


def test_another_app_is_refused(run: Run, tmp_path: Path) -> None:
    """One stack a user: a second app is told what is up, and what to do."""
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0

    other = run("up", "--app=other:app")
    elsewhere = run("up", "--app=stackapp:app", cwd=tmp_path)

    for refused in (other, elsewhere):
        assert refused.returncode == 2
        assert "a stack for stackapp:app in" in refused.stderr
        assert "manifest stack down" in refused.stderr


def test_status_shows_workers_and_queues(run: Run, runtime: Path) -> None:
    """The status has each worker's pid, what waits in the queues, and no password."""
    assert run("up", "--app=stackapp:app", "--workers=2").returncode == 0
    address = state.running_stack()
    assert address is not None
    with client(address) as app:
        for _ in range(3):
            app.send_task("stackapp.add", [1, 1], queue="nobody-listens")
            app.send_task("stackapp.add", [1, 1], queue="nobody-listens", priority=9)

    shown = run("status")

    assert shown.returncode == 0
    assert f"manifest1  pid {read(runtime)['worker']}  alive" in shown.stdout
    assert "queue    celery  0 waiting" in shown.stdout
    assert "queue    nobody-listens  6 waiting" in shown.stdout
    assert "celeryev" not in shown.stdout
    assert "***" in shown.stdout
    assert address.broker_url not in shown.stdout
    document = json.loads(run("status", "--json").stdout)
    assert (document["queues"], document["unacked"]) == ({"celery": 0, "nobody-listens": 6}, 0)
    assert address.broker_url not in json.dumps(document)


def test_workers_are_restarted_and_shown(run: Run, runtime: Path) -> None:
    """A worker that dies while nobody is attached is restarted, and the state follows."""
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0
    pid = read(runtime)["worker"]
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    eventually(lambda: read(runtime)["worker"] not in (0, pid), within=READY_SECONDS)
    address = state.running_stack()
    assert address is not None
    assert call(address, "add", 1, 2) == 3


@pytest.mark.ring(1)
@pytest.mark.parametrize("command", ["status", "logs", "url"])
def test_nothing_up_is_exit_code_3(command: str, run: Run) -> None:
    """Where no stack is up, a script can tell, and a person reads what to do."""
    shown = run(command)

    assert (shown.returncode, shown.stdout) == (3, "")
    assert "manifest stack up" in shown.stderr


@pytest.mark.ring(1)
def test_down_without_a_stack_is_fine(run: Run) -> None:
    """``down`` is done when nothing is up."""
    shown = run("down")

    assert (shown.returncode, shown.stdout) == (0, "none was up\n")


def test_logs_are_the_workers_lines(run: Run) -> None:
    """``logs`` prints what all of its processes log; as JSON with the worker's name."""
    assert run("up", "--app=stackapp:app", "--workers=2").returncode == 0

    assert "manifest1@" in run("logs").stdout
    lines = [json.loads(line) for line in run("logs", "--json").stdout.splitlines()]
    assert {line["worker"] for line in lines} == {"manifest1"}
    assert any("ready" in line["line"] for line in lines)


def test_logs_follow_until_down(run: Run, project: Path) -> None:
    """``logs -f`` prints what comes, and ends with the stack."""
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0
    address = state.running_stack()
    assert address is not None
    with subprocess.Popen(
        [*COMMAND, "logs", "-f"],
        env=os.environ | own_pythonpath(),
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        try:
            for line in follower.stdout:
                if "ready" in line:
                    break
            call(address, "add", 1, 2)
            for line in follower.stdout:
                if "stackapp.add" in line:
                    break
            else:
                pytest.fail("the job's log line never came")
            run("down")
            follower.stdout.read()
            assert follower.wait(READY_SECONDS) == 0
        finally:
            follower.kill()


def test_a_dead_stack_is_cleaned_up(run: Run, runtime: Path) -> None:
    """After its supervisor was killed nothing is up, and ``up`` starts afresh."""
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0
    dead = read(runtime)
    pids = family(dead["keeper"])
    os.kill(dead["keeper"], signal.SIGKILL)
    eventually(lambda: not state.is_up(runtime), within=READY_SECONDS)
    assert state.state_file(runtime).exists()

    assert run("status").returncode == 3
    assert run("up", "--app=stackapp:app", "--workers=1").returncode == 0

    assert_gone(pids, Path(dead["directory"]))
    assert read(runtime)["keeper"] != dead["keeper"]


def test_an_interrupted_up_leaves_nothing(run: Run, runtime: Path, project: Path) -> None:
    """Killed or interrupted before the stack is ready, ``up`` takes everything back."""
    (project / "stackapp.py").write_text("import time\ntime.sleep(600)\n")
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [*COMMAND, "up", "--app=stackapp:app", "--workers=1"],
            cwd=project,
            env=os.environ | own_pythonpath(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with process:
            eventually(
                lambda: state.state_file(runtime).exists() and read(runtime)["worker"],
                within=READY_SECONDS,
                what="the workers are started",
            )
            known = read(runtime)
            pids = family(known["keeper"])
            process.send_signal(number)
        assert_gone(pids, Path(known["directory"]))
        eventually(lambda: not state.is_up(runtime), within=READY_SECONDS)
        assert not state.state_file(runtime).exists()


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("stackapp:app", "raise RuntimeError('no settings')\n", "RuntimeError: no settings"),
        (
            "stackapp",
            "from celery import Celery\n\none = Celery('one')\nother = Celery('other')\n",
            "name the one that is meant: stackapp:one, stackapp:other",
        ),
    ],
    ids=["it raises", "there are two"],
)
def test_an_app_that_cannot_be_had_is_exit_code_2(
    run: Run, runtime: Path, project: Path, app: str, code: str, said: str
) -> None:
    """In a sentence, and nothing stays up; of two apps Celery would have workers take the first."""
    (project / "stackapp.py").write_text(code)

    shown = run("up", f"--app={app}", "--workers=1")

    assert (shown.returncode, shown.stdout) == (2, "")
    assert said in shown.stderr
    assert not state.is_up(runtime)


def test_the_app_of_the_project_is_the_default(run: Run, runtime: Path, project: Path) -> None:
    """Without ``--app`` it is the one that the project's pytest options name."""
    missing = run("up")
    assert missing.returncode == 2
    assert "which Celery app?" in missing.stderr

    (project / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmanifest_app = "stackapp:app"\n'
    )
    assert run("up", "--workers=1").returncode == 0
    assert read(runtime)["app"] == "stackapp:app"


@pytest.mark.parametrize(
    "arguments", [("up", "--workers=0"), ("up", "--workers=x"), ("sideways",), ()]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], run: Run) -> None:
    """What cannot be meant is refused with a usage line."""
    shown = run(*arguments)

    assert shown.returncode == 2
    assert "Usage: manifest stack" in shown.stderr


def test_flower_is_behind_a_password(run: Run, runtime: Path) -> None:
    """Flower answers on loopback to whoever has the password of the state file, to nobody else."""
    up = run("up", "--app=stackapp:app", "--workers=1", "--flower")
    assert up.returncode == 0, up.stderr
    known = read(runtime)
    url, password = known["flower_url"], known["flower_password"]
    assert url in up.stdout
    assert url.startswith("http://127.0.0.1:")

    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(url, timeout=READY_SECONDS)
    refused.value.close()
    token = base64.b64encode(f"manifest:{password}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=READY_SECONDS) as page:
        assert page.status == 200

    pids = family(known["keeper"])
    assert password not in command_lines(pids)
    addresses = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.pid in pids and connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    assert addresses == {"127.0.0.1"}
