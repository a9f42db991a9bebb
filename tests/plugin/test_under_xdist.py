"""One session under xdist: the controller alone says, writes and checks, each thing once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.verdict.judging import signatures_of
from tests.plugin.conftest import INI, JOBS
from tests.plugin.test_run_page import data_of
from tests.plugin.test_summary import lines_of_runs

COMMAND = (
    *("--manifest=m.jsonl", "--manifest-broker=memory://", "-n", "2"),
    *(
        "--override-ini=manifest_require_signed_receipts=true",
        "--manifest-report=run.html",
        "-rf",
        "--tb=line",
    ),
    *("--junitxml=r.xml", "-o", "junit_family=xunit1", "--alluredir=allure"),
)
GOOD = 17
SECTION = """
from pytest_manifest import PageSection


def pytest_manifest_sections(config, run):
    return [PageSection("Counted", f"Of {len(run.manifest)}.")]
"""


@dataclass(frozen=True, slots=True)
class Done:
    """A session that is over: its folder, what it printed, its status and its run's ledger."""

    folder: Path
    lines: list[str]
    status: int
    ledger: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """17 jobs that pass, of which nothing is expected, and one that fails."""
    folder = tmp_path_factory.mktemp("under-xdist")
    rows = [{"id": f"d-{n}", "task": "jobs.double", "args": [n, f"d-{n}"]} for n in range(GOOD)]
    rows += [{"id": f"f-{n}", "task": "jobs.fail", "args": ["no luck", f"f-{n}"]} for n in range(3)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    (folder / "pytest.ini").write_text(INI, "utf-8")
    (folder / "conftest.py").write_text(SECTION, "utf-8")
    hidden = ("CELERY_", "MANIFEST_", "PYTEST_XDIST", "GITHUB_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    kept.pop("CI", None)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *COMMAND],
        cwd=folder,
        env={**kept, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    print(ended.stdout, ended.stderr)
    (ledger,) = (folder / ".manifest" / "runs").glob("*.sqlite")
    return Done(folder, ended.stdout.splitlines(), ended.returncode, ledger)


@pytest.mark.ring(2)
def test_every_job_runs_once_and_its_verdict_counts(done: Done) -> None:
    assert done.status == pytest.ExitCode.TESTS_FAILED
    ran = (done.folder / "ran.txt").read_text("utf-8").split()
    assert sorted(ran) == sorted([f"d-{n}" for n in range(GOOD)] + [f"f-{n}" for n in range(3)])
    assert re.search(r"3 failed, 17 passed", done.lines[-1])


def test_the_run_is_told_once(done: Done) -> None:
    """With its tables, and with what is weak in it."""
    block = lines_of_runs(done.lines)
    (total,) = (line for line in done.lines if re.match(r"m\.jsonl: run \S+, 20 entries: ", line))
    assert block[0] == total
    (doubled, _) = (line.split() for line in block if line.strip().startswith("jobs.double "))
    assert doubled[1:4] == ["17", "17", "0"]
    (weak,) = (line for line in done.lines if "no more than that the job" in line)
    assert weak.strip().startswith("20 of 20 entries")
    summary = json.loads(done.ledger.with_suffix(".summary.json").read_text("utf-8"))
    assert len(summary["run"]["findings"]) == 1


def test_there_is_one_page_with_the_sections_of_the_project(done: Done) -> None:
    assert [path.name for path in done.folder.glob("*.html")] == ["run.html"]
    data = data_of(done.folder / "run.html")
    assert data["figures"]["outcomes"] == {"failed": 3, "passed": 17}
    (section,) = data["sections"]
    assert (section["title"], section["text"]) == ("Counted", "Of 20.")


def test_tests_stand_at_their_entries_lines(done: Done) -> None:
    """In the list of failures, and in JUnit's report, where each is once."""
    assert any(
        line.startswith(f"{done.folder}/m.jsonl:18: ValueError: no luck") for line in done.lines
    )
    cases = [
        (one.get("name"), one.get("line"))
        for one in ET.parse(done.folder / "r.xml").iter("testcase")
    ]
    assert sorted(cases) == sorted(
        [(f"entry[d-{n}]", f"{n}") for n in range(GOOD)]
        + [(f"entry[f-{n}]", f"{GOOD + n}") for n in range(3)]
    )


def test_each_entry_has_one_result_of_allures(done: Done) -> None:
    results = [
        json.loads(p.read_text("utf-8")) for p in (done.folder / "allure").glob("*-result.json")
    ]
    assert len(results) == len({one["historyId"] for one in results}) == 20


def test_what_was_signed_was_checked(done: Done) -> None:
    with Ledger.open(done.ledger) as ledger:
        signatures = signatures_of(ledger)
        assert signatures is not None
        counted = [one.receipt for one in ledger.queries.all_verdicts()]
    assert len(counted) == 20
    assert {signatures.fault_of(one) for one in counted if one is not None} == {""}
