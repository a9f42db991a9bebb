"""Batch jobs for real: planned, dispatched, collected by workers that are killed, and verified."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import psutil
import pytest
from pydantic import JsonValue

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.facts import Ended
from tasks.filling.report import NANO
from tasks.movie_bible.bible import BibleSettings, MovieBible
from tests.workflows.crud_load import ROOT
from tests.workflows.filling_support import bible_at, documents
from tests.workflows.gemini_server import KEY, GeminiServer, gemini_server
from tests.workflows.gemini_support import cost_nanos
from tests.workflows.jobs_support import check_rows
from tests.workflows.live.test_gap_fill import Project, failed

pytestmark = pytest.mark.live

PASSAGES: Final = 60
KILLS: Final = 4


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    """Each third job goes wrong in some way; all of them are waited for."""
    script: dict[str, JsonValue] = {
        "cached": 0.3,
        "jobs": {
            "faults": ["lost", "swapped", "expired", "doubled", "foreign", "missing"],
            "polls": 4,
            "away": 0.1,
        },
    }
    with gemini_server(script) as serving:
        yield serving


@pytest.fixture
def project(tmp_path: Path) -> Project:
    bible_at(tmp_path, documents(PASSAGES)).close()
    return Project(tmp_path)


def environment(server: GeminiServer) -> dict[str, str]:
    return {
        "GAP_FILL_POLL": "0.3",
        "GAP_FILL_ASKS_ALONE": "12",
        "GEMINI_API_KEY": KEY,
        "TEXT_MODEL_BASE_URL": server.url,
        "TEXT_MODEL_SERVICE_TIER": "batch",
    }


def test_jobs_are_bought_once_whoever_is_killed(project: Project, server: GeminiServer) -> None:
    """Processes of the pool are killed at random moments; the harness sends their entries again.

    Every row is right, its cost is told, and no passage was bought after its answer was read. An
    audit finds a row that was changed afterwards.
    """
    env = environment(server)
    planned = project.plan("batch=15", env=env)
    assert "8 entries" in planned
    assert "tier batch: at half the price" in planned
    running = subprocess.Popen(
        project.command(f"--manifest={project.manifest}"),
        cwd=ROOT,
        env=project.environment(env),
        stdout=subprocess.PIPE,
        text=True,
    )
    killed = kill_now_and_then(running, server)
    printed, _ = running.communicate(timeout=400)
    for _ in range(5):
        if running.returncode == 0:
            break
        resumed = project.pytest(
            f"--manifest={project.manifest}", "--manifest-resume", code=None, env=env
        )
        running.returncode, printed = resumed.returncode, resumed.stdout
    assert running.returncode == 0, printed
    assert killed > 0
    settings = BibleSettings(url=f"sqlite:///{project.database}")
    with MovieBible.open(settings) as bible:
        check_rows(bible, PASSAGES)
    keys = Counter(key for job in server.jobs.jobs for key in job.keys)
    assert set(keys.values()) == {1}
    cost = sum(map(cost_nanos, server.calls))
    assert cost in costs_of(project)
    project.sql("UPDATE annotation SET summary = 'changed' WHERE passage_id = 'film-0001/plot'")
    audited = project.pytest(f"--manifest={project.manifest}", "--manifest-audit", code=1, env=env)
    assert {name.partition("[")[0] for name in failed(audited)} == {"test_rows_of_batch"}


def kill_now_and_then(running: subprocess.Popen[str], server: GeminiServer) -> int:
    """Kill processes of the pool at random moments, once jobs are about; returns how many."""
    chance, killed = random.Random("pool"), 0
    deadline = time.monotonic() + 120
    while killed < KILLS and running.poll() is None and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.1, 0.8))  # moments at random: there is nothing to wait for
        if not server.jobs.jobs:
            continue
        pool = [one for one in psutil.Process(running.pid).children(recursive=True) if works(one)]
        if pool:
            chance.choice(pool).kill()
            killed += 1
    return killed


def works(process: psutil.Process) -> bool:
    """Whether it is a process of a pool: the child of a worker, and itself without one."""
    try:
        parent = process.parent()
        return parent is not None and "worker" in parent.cmdline() and not process.children()
    except psutil.NoSuchProcess:
        return False


def costs_of(project: Project) -> set[int]:
    """What the receipts of all attempts tell in nano dollars, with and without those killed.

    One that was killed in the moment between telling and recording that it has told counts twice.
    """
    (exported,) = (project.folder / "runs" / "runs").glob("*.receipts.jsonl")  # the last attempts'
    lines = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    assert KEY not in exported.read_text("utf-8")
    (ledger_file,) = (project.folder / "runs" / "runs").glob("*.sqlite")
    with Ledger.open(ledger_file) as ledger:
        attempts = [one for line in lines for one in ledger.jobs.of_entry(line["entry"])]
        receipts = [one.receipt for attempt in attempts for one in attempt.own.each(Ended)]
    ended = [one for one in receipts if one.state != "crashed"]
    return {
        sum(int(Decimal(str(one.evidence.get("cost") or 0)) * NANO) for one in some)
        for some in (receipts, ended)
    }
