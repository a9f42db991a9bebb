"""A run that is traced, interrupted and resumed: one span an entry, sent once it is judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.otlp_receiver import Found, receiver
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

FAILING = """

@app.task(name="jobs.hold_and_fail")
def hold_and_fail(key):
    hold(key)
    raise ValueError("no")
"""


def runs(found: list[Found]) -> list[Found]:
    return [one for one in found if one["name"] == "RUN m.jsonl"]


def verdicts(found: list[Found]) -> Counter[tuple[str, str]]:
    """Each entry's span, by what it says of the entry."""
    cases = [one["attributes"] for one in found if one["name"].startswith("send ")]
    return Counter((one["test.case.name"], one["manifest.verdict"]) for one in cases)


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_each_entry_and_each_stretch_has_one_span(
    project: Project, broker: str, tmp_path: Path, how: str
) -> None:
    """No entry is told of before its verdict, none is left out, none is told of twice."""
    held = [project.hold(key) for key in ("slow", "bad")]
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + FAILING)
    rows = [{"id": f"n-{n}", "task": "jobs.double", "args": [n, f"n-{n}"]} for n in range(4)]
    rows[2:2] = [
        {"id": "slow", "task": "jobs.hold", "args": ["slow"]},
        {"id": "bad", "task": "jobs.hold_and_fail", "args": ["bad"]},
    ]
    project.manifest("m.jsonl", rows)
    with receiver(tmp_path) as collector, worker(project, broker, *INSTRUMENTED, slots=2):
        endpoint = ("-o", f"manifest_otlp={collector.endpoint}", "-o", "manifest_grace=0")
        options = ("--manifest=m.jsonl", f"--manifest-broker={broker}", *endpoint)
        with pytest_beside(project, *options) as process:
            eventually(lambda: len(project.ran()) == 4, within=60, what="two are held")
            eventually(lambda: len(collector.spans) == 2, within=60, what="two are told of")
            if how == "killed":
                os.kill(process.pid, signal.SIGKILL)
            else:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        eventually(lambda: runs(collector.spans), within=60, what="the first stretch is told of")
        assert verdicts(collector.spans) == {("n-0", "passed"): 1, ("n-1", "passed"): 1}
        for one in held:
            one.unlink()
        eventually(lambda: len(project.ran()) == 6, within=60, what="all have begun")
        project.run(*options, "--manifest-resume").assert_outcomes(passed=5, failed=1)
        assert_whole(collector.spans)
    (later := tmp_path / "later").mkdir()
    with receiver(later) as collector:
        to = ("export", "last", "--format=otlp", f"--endpoint={collector.endpoint}")
        command = [sys.executable, "-m", "pytest_manifest", *to]
        subprocess.run(command, cwd=project.path, check=True)
        assert_whole(collector.spans)


def assert_whole(found: list[Found]) -> None:
    """Every entry was told of once, and the second stretch is part of the run."""
    passed = [*(f"n-{n}" for n in range(4)), "slow"]
    assert verdicts(found) == {**{(name, "passed"): 1 for name in passed}, ("bad", "failed"): 1}
    first, second = runs(found)
    assert second["parentSpanId"] == first["spanId"]
    assert (second["attributes"]["manifest.verdict.failed"], len(found)) == ("1", 8)
