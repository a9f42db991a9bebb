"""The tables of exit statuses: each row is provoked, and nothing else is listed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.docs.test_reference import REFERENCE
from tests.interrupting import is_alive
from tests.plugin.conftest import Project, broker, project
from tests.support import eventually

__all__ = ["broker", "project"]  # fixtures are found by their names here

pytestmark = [pytest.mark.live, pytest.mark.broken_record]

MEMORY = "--manifest-broker=memory://"
PLAN = (
    "from pytest_manifest import planning_fixture\n"
    "@planning_fixture('w:x')\n"
    "def w(plan):\n"
    "    plan.add('jobs.double', args=[1], id='one')\n"
)

Provoked = Callable[[Project, str], int]


def table() -> dict[tuple[str, int, str], str]:
    """The rows of the page: (program, status, first words of when)."""
    found: dict[tuple[str, int, str], str] = {}
    program = ""
    for line in (REFERENCE / "exit-codes.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            program = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0].isdigit():
            found[program, int(cells[0]), beginning(cells[1])] = cells[1]
    return found


def beginning(text: str) -> str:
    """What a row is told by: its first four words."""
    return " ".join(text.split()[:4])


def pytest_ends(*arguments: str) -> Provoked:
    """Two entries, and pytest with these arguments."""

    def provoke(project: Project, broker: str) -> int:
        project.doubles(count=2)
        project.write("conftest.py", PLAN)
        given = [argument.format(broker=broker) for argument in arguments]
        return int(project.run(*given).ret)

    return provoke


def fails(project: Project, _broker: str) -> int:
    project.manifest("m.jsonl", [{"id": "f", "task": "jobs.fail", "args": ["no"]}])
    return int(project.run("--manifest=m.jsonl", MEMORY).ret)


def lacks_a_report(project: Project, _broker: str) -> int:
    """The place is there when the run begins, and not when the report is written."""
    project.doubles(count=1)
    project.write(
        "conftest.py",
        "import shutil\n"
        "def pytest_runtest_teardown():\n"
        "    shutil.rmtree('reports')\n"
        "    open('reports', 'w').close()\n",
    )
    (project.path / "reports").mkdir()
    return int(
        project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=reports/summary.md").ret
    )


def is_left(project: Project, _broker: str) -> int:
    """Its process is waited for, too."""
    project.doubles(count=1)
    done = project.run_process("--manifest=m.jsonl", MEMORY, "--manifest-detach")
    pid = json.loads(done.stdout.str())["pid"]
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        eventually(lambda: not is_alive(process), within=60, what="the run's process ends")
    return int(done.ret)


def breaks_a_promise(project: Project, _broker: str) -> int:
    """Somebody takes the receipts out of the ledger before the report is written."""
    project.doubles(count=1)
    project.write(
        "conftest.py",
        "import sqlite3, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_manifest_finished(config, run):\n"
        "    with sqlite3.connect(run.ledger_path) as db:\n"
        "        db.execute('UPDATE verdicts SET \"end\" = NULL, added = NULL')\n",
    )
    return int(project.run("--manifest=m.jsonl", MEMORY).ret)


def breaks_off(project: Project, broker: str) -> int:
    """Nobody works, and the deadline is over before everything is sent."""
    project.doubles(count=30)
    options = ("--manifest-dispatch-only", "--manifest-deadline=0.001s")
    return int(project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", *options).ret)


def cannot_collect(project: Project, _broker: str) -> int:
    project.manifest(
        "m.jsonl",
        [{"manifest": 1, "workflow": "w"}, {"id": "d", "task": "jobs.double", "args": [1]}],
    )
    project.write("workflows/w/verify.py", "import nothing_of_this_name\n")
    status = int(project.run("--manifest=m.jsonl", MEMORY).ret)
    assert not project.ran()
    return status


def has_an_internal_error(project: Project, _broker: str) -> int:
    project.doubles(count=1)
    project.write("conftest.py", "def pytest_collection_modifyitems():\n    raise ValueError\n")
    return int(project.run("--manifest=m.jsonl", MEMORY).ret)


def ended_by(number: signal.Signals) -> Provoked:
    """The status that a shell shows for a pytest that gets this signal while a job runs."""

    def provoke(project: Project, _broker: str) -> int:
        project.hold("h")
        project.manifest("m.jsonl", [{"id": "h", "task": "jobs.hold", "args": ["h"]}])
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "pytest",
            "--manifest=m.jsonl",
            MEMORY,
        ]
        with subprocess.Popen(
            [*command, "--override-ini=manifest_grace=0.1s"],
            cwd=project.path,
            stdout=subprocess.DEVNULL,
            # Tests under nohup ignore SIGHUP, and what they start would, too.
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
        ) as process:
            try:
                eventually(lambda: bool(project.ran()), within=60, what="the job runs")
                process.send_signal(number)
                # Longer than the job holds out, for which a stack in memory may have to wait.
                status = process.wait(150)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it shows what each of its threads does
                process.wait(30)
                raise
            finally:
                process.kill()
        return shown(status)

    return provoke


def shown(status: int) -> int:
    """What a shell shows of a process: of one that a signal has ended, 128 more than its number."""
    return 128 - status if status < 0 else status


def command(
    project: Project, *arguments: str, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start ``manifest`` in the project, without a stack of this machine."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("manifest"), *arguments],
        cwd=project.path,
        env={"HOME": str(project.path), "XDG_RUNTIME_DIR": str(project.path)},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )


def command_ends(*arguments: str) -> Provoked:
    """``manifest`` with these arguments."""

    def provoke(project: Project, _broker: str) -> int:
        project.write("faulty.jsonl", '{"id": "one"}\n')
        with command(project, *arguments) as process:
            try:
                return process.wait(60)
            finally:
                process.kill()

    return provoke


def command_interrupted(project: Project, _broker: str) -> int:
    """It prints more than a pipe holds, and nobody reads on: so it is at it when Ctrl-C comes."""
    project.write("faulty.jsonl", '{"id": "one"}\n' * 5_000)
    with command(project, "lint", "faulty.jsonl", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            return shown(process.returncode)
        finally:
            process.kill()


SCENARIOS: dict[tuple[str, int, str], Provoked] = {
    ("pytest", 0, "every entry did what"): pytest_ends("--manifest=m.jsonl", MEMORY),
    ("pytest", 0, "a plan was written"): pytest_ends("--manifest-plan=w:x"),
    ("pytest", 0, "everything was sent (`--manifest-dispatch-only`);"): pytest_ends(
        "--manifest=m.jsonl", "--manifest-broker={broker}", "--manifest-dispatch-only"
    ),
    ("pytest", 0, "the run is left"): is_left,
    ("pytest", 0, "a shard has no"): pytest_ends(
        "--manifest=m.jsonl", MEMORY, "--manifest-shard=3/3"
    ),
    ("pytest", 1, "an entry failed its"): fails,
    ("pytest", 1, "not everything was sent"): breaks_off,
    ("pytest", 1, "a report could not"): lacks_a_report,
    ("pytest", 1, "the run's record breaks"): breaks_a_promise,
    ("pytest", 2, "Ctrl-C"): ended_by(signal.SIGINT),
    ("pytest", 2, "an error while collecting,"): cannot_collect,
    ("pytest", 3, "an internal error of"): has_an_internal_error,
    ("pytest", 4, "the command line, the"): pytest_ends("--manifest=absent.jsonl"),
    ("pytest", 5, "no test was selected"): pytest_ends(
        "--manifest=m.jsonl", MEMORY, "-k", "nothing"
    ),
    ("pytest", 129, "ended by SIGHUP, as"): ended_by(signal.SIGHUP),
    ("pytest", 143, "ended by SIGTERM, as"): ended_by(signal.SIGTERM),
    ("pytest", 137, "killed (`kill -9`, out"): ended_by(signal.SIGKILL),
    ("manifest", 0, "done"): command_ends("--help"),
    ("manifest", 1, "a check has found"): command_ends("lint", "faulty.jsonl"),
    ("manifest", 2, "you can mend it:"): command_ends("merge", "absent.sqlite"),
    ("manifest", 3, "no stack is up:"): command_ends("stack", "status"),
    ("manifest", 130, "Ctrl-C"): command_interrupted,
}
LIKE_CTRL_C = (128 + signal.SIGHUP, 128 + signal.SIGTERM)
"""Statuses of signals that are taken as Ctrl-C is, which unit/test_interrupts.py holds, too."""


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.ring(2) if row[1] in LIKE_CTRL_C else ())
        for row in SCENARIOS
    ],
    ids=[f"{program}-{status}-{words[:12]}" for program, status, words in SCENARIOS],
)
def test_each_status_is_what_the_command_ends_with(
    row: tuple[str, int, str], project: Project, broker: str
) -> None:
    """The row's situation, for real."""
    assert row in table()
    assert SCENARIOS[row](project, broker) == row[1]


@pytest.mark.ring(1)
def test_every_row_is_provoked() -> None:
    """A row without a scenario would be a promise that nobody holds."""
    assert table().keys() == SCENARIOS.keys()
