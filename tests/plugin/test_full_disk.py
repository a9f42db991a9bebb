"""A disk that is full where the ledger and the private broker keep what they know."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.processes import is_held
from tests.disks import fill, small_disk
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.reports import starts_by_task
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]


def begun_jobs(project: Project) -> int:
    """How many starts are in the ledger: what was not written yet nobody can know later."""
    with suppress(LedgerError):  # it is made at this moment
        for path in project.ledgers():
            with Ledger.open(path) as ledger:
                return len(starts_by_task(ledger))
    return 0


def test_what_was_queued_when_the_disk_was_full_runs_once(project: Project) -> None:
    """The run gives up and keeps its broker's data, so --manifest-resume knows what never began."""
    held = project.hold("a")
    rows: list[dict[str, object]] = [{"id": "a", "task": "jobs.hold", "args": ["a"]}]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(60)]
    project.manifest("m.jsonl", rows)
    with small_disk(project.path / ".manifest"):
        with pytest_beside(project, "--manifest=m.jsonl", "--manifest-workers=1") as process:
            eventually(lambda: begun_jobs(project), within=100, what="it is known that one began")
            ballast = fill(project.path / ".manifest")
            held.unlink()
            text, _ = process.communicate(timeout=110)
        assert "INTERNALERROR" not in text
        assert process.returncode == pytest.ExitCode.TESTS_FAILED
        (data,) = (project.path / ".manifest/stacks").iterdir()
        assert (data / "appendonlydir").is_dir()
        assert len(project.ran()) < len(rows)
        ballast.unlink()
        # Refused, or nothing to be done: what is kept stays.
        refused = project.run("--manifest=m.jsonl", "--manifest-resume", "--manifest-run=none")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        project.run("--manifest=m.jsonl", "--manifest-resume")
        assert set(project.ran().values()) == {1}
        assert "lost" not in project.verdicts().values()
        assert len(project.ran()) == len(rows)


def test_where_the_data_are_gone_nothing_is_called_lost(project: Project) -> None:
    """pytest was killed and its stack's folder removed: nobody knows what became of the jobs."""
    project.hold("a")
    rows: list[dict[str, object]] = [{"id": "a", "task": "jobs.hold", "args": ["a"]}]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(3)]
    project.manifest("m.jsonl", rows)
    with pytest_beside(project, "--manifest=m.jsonl", "--manifest-workers=1") as process:
        eventually(project.ran, within=100, what="the first job has begun")
        process.kill()
        process.wait(timeout=30)
    stacks = project.path / ".manifest/stacks"
    eventually(lambda: _is_free(stacks), within=100, what="the stack has ended")
    shutil.rmtree(stacks)
    project.run("--manifest=m.jsonl", "--manifest-resume")
    kinds = project.verdicts()
    assert {kinds[f"d-{n}"] for n in range(3)} == {"unknown"}
    assert project.ran() == {"a": 1}


def _is_free(stacks: Path) -> bool:
    return not any(is_held(folder / "lock") for folder in stacks.iterdir())
