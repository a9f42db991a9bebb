"""The summary in the terminal: what a run amounts to, in any window."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.plugin.conftest import JOBS, Project

MEMORY = "--manifest-broker=memory://"
MORE_JOBS = """

@app.task(name="jobs.again", bind=True)
def again(self, key, times):
    count(key)
    if self.request.retries < times:
        raise self.retry(countdown=0, max_retries=times)
    return {"key": key}


@app.task(name="jobs.paid")
def paid(key, cost):
    count(key)
    return {"cost": cost}


@app.task(name="jobs.wrong")
def wrong(text):
    raise KeyError(text)
"""
HOSTILE = "<script>\x1b[31m\u202egnp\x00'\""


def batch(project: Project, *, good: int = 17, bad: int = 3) -> None:
    """Jobs that double, and some that fail for the same reason."""
    rows: list[dict[str, object]] = [
        {"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(good)
    ]
    rows += [{"id": f"f-{n}", "task": "jobs.fail", "args": ["no luck"]} for n in range(bad)]
    project.manifest("m.jsonl", rows)


def block(result: pytest.RunResult) -> list[str]:
    """The lines between the heading of the runs and the next one, pytest's own or the last."""
    return lines_of_runs(result.stdout.lines)


def lines_of_runs(output: Sequence[str]) -> list[str]:
    """Likewise of the lines that a session has written."""
    lines = iter(output)
    for line in lines:
        if re.fullmatch("=+ manifest runs =+", line):
            break
    found: list[str] = []
    for line in lines:
        if line.startswith("==="):
            return found
        found.append(line)
    return found


def row(lines: list[str], name: str) -> list[str]:
    """The cells of the first line that begins with this one."""
    return next(cells for line in lines if (cells := line.split()) and cells[0] == name)


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_tasks_slowest_and_causes_are_told(
    project: Project, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, *workers)
    lines = block(result)
    assert lines[0].startswith("m.jsonl: run ")
    assert re.search(
        r"^  \d.* s from first sending to last end, [\d.]+ jobs a (second|minute)$", lines[1]
    )
    assert row(lines, "jobs.double")[1:4] == ["17", "17", "0"]
    assert row(lines, "jobs.fail")[1:4] == ["3", "0", "3"]
    assert len(row(lines, "jobs.double")) == 5, "and the rate"
    assert any(re.match(r"  jobs\.double +wait +[<.\d]+ +[<.\d]+ +[<.\d]+$", x) for x in lines)
    slowest = lines.index("  slowest")
    assert all(
        re.match(r" +[<.\d]+ s  [df]-\d+ +jobs\.", line) for line in lines[slowest + 1 :][:5]
    )
    cause = lines.index("  failures by cause")
    assert re.fullmatch(r"    3  ValueError at jobs\.py:\d+ in fail", lines[cause + 1])
    assert lines[cause + 2 : cause + 4] == ["       no luck", "       f-0, f-1, f-2"]
    assert "\n".join(lines).isascii()


def test_the_embedded_stacks_workers_share_the_work(project: Project) -> None:
    project.workers(2)
    project.manifest(
        "m.jsonl", [{"id": f"n-{n}", "task": "jobs.nap", "args": [0.1]} for n in range(20)]
    )
    project.run("--manifest=m.jsonl", "--manifest-report=s.json")
    workers = json.loads((project.path / "s.json").read_text("utf-8"))["statistics"]["workers"]
    assert len(workers) == 2
    assert sum(one["jobs"] for one in workers) == 20
    assert sum(one["share"] for one in workers) == pytest.approx(1, abs=0.02)


def test_an_audit_tells_the_same(project: Project) -> None:
    batch(project)
    first = block(project.run("--manifest=m.jsonl", MEMORY))
    again = block(project.run("--manifest=m.jsonl", "--manifest-audit"))
    until = first.index("  failures by cause") + 4
    assert again[:until] == first[:until]


def test_retries_and_costs_are_told(project: Project) -> None:
    project.write("jobs.py", JOBS + MORE_JOBS)
    rows = [{"id": f"p-{n}", "task": "jobs.paid", "args": ["p", 0.1]} for n in range(19)]
    rows.append({"id": "a", "task": "jobs.again", "args": ["a", 2]})
    project.manifest("m.jsonl", rows)
    lines = block(project.run("--manifest=m.jsonl", MEMORY))
    assert "  cost 1.9" in lines
    assert "  2 retries" in lines


