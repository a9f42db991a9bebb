"""A run is followed from another process: while it runs, when its pytest is killed, to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import read_manifest
from pytest_manifest.schema.run_status import MOST_BYTES, RunStatus
from pytest_manifest.stack.client import own_pythonpath
from tests.support import eventually

pytestmark = pytest.mark.timeout(300)

ENTRIES = 60
PATIENCE = 120.0
"""Seconds in which a busy machine has to have come to each point."""
JOBS = """
import time
from celery import Celery

app = Celery("jobs")

@app.task
def work(n):
    time.sleep(0.2)
    if n % 10 == 3:
        raise ValueError(f"no {n % 2}")
    return {"cost": 0.5, "n": n}
"""


def environment() -> dict[str, str]:
    names = ("PYTEST", "MANIFEST", "COV")
    return {k: v for k, v in os.environ.items() if not k.startswith(names)} | own_pythonpath()


def project(folder: Path) -> Path:
    (folder / "pytest.ini").write_text("[pytest]\nmanifest_broker = private\n", "utf-8")
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    lines = (
        {"id": f"e{n}", "task": "jobs.work", "args": [n], "idempotent": True}
        for n in range(ENTRIES)
    )
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines), "utf-8")
    return folder


@contextmanager
def session(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A pytest that runs the manifest on a stack of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--manifest=m.jsonl", "--manifest-app=jobs:app", "--manifest-workers=2", *options]
    with (folder / "pytest.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def ledger_of(folder: Path) -> Path:
    runs, log = folder / ".manifest" / "runs", folder / "pytest.log"
    return eventually(lambda: [*runs.glob("*.sqlite")], within=40, what=f"a ledger; see {log}")[0]


def sound(found: RunStatus, before: RunStatus | None) -> RunStatus:
    """Hold what is true of each look."""
    assert found.done + found.running + found.waiting + found.unsent == found.total
    assert sum(found.counts.values()) - found.counts.get("pending", 0) == found.done
    assert sum(one.count for one in found.causes) == found.counts.get("failed", 0)
    assert sum(one.passed for one in found.tasks) == found.counts.get("passed", 0)
    assert len(found.model_dump_json().encode()) <= MOST_BYTES
    if before is not None:
        assert found.done >= before.done
        assert found.sent >= before.sent
    return found


def status(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest_manifest", "status", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def test_a_run_is_followed_to_its_end_over_the_death_of_its_pytest(tmp_path: Path) -> None:
    """Each look is sound; the last one is what the ledger, the summary and another process say."""
    folder = project(tmp_path)
    seen: list[RunStatus] = []
    with session(folder) as process:
        path = ledger_of(folder)
        with RunReader(path) as reader:

            def are_ten_done() -> bool:
                seen.append(sound(reader.look(), seen[-1] if seen else None))
                return seen[-1].done >= 10

            eventually(are_ten_done, within=40, what="ten jobs have ended")
            assert seen[-1].state == "running"
            assert max(one.running for one in seen) > 0
            assert any(one.workers and one.workers[0].has for one in seen)
            process.kill()
            process.wait()
            left = sound(reader.look(), seen[-1])
            assert left.state == "left"
            shown = status(folder)
            assert "Its pytest is gone" in shown
            assert f"--manifest-run={path.stem}" in " ".join(shown.split())
            with session(folder, "--manifest-resume", f"--manifest-run={path.stem}") as again:
                assert again.wait(PATIENCE) == 1
            found = sound(reader.look(), left)
    assert (found.state, found.done, found.total) == ("finished", ENTRIES, ENTRIES)
    assert found.counts == {"passed": ENTRIES - 6, "failed": 6}
    assert "began" in [one.kind for one in found.series.flags]
    other = RunStatus.model_validate_json(status(folder, "--json"))
    same: dict[str, object] = {"at": found.at, "causes": [], "series": None, "workers": []}
    assert other.model_copy(update=same) == found.model_copy(update=same)
    manifest = read_manifest(folder / "m.jsonl")
    with Ledger.open(path) as ledger:
        whole = statistics(read_records(ledger, manifest), ledger.info.read())
    assert whole.verdicts == found.counts
    assert [(one.title, one.count) for one in found.causes] == [
        (one.title, one.count) for one in whole.causes
    ]


def test_the_command_follows_a_run_until_it_is_over(tmp_path: Path) -> None:
    """A document a line; the last one has what it came to."""
    folder = project(tmp_path)
    with session(folder) as process:
        path = ledger_of(folder)
        lines = status(folder, str(path), "--follow", "--json").splitlines()
        assert process.wait(PATIENCE) == 1
    documents = [RunStatus.model_validate_json(line) for line in lines]
    before: RunStatus | None = None
    for one in documents:
        before = sound(one, before)
    assert documents[0].state == "running"
    assert documents[-1].verdict == f"6 of {ENTRIES} entries failed, {ENTRIES - 6} passed"
