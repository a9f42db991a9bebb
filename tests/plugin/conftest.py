"""A small project with a Celery app of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from kombu import Connection

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from tests.plugin import inline
from tests.reports import starts_by_task
from tests.support import eventually

SESSION_SECONDS = 300
Play = Callable[[Sequence[str], tuple[Path, Path]], int]
"""What plays a session with these arguments, output and errors into files; it gives the status."""
AT_START = re.compile("PYTHON|LD_|LC_|LANG|TZ$")
"""Variables that Python, or its libraries, read when they start."""

JOBS = """
import os, signal, time
from pathlib import Path
from celery import Celery

app = Celery("jobs")
app.conf.task_ignore_result = False


def count(key):
    with Path(__file__).with_name("ran.txt").open("a") as file:
        file.write(f"{key}\\n")


@app.task(name="jobs.double")
def double(n, key=None):
    count(key or n)
    return {"n": 2 * n, "type": "number"}


@app.task(name="jobs.nap")
def nap(sec, key=None):
    count(key)
    time.sleep(sec)
    return {"slept": sec}


@app.task(name="jobs.hold")
def hold(key):
    count(key)
    until = time.monotonic() + 60
    while Path(__file__).with_name(f"hold-{key}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    return {"key": key}


@app.task(name="jobs.fail")
def fail(message, key=None):
    count(key)
    raise ValueError(message)


@app.task(name="jobs.die")
def die(key=None):
    count(key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="jobs.die_late", acks_late=True, reject_on_worker_lost=True)
def die_late(key=None):
    count(key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="jobs.die_once")
def die_once(key):
    marker = Path(__file__).with_name(f"died-{key}")
    count(key)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"key": key}


@app.task(name="jobs.flaky")
def flaky(key):
    count(key)
    if Path(__file__).with_name(f"broken-{key}").exists():
        raise ValueError(f"{key} is broken")
    return {"key": key}
"""

INI = """
[pytest]
manifest_app = jobs:app
manifest_workers = 1
"""


def _read_at_start() -> dict[str, str]:
    return {name: one for name, one in os.environ.items() if AT_START.match(name)}


HERE = _read_at_start()


class Project:
    """A folder with jobs.py and pytest.ini, in which pytest is run as a user would."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._sessions = 0
        self.leaks: list[str] = []
        """What sessions in this process have left in it."""
        self.write("jobs.py", JOBS)
        self.write("pytest.ini", INI)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def workers(self, count: int) -> None:
        """Have the private stack start so many; one is quicker, and enough for most tests."""
        self.write("pytest.ini", INI.replace("manifest_workers = 1", f"manifest_workers = {count}"))

    def manifest(self, name: str, entries: Sequence[Mapping[str, object]]) -> Path:
        """Write a manifest by hand, without a header."""
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
        return self.write(name, "".join(lines))

    def doubles(self, name: str = "m.jsonl", count: int = 6) -> Path:
        """A manifest of jobs that double a number: ids d-0, d-1, ..."""
        return self.manifest(
            name,
            [
                {
                    "id": f"d-{n}",
                    "task": "jobs.double",
                    "kwargs": {"n": n, "key": f"d-{n}"},
                    "timeout": 20,
                    "tags": ["even" if n % 2 == 0 else "odd"],
                    "expect": {"result": {"n": 2 * n}},
                }
                for n in range(count)
            ],
        )

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in the project, in this process, which it must leave as it was.

        xdist's workers are processes all the same. Where a border of this one is what is tested,
        :meth:`run_process` plays the session: signals, what a process ends with, its descriptors,
        jobs that outlive their session. So are those with variables that Python reads as it starts.
        """
        if _read_at_start() != HERE:
            return self.run_process(*arguments)
        return self._run(arguments, self._inline)

    def run_process(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in the project, in a process of its own."""
        return self._run(arguments, self._process)

    def _run(self, arguments: Sequence[str], play: Play) -> pytest.RunResult:
        self._sessions += 1
        base = f"--basetemp={self.path / f'runpytest-{self._sessions}'}"
        print("running: pytest", *arguments)
        outputs = (self.path / "stdout", self.path / "stderr")
        for path in outputs:
            path.write_bytes(b"")
        began = time.perf_counter()
        try:
            status = play([base, *arguments], outputs)
        except (inline.SessionTooLongError, subprocess.TimeoutExpired):
            pytest.fail(f"the session did not end within {SESSION_SECONDS} s")
        finally:
            took = time.perf_counter() - began
            out, err = (path.read_text("utf-8").splitlines() for path in outputs)
            print(*out, sep="\n")
            print(*err, sep="\n", file=sys.stderr)
        known = {int(code) for code in pytest.ExitCode}
        return pytest.RunResult(
            pytest.ExitCode(status) if status in known else status, out, err, took
        )

    def _inline(self, arguments: Sequence[str], outputs: tuple[Path, Path]) -> int:
        status, left = inline.session(Path.cwd(), arguments, outputs, SESSION_SECONDS)
        self.leaks += left
        inline.keep_modules(self.pytester)
        return status

    def _process(self, arguments: Sequence[str], outputs: tuple[Path, Path]) -> int:
        command = [sys.executable, "-m", "pytest", *arguments]
        with outputs[0].open("ab") as out, outputs[1].open("ab") as err:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=SESSION_SECONDS
            )
        return done.returncode

    def ran(self) -> Counter[str]:
        """How often each job's code has run, by its key."""
        return Counter(self.order())

    def order(self) -> list[str]:
        """The keys of the jobs in the order in which their code began."""
        path = self.path / "ran.txt"
        return path.read_text("utf-8").split("\n")[:-1] if path.exists() else []

    def break_(self, key: str) -> Path:
        """Make ``jobs.flaky`` fail for this key, until the file that is returned is removed."""
        return self.write(f"broken-{key}", "")

    def hold(self, key: str) -> Path:
        """Make ``jobs.hold`` run on for this key, until the file that is returned is removed."""
        return self.write(f"hold-{key}", "")

    def verdicts(self) -> dict[str, str]:
        """The verdicts in the newest run's ledger, by entry."""
        with Ledger.open(self.ledgers()[-1]) as ledger:
            return {s.verdict.entry: s.verdict.verdict for s in ledger.queries.all_verdicts()}

    def ledgers(self) -> list[Path]:
        """The ledgers of all runs, oldest first, also where two began in the same second."""
        found = (self.path / ".manifest" / "runs").glob("*.sqlite")
        return sorted(found, key=lambda path: path.with_suffix(".lock").stat().st_mtime_ns)


