"""Ctrl-C in the middle of tests with real servers and workers leaves none of them behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from tests import services
from tests.conftest import missing
from tests.interrupting import described, interrupted

pytestmark = [pytest.mark.live, pytest.mark.rabbitmq, pytest.mark.postgres]

ROOT = Path(__file__).resolve().parents[2]
BUSY_SECONDS = 60
"""When a busy machine has to have done what is to take five seconds."""
JOBS = """
import time
from celery import Celery

app = Celery("jobs")

@app.task(name="jobs.nap")
def nap():
    open("job-begun", "w").close()
    time.sleep(300)
"""
CONFTEST = "from tests.conftest import postgres_url, rabbitmq_url, valkey\n"
TESTS = """
import os, subprocess, sys, time
from pathlib import Path
from tests.processes import ELSEWHERE, child

HERE = Path(__file__).parent

def test_servers(rabbitmq_url, postgres_url, valkey):
    worker = [sys.executable, "-m", "celery", "--app=jobs", "--broker", valkey, "worker"]
    subprocess.Popen([*worker, "--hostname=group@%h"], cwd=HERE)
    subprocess.Popen([*ELSEWHERE, *worker, "--hostname=elsewhere@%h"], cwd=HERE)
    with child([*worker, "--hostname=own@%h"], log=HERE / "worker.log", cwd=HERE):
        (HERE / "servers-begun").touch()
        time.sleep(300)

def test_session():
    subprocess.run([sys.executable, "-m", "pytest", "--manifest=m.jsonl"], cwd=HERE)
"""
PARTS = ("valkey-server", "beam.smp", "epmd", "postgres", "celery", "--manifest=")
"""What the command lines say that are there before the interrupt."""


def test_no_server_and_no_worker_is_left(tmp_path: Path) -> None:
    """Ports, pools and mappers of brokers, a private stack, workers in a namespace of their own."""
    try:
        services.rabbitmq_binaries()
        services.postgres_binaries()
    except services.ServiceUnavailableError as unavailable:
        missing(str(unavailable))
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n")
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "nap", "task": "jobs.nap"}) + "\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_long.py").write_text(TESTS)

    def ready(processes: list[psutil.Process]) -> bool:
        begun = all((tmp_path / f"{name}-begun").exists() for name in ("servers", "job"))
        lines = "\n".join(map(described, processes))
        return begun and all(part in lines for part in PARTS)

    launcher = [
        sys.executable,
        "-m",
        "tests.launcher",
        "-n",
        "2",
        "-c",
        str(tmp_path / "pytest.ini"),
    ]
    seen = interrupted([*launcher, str(tmp_path)], log=tmp_path / "log", ready=ready, cwd=ROOT)
    assert seen.left == []
    assert seen.seconds < BUSY_SECONDS
