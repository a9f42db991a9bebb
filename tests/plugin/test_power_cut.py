"""The machine went down while a private stack was at work: its data may lack their last seconds."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.outside import data_of_a_killed_run


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_was_queued_before_a_power_cut_may_have_begun(project: Project) -> None:
    """The start of the machine that the data were written in is not this one."""
    project.hold("a")
    rows: list[dict[str, object]] = [{"id": "a", "task": "jobs.hold", "args": ["a"]}]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(2)]
    rows += [{"id": "i", "task": "jobs.double", "args": [7], "idempotent": True}]
    project.manifest("m.jsonl", rows)
    data = data_of_a_killed_run(project)
    assert not (data / "boot").exists()  # it came to an end in good order, so all is on the disk
    (data / "boot").write_text("another")
    project.run("--manifest=m.jsonl", "--manifest-resume")
    kinds = project.verdicts()
    assert {kinds["d-0"], kinds["d-1"], kinds["a"]} <= {"unknown", "crashed"}
    assert kinds["i"] == "passed"
    assert project.ran() == {"a": 1, "7": 1}