def test_it_fits_a_narrow_window(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the run's own line and for paths, which are to be copied whole."""
    width = 60
    monkeypatch.setenv("COLUMNS", str(width))
    project.write("jobs.py", JOBS + MORE_JOBS)
    rows: list[dict[str, object]] = [
        {"id": "x" * 150 + str(n), "task": "jobs.wrong", "args": ["w" * 300]} for n in range(8)
    ]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(12)]
    # All expect something: a finding, like any warning, is one line where there is no terminal.
    project.manifest("m.jsonl", [{**one, "expect": {"max_runtime": 60}} for one in rows])
    lines = block(project.run("--manifest=m.jsonl", MEMORY))
    end = next(n for n, line in enumerate(lines) if line.startswith("  ledger"))
    assert [line for line in lines[1:end] if len(line) > width] == []
    assert any("KeyError" in line for line in lines)
    assert row(lines, "jobs.double")[1:4] == ["12", "12", "0"]


def test_a_small_run_is_told_in_few_lines(project: Project) -> None:
    """Its tables are there with ``-v``."""
    batch(project, good=16, bad=3)
    lines = block(project.run("--manifest=m.jsonl", MEMORY))
    assert lines[1].startswith("  19 of 19 entries expect no more than that the job ends")
    assert lines[2].startswith("  ledger ")
    whole = block(project.run("--manifest=m.jsonl", "--manifest-audit", "-v"))
    assert row(whole, "jobs.double")[1:4] == ["16", "16", "0"]


def test_quietly_it_is_one_line(project: Project) -> None:
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, "-q", "--tb=no")
    ours = [line for line in result.stdout.lines if "m.jsonl" in line and "FAILED" not in line]
    assert len(ours) == 1
    assert re.fullmatch(r"m\.jsonl: run \S+, 20 entries: 3 failed, 17 passed", ours[0])
    text = result.stdout.str()
    assert "manifest runs" not in text
    assert "slowest" not in text
    assert ".sqlite" not in text


def test_hostile_text_is_shown_as_text(project: Project) -> None:
    rows = [{"id": f"f-{n}", "task": "jobs.fail", "args": [HOSTILE]} for n in range(20)]
    project.manifest("m.jsonl", rows)
    text = "\n".join(block(project.run("--manifest=m.jsonl", MEMORY)))
    assert "       <script>\\u202egnp\\x00'\"" in text
    assert text.isascii()
    assert text.replace("\n", "").isprintable()


@pytest.mark.ring(2)
def test_a_terminal_shows_more_than_ascii(project: Project) -> None:
    """What is left out of a long name is one character there, and headings are marked."""
    names = [f"n-{n}-{'x' * 80}" for n in range(20)]
    project.manifest("m.jsonl", [{"id": n, "task": "jobs.nap", "args": [0.05]} for n in names])
    text = in_a_terminal(project, "--manifest=m.jsonl", "--color=yes", MEMORY)
    assert re.search(r"n-\d+-x+\u2026x+ ", text)
    assert "\x1b[1m\x1b[32mm.jsonl: run " in text


def in_a_terminal(project: Project, *arguments: str) -> str:
    """What pytest writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    with subprocess.Popen(
        command, cwd=project.path, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = bytearray()
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # the other side has closed it: on Linux that is an error
            pass
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return written.decode("utf-8", "replace")


def test_a_manifest_that_is_gone_at_the_end_is_read_from_the_runs_copy(project: Project) -> None:
    batch(project)
    project.write(
        "conftest.py",
        "def pytest_manifest_finished(config, run):\n"
        '    run.manifest.path.write_text(\'{"id": "other", "task": "jobs.double"}\\n\')\n',
    )
    lines = block(project.run("--manifest=m.jsonl", MEMORY))
    assert row(lines, "jobs.double")[1:4] == ["17", "17", "0"]


def test_what_reports_leave_behind_is_named(project: Project) -> None:
    """Of a run below its own papers, of the session after all runs; each once."""
    batch(project, good=1, bad=0)
    project.write(
        "conftest.py",
        "from pathlib import Path\n"
        "from pytest_manifest.reporting.run_report import add_artifact\n"
        "def pytest_manifest_finished(config, run):\n"
        "    for _ in range(2):\n"
        "        add_artifact(config, 'page', config.rootpath / 'p.html', run.info.run)\n"
        "        add_artifact(config, 'flower', 'http://127.0.0.1:5555')\n",
    )
    lines = block(project.run("--manifest=m.jsonl", MEMORY))
    assert lines.count("  page      p.html") == 1
    assert lines[-1] == "  flower    http://127.0.0.1:5555"
