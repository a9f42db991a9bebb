"""The system test for real: planned, dispatched and verified by what a person types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from tests import services
from tests.processes import child, tail, temporary_directory
from tests.support import eventually
from tests.workflows.crud_load import ROOT

pytestmark = pytest.mark.live

COUNTER = "test:runs"


def run_pytest(folder: Path, *arguments: str, **environment: str) -> str:
    """Run pytest in the project, with its ledgers in ``folder``; return what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "MANIFEST_", "PYTEST_")) and name != "DATABASE_URL"
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-o", f"manifest_dir={folder}/runs"],
        cwd=ROOT,
        env={**inherited, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outcome(printed: str) -> str:
    """The last line's counts, like ``200 passed``."""
    found = re.search(r"=* ?(\d+ .*) in [\d.]+s", printed.splitlines()[-1])
    assert found is not None, printed
    return found[1]


@contextmanager
def two_workers(**environment: str) -> Iterator[None]:
    """Two worker processes of one child each, as an external stack has them."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_directory())
        env = {**os.environ, **environment}
        started: list[tuple[subprocess.Popen[bytes], Path]] = []
        for number in (1, 2):
            log = folder / f"{number}.log"
            command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1"]
            command += ["-n", f"w{number}@here", "-l", "INFO"]
            process = stack.enter_context(child(command, log=log, cwd=ROOT, env=env))
            started.append((process, log))

        def ready() -> bool:
            for process, log in started:
                assert process.poll() is None, tail(log)
            return all(" ready." in log.read_text() for _, log in started)

        eventually(ready, within=60, what="both workers say that they are ready")
        yield


def test_two_hundred_entries_run_once_each(tmp_path: Path) -> None:
    """200 entries under four xdist workers are 200 tests that pass, and 200 runs, no more."""
    manifest, database = tmp_path / "m.jsonl", f"sqlite:///{tmp_path}/test.sqlite3"
    options = [
        "--manifest-plan=system_test:mixed",
        "--manifest-plan-opt",
        "count=200",
        f"--manifest={manifest}",
    ]
    run_pytest(tmp_path, *options)
    with services.valkey_server() as url, redis.Redis.from_url(url) as store:
        stack = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        ours = {"MANIFEST_DATABASE_URL": database}
        with two_workers(**stack, **ours, MANIFEST_RUN_COUNTER=COUNTER):
            printed = run_pytest(tmp_path, f"--manifest={manifest}", "-n", "4", **stack, **ours)
        assert outcome(printed) == "200 passed"
        assert store.get(COUNTER) == b"200"


@pytest.mark.parametrize(
    ("mode", "passed"),
    [
        pytest.param("debug", 8, marks=pytest.mark.ring(1)),
        ("sleep", 13),
        ("crud", 8),
        ("crud_latency", 14),
        ("crud_stress", 14),
    ],
)
def test_each_mode(tmp_path: Path, mode: str, passed: int) -> None:
    """On the embedded stack: one test an entry, and the tests of the run as a whole."""
    count = 8 if passed == 8 else 12
    options = [
        f"--manifest-plan=system_test:{mode}",
        "--manifest-plan-opt",
        f"count={count}",
        "--manifest-plan-run",
    ]
    if passed > count:
        options += ["--manifest-plan-opt", "sleep=0.2"]
    printed = run_pytest(
        tmp_path,
        *options,
        "--manifest-workers=2",
        f"--manifest={tmp_path}/m.jsonl",
        MANIFEST_DATABASE_URL=f"sqlite:///{tmp_path}/test.sqlite3",
    )
    assert outcome(printed) == f"{passed} passed"


@pytest.mark.postgres
def test_stress_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The same checks hold on PostgreSQL."""
    printed = run_pytest(
        tmp_path,
        "--manifest-plan=system_test:crud_stress",
        "--manifest-plan-run",
        "--manifest-workers=2",
        f"--manifest={tmp_path}/m.jsonl",
        MANIFEST_DATABASE_URL=postgres_url,
    )
    assert outcome(printed) == "52 passed"
