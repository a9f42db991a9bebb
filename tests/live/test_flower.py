"""``manifest stack up --flower``: our runs in a real Flower, by its own interface."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.stack import state
from pytest_manifest.stack.client import own_pythonpath
from pytest_manifest.stack.settings import State
from tests.live.stack_support import READY_SECONDS, command_lines, family
from tests.support import eventually

pytestmark = pytest.mark.timeout(240)

HOSTILE = "<script>alert('1')</script>"
JOBS = """
from celery import Celery

app = Celery("jobs")
app.conf.task_ignore_result = False

@app.task(name="jobs.double")
def double(number):
    return 2 * number
"""
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this test alone, and an environment without stacks of others."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    for name in list(os.environ):
        if name.startswith(("CELERY_", "MANIFEST_", "PYTEST_XDIST", "FLOWER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return state.runtime_directory()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An app, and a manifest with a hostile id."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "jobs.py").write_text(JOBS)
    (folder / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n")
    ids = ("film-1", "film-2", HOSTILE)
    rows = [{"id": name, "task": "jobs.double", "kwargs": {"number": 7}} for name in ids]
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def command(runtime: Path, project: Path) -> Iterator[Command]:
    """Run a module of ours in the project; whatever stack is up at the end goes down."""

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=project,
            env=os.environ | own_pythonpath(),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    yield run
    run("pytest_manifest", "stack", "down")


def stack(command: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("pytest_manifest", "stack", *arguments)


def read(runtime: Path) -> State:
    return cast("State", json.loads(state.state_file(runtime).read_text()))


def fetch(known: State, path: str) -> str:
    """What Flower answers to the user of the stack."""
    token = base64.b64encode(f"manifest:{known['flower_password']}".encode()).decode()
    request = urllib.request.Request(
        known["flower_url"] + path, headers={"Authorization": f"Basic {token}"}
    )
    with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:
        return cast("str", answer.read().decode())


def tasks(known: State) -> dict[str, dict[str, Any]]:
    """The tasks that Flower has seen end, by id."""
    found: dict[str, dict[str, Any]] = json.loads(fetch(known, "/api/tasks"))
    return {key: task for key, task in found.items() if task["state"] == "SUCCESS"}


def test_runs_are_shown_with_names_and_arguments(
    command: Command, runtime: Path, project: Path
) -> None:
    """Each job is there under its task's name, its arguments and its entry's id; summary and
    status say where."""
    up = stack(command, "up", "--app=jobs:app", "--workers=1", "--flower")
    assert up.returncode == 0, up.stderr
    known = read(runtime)

    run = command("pytest", "--manifest=m.jsonl", "--manifest-stack")
    assert run.returncode == 0, run.stdout
    assert f"{known['flower_url']}/tasks" in run.stdout
    assert known["flower_url"] in stack(command, "status").stdout

    eventually(
        lambda: len(tasks(known)) == 3,
        within=READY_SECONDS,
        what="Flower has seen three jobs succeed",
    )
    shown = tasks(known)
    assert {task["name"] for task in shown.values()} == {"jobs.double"}
    (path,) = (project / ".manifest" / "runs").glob("*.sqlite")
    with Ledger.open(path) as ledger:
        sent = {row.entry: row.task_id for row in ledger.attempts.newest()}
        name = ledger.info.read().run
    for entry, task_id in sent.items():
        assert shown[task_id]["kwargs"] == f"[{entry}] {{'number': 7}}  # run {name}"
    assert "[film-1]" in fetch(known, f"/task/{sent['film-1']}")
    assert HOSTILE not in fetch(known, f"/task/{sent[HOSTILE]}")
    table = fetch(known, "/tasks")
    heads = [head.strip().lower() for head in re.findall(r"<th[^>]*>([^<]*)</th>", table)]
    # In Flower 2.0 a script hides the others, in an order of its own.
    named = re.findall(r"""value="([^"]*)" id='columns'""", table)
    assert (named[0].split(",") if named else heads)[:3] == ["name", "kwargs", "args"]


def test_a_run_that_names_the_broker_is_led_there_too(command: Command, runtime: Path) -> None:
    """``--manifest-broker="$(manifest stack url)"`` is the same stack."""
    assert stack(command, "up", "--app=jobs:app", "--workers=1", "--flower").returncode == 0
    known = read(runtime)
    url = f"--manifest-broker={stack(command, 'url').stdout.strip()}"

    run = command("pytest", "--manifest=m.jsonl", url)

    assert run.returncode == 0, run.stdout
    assert f"{known['flower_url']}/tasks" in run.stdout


@pytest.mark.ring(1)
def test_its_worker_is_shown_as_alive(command: Command, runtime: Path) -> None:
    """Its heartbeats come with the events."""
    assert stack(command, "up", "--app=jobs:app", "--workers=2", "--flower").returncode == 0
    known = read(runtime)

    def alive() -> bool:
        status = json.loads(fetch(known, "/api/workers?status=1"))
        return len(status) == 1 and all(status.values())

    eventually(alive, within=READY_SECONDS, what="Flower shows the worker as alive")


def test_the_password_is_told_once(command: Command, runtime: Path) -> None:
    """``up`` prints it, nothing else does; the state file is its owner's alone."""
    up = stack(command, "up", "--app=jobs:app", "--workers=1", "--flower")
    assert up.returncode == 0, up.stderr
    known = read(runtime)
    password = known["flower_password"]

    assert up.stdout.count(password) == 1
    again = stack(command, "up", "--app=jobs:app", "--flower")
    assert again.stdout.startswith("already up")
    assert password not in again.stdout + stack(command, "status").stdout
    assert password not in command_lines(family(known["keeper"]))
    assert stat.S_IMODE(state.state_file(runtime).stat().st_mode) == 0o600
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"{known['flower_url']}/api/tasks", timeout=READY_SECONDS)
    refused.value.close()


def test_the_port_can_be_chosen(command: Command, runtime: Path) -> None:
    """A given port is used; one that is taken is refused before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = stack(command, "up", "--app=jobs:app", f"--flower-port={port}")
    assert refused.returncode == 2
    assert f"port {port} is taken" in refused.stderr
    assert state.running_stack() is None

    up = stack(command, "up", "--app=jobs:app", "--workers=1", f"--flower-port={port}")
    assert up.returncode == 0, up.stderr
    assert read(runtime)["flower_url"] == f"http://127.0.0.1:{port}"


def test_without_flower_workers_send_no_events(
    command: Command, runtime: Path, project: Path
) -> None:
    """Events cost throughput, so nobody pays who has not asked; Flower cannot be added later."""
    assert stack(command, "up", "--app=jobs:app", "--workers=1").returncode == 0
    known = read(runtime)
    assert known["flower_url"] == ""
    lines = command_lines(family(known["keeper"]))
    assert "--task-events" not in lines
    assert "--without-heartbeat" in lines

    refused = stack(command, "up", "--app=jobs:app", "--flower")
    assert refused.returncode == 2
    assert "has no Flower" in refused.stderr
    run = command("pytest", "--manifest=m.jsonl", "--manifest-stack")
    assert run.returncode == 0, run.stdout
    assert "/tasks" not in run.stdout