def change(manifest: Path, entry: str, fields: Mapping[str, object]) -> None:
    """Replace fields of one entry, where it stands in the file."""
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    for row in rows:
        if row.get("id") == entry:
            row.update(fields)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def kill_in_the_middle(project: Project) -> None:
    """kill -9 of a pytest whose stack is in its own memory, so that both are gone.

    Of five entries n-0 ... n-4, of which n-2 is idempotent, n-0 has passed, n-1 is running, n-2 has
    been sent and the others have not.
    """
    project.manifest(
        "m.jsonl",
        [
            {
                "id": f"n-{n}",
                "task": "jobs.nap",
                "kwargs": {"sec": 60 if n == 1 else 0, "key": f"n-{n}"},
                "idempotent": n == 2,
            }
            for n in range(5)
        ],
    )
    command = [sys.executable, "-m", "pytest", "--manifest=m.jsonl", "--manifest-broker=memory://"]
    with subprocess.Popen(
        [*command, "--manifest-window=2"], cwd=project.path, stdout=subprocess.DEVNULL
    ) as process:
        try:
            eventually(lambda: _sent(project) == 3, within=60, what="three jobs are sent")
            eventually(lambda: _begun(project) == 2, what="the second job's start is in the ledger")
        finally:
            process.kill()


def _sent(project: Project) -> int:
    for path in project.ledgers():
        with suppress(LedgerError), Ledger.open(path) as ledger:  # it is made at this moment
            return ledger.attempts.send_states().get("sent", 0)
    return 0


def _begun(project: Project) -> int:
    (path,) = project.ledgers()
    with Ledger.open(path) as ledger:
        return len(starts_by_task(ledger))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project; nothing of the surrounding session reaches into it, nor of it out."""
    for name in list(os.environ):
        if name.startswith(("CELERY_", "MANIFEST_", "PYTEST_XDIST", "GITHUB_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)
    made = Project(pytester)
    yield made
    assert not made.leaks, "\n".join(["a session has left in its process:", *made.leaks])


@pytest.fixture
def in_memory(project: Project) -> None:
    """The project's stack is in the memory of its pytest, which is quicker than a private one."""
    project.write("pytest.ini", INI + "addopts = --manifest-broker=memory://\n")


@pytest.fixture
def rabbitmq_url(rabbitmq_url: str) -> str:
    """The private RabbitMQ, without what jobs of another test have left in Celery's own queue."""
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_delete("celery")
    return rabbitmq_url


@pytest.fixture
def broker(valkey: str) -> str:
    """An empty database of the private Valkey."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    return valkey
