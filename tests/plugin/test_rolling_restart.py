"""Workers that are replaced under their name while a run goes on, as a rolling restart does."""

from __future__ import annotations

import signal
import time
from typing import Final

import pytest

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.support import eventually

pytestmark = pytest.mark.live
SEARCHED: Final = 16
"""Seconds in which jobs are searched for, given up and sent again: two looks after a quiet time."""


def test_what_the_old_worker_ends_is_not_lost(project: Project, broker: str) -> None:
    """It ends once its jobs have; the new one of its name has none of them, and says so."""
    row = {"task": "jobs.hold", "idempotent": True, "retries": 1}
    rows = [{"id": name, "kwargs": {"key": name}, **row} for name in ("a", "b")]
    project.manifest("m.jsonl", rows)
    held = [project.hold(str(one["id"])) for one in rows]
    at = f"--manifest-broker={broker}"
    with (
        worker(project, broker, *INSTRUMENTED) as old,
        pytest_beside(project, "--manifest=m.jsonl", at) as session,
    ):
        eventually(lambda: set(project.ran()) == {"a", "b"}, within=60, what="both have begun")
        old.send_signal(signal.SIGTERM)
        with worker(project, broker, *INSTRUMENTED):
            until = time.monotonic() + SEARCHED
            while time.monotonic() < until and sum(project.ran().values()) == 2:
                time.sleep(0.2)
            for one in held:
                one.unlink()
            printed, _ = session.communicate(timeout=60)
    assert session.returncode == 0, printed
    assert project.ran() == {"a": 1, "b": 1}
