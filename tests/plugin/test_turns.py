"""Two sessions that would send the same manifest at the same moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.plugin.test_resume import MEMORY, double
from tests.support import eventually

SLOWLY = """
import time
from collections.abc import Mapping
from pathlib import Path
from pytest_manifest.run.resume import Resume

prepare = Resume.prepare


def slowly(self, expected_workers):
    Path("preparing").touch()
    while Path("preparing").exists():
        time.sleep(0.02)
    prepare(self, expected_workers)


Resume.prepare = slowly
"""


def test_no_dispatch_begins_while_a_run_is_being_taken_up(project: Project) -> None:
    """It would see a run that is over, and the other session would not see its own."""
    held = project.hold("held")
    rows: list[Mapping[str, object]] = [double("a", 1)]
    rows += [{"id": "held", "task": "jobs.hold", "args": ["held"]}]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY, "-k", "not held").assert_outcomes(passed=1)
    conftest = project.write("conftest.py", SLOWLY)
    preparing = project.path / "preparing"
    with pytest_beside(project, "--manifest=m.jsonl", MEMORY, "--manifest-resume") as first:
        eventually(preparing.exists, within=60, what="the run is being taken up")
        conftest.unlink()
        with pytest_beside(project, "--manifest=m.jsonl", MEMORY) as second:
            eventually(
                lambda: project.ran()["held"] or waits_for_a_lock(second.pid),
                within=60,
                what="the dispatch waits for its turn",
            )
            preparing.unlink()
            text, _ = second.communicate(timeout=90)
            held.unlink()
        first.communicate(timeout=90)
    assert project.ran() == {"a": 1, "held": 1}
    assert second.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is going on in another pytest" in text
    assert first.returncode == pytest.ExitCode.OK


def waits_for_a_lock(pid: int) -> bool:
    """Whether the kernel lists the process among those that wait for somebody's lock."""
    lines = Path("/proc/locks").read_text("ascii").splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)
