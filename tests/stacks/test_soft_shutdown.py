"""A worker that is told to end and gives its jobs some time: Celery's soft shutdown (5.5)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pytest_manifest.manifest import write_manifest
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Header
from pytest_manifest.urls import StackAddress
from tests.contract.work import entry, verdicts_of
from tests.stacks.cells import CELLS
from tests.stacks.running import running
from tests.support import eventually

pytestmark = pytest.mark.live
CELL = "valkey/valkey/prefork/instrumented/soft shutdown"
SECONDS = 2.0
"""A job's length, well within the cell's soft shutdown."""


def test_a_job_that_ends_within_it_has_its_verdict(tmp_path: Path) -> None:
    """It was told to end while the job ran; the receipt comes all the same, once."""
    job = entry("one", "sleep", SECONDS, expect={"result": "slept"})
    manifest = write_manifest(tmp_path / "one.jsonl", Header(), [job])
    with running(CELLS[CELL]) as up:
        address = StackAddress(
            up.broker.broker, up.store.store, "tests.contract.app:app", is_private=False
        )
        run = dispatch_run(manifest, manifest.ids, address, RunSettings(folder=tmp_path / "runs"))
        run.prepare(expected_workers=1)
        run.start()
        try:
            eventually(
                lambda: any(job.is_running for job in run.in_flight()),
                within=60,
                what="the job has begun",
            )
            up.worker.send_signal(signal.SIGQUIT)
            assert run.ended.wait(60)
        finally:
            run.stop()
        up.worker.wait(60)
    settled = verdicts_of(run)["one"]
    assert settled.verdict.verdict == "passed", settled.verdict.sentence
    assert settled.receipt is not None
    assert settled.receipt.executions == 1
