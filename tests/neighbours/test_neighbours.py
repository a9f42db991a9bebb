"""Beside each neighbour: the same verdicts, jobs run once, and nothing garbled."""

from __future__ import annotations

import json
import re

import pytest

from tests import beside
from tests.beside import version_of
from tests.neighbours.conftest import PRIVATE, RAN, VERDICTS, Neighbourhood, report_portal
from tests.neighbours.table import PAGE, ROWS, Row, page
from tests.plugin.terminal import terminal

OWN_TEST = {"pytest-reportportal"}
BY_NAME = {row.name: row for row in ROWS}


def session(project: Neighbourhood, name: str, *more: str) -> beside.Outcome:
    """The session of this neighbour's row."""
    row = BY_NAME[name]
    return project.run_beside((name, *row.needs), *row.options, *more)


@pytest.mark.live
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name not in OWN_TEST], ids=lambda row: row.name
)
def test_the_same_verdicts_beside(row: Row, neighbourhood: Neighbourhood) -> None:
    """Each row of the page, by its own options; the neighbour is there."""
    neighbourhood.ini(row.ini)
    done = neighbourhood.run_beside((row.name, *row.needs), *row.options)
    loaded = next(line for line in done.lines if line.startswith("plugins: "))
    name = row.name.removeprefix("pytest-")
    # A row may also be a setting of pytest's own.
    assert name == row.name or f" {name}-{version_of(row.name)}" in loaded
    assert "INTERNALERROR" not in done.text
    assert "Traceback (most recent call last)" not in _without_jobs(done.text)


def _without_jobs(text: str) -> str:
    """What a session wrote, without the tracebacks that workers handed in, which are indented."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("  "))


def test_the_page_has_these_rows_and_versions() -> None:
    """``python -m tests.neighbours.table`` writes it anew."""
    assert PAGE.read_text("utf-8") == page()


@pytest.mark.live
def test_a_verification_may_be_a_coroutine(neighbourhood: Neighbourhood) -> None:
    """pytest-asyncio runs it, once for each entry."""
    neighbourhood.write(
        "test_async.py",
        """
import asyncio
import pytest

pytestmark = pytest.mark.manifest("m.jsonl")

async def test_it_is_a_dictionary(entry, receipt):
    await asyncio.sleep(0)
    assert entry.id in ("good", "slow") and isinstance(receipt.result, dict)
""",
    )
    done = beside.run(
        neighbourhood.path,
        ["pytest", "-o", "asyncio_mode=auto", PRIVATE, "test_async.py", "-rA"],
        beside.environment("pytest-asyncio"),
    )
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "2 failed, 2 passed" in done.lines[-1]
    assert neighbourhood.ran() == RAN


@pytest.mark.live
def test_what_workers_run_is_measured(neighbourhood: Neighbourhood) -> None:
    """Lines that only tasks run count as covered, those that no job ran as missing."""
    neighbourhood.write(".coveragerc", "[run]\npatch = subprocess\n")
    done = session(neighbourhood, "pytest-cov", "--cov-report=json:cov.json")
    measured = json.loads((neighbourhood.path / "cov.json").read_text("utf-8"))
    lines = (neighbourhood.path / "jobs.py").read_text("utf-8").splitlines()
    executed = {
        lines[number - 1].strip() for number in measured["files"]["jobs.py"]["executed_lines"]
    }
    assert 'return {"n": 2 * n, "type": "number"}' in executed, done.text
    assert "raise ValueError(message)" in executed
    assert "os.kill(os.getpid(), signal.SIGKILL)" not in executed
    assert not list(neighbourhood.path.glob(".coverage.*")), "every worker's part was taken in"


@pytest.mark.live
def test_a_rerun_sends_nothing_and_says_so(neighbourhood: Neighbourhood) -> None:
    """Two tests fail, each is run three times, and each of their jobs once."""
    done = session(neighbourhood, "pytest-rerunfailures")
    assert re.search("2 failed, 2 passed, 4 rerun", done.lines[-1]), done.text
    assert "sends nothing" in done.text


@pytest.mark.live
def test_a_shuffle_and_a_seed_change_no_id(neighbourhood: Neighbourhood) -> None:
    """Two runs with one seed are two runs."""
    for _ in range(2):
        neighbourhood.run_beside(
            ("pytest-randomly",),
            "-p",
            "randomly",
            "-p",
            "no:cacheprovider",
            "-p",
            "randomly",
            "-k",
            "good",
            expected=False,
        )
    assert len({path.stem[-8:] for path in neighbourhood.ledgers()}) == 2


@pytest.mark.live
def test_groups_of_split_send_their_own_jobs(neighbourhood: Neighbourhood) -> None:
    """Two groups after one another: together each job once."""
    for group in ("1", "2"):
        done = neighbourhood.run_beside(
            ("pytest-split",), "--splits", "2", "--group", group, expected=False
        )
        assert "2 deselected" in done.lines[-1], done.text
    assert neighbourhood.ran() == RAN


@pytest.mark.live
def test_the_html_has_a_row_for_each_entry(neighbourhood: Neighbourhood) -> None:
    """With its outcome and what it says."""
    session(neighbourhood, "pytest-html")
    text = (neighbourhood.path / "report.html").read_text("utf-8")
    assert all(f"m.jsonl::entry[{name}]" in text for name in VERDICTS)
    assert "no such film" in text


@pytest.mark.live
def test_the_portal_gets_every_entry(neighbourhood: Neighbourhood) -> None:
    """One item an entry, with its status."""
    row = BY_NAME["pytest-reportportal"]
    with report_portal() as (endpoint, bodies):
        neighbourhood.ini(row.ini.format(endpoint=endpoint))
        done = neighbourhood.run_beside((row.name,), *row.options)
    told = "\n".join(bodies)
    assert all(f"entry[{name}]" in told for name in VERDICTS), done.text + told
    assert len(re.findall('"status": ?"failed"', told, re.IGNORECASE)) >= 2, told


@pytest.mark.live
@pytest.mark.parametrize("name", ["pytest-sugar", "pytest-rich"])
def test_nothing_is_garbled_on_a_terminal(name: str, neighbourhood: Neighbourhood) -> None:
    """What a person sees at the end has each line once, and no remains of a progress line."""
    row = BY_NAME[name]
    kept = beside.path_and_plugins(name)
    options = ["--manifest=m.jsonl", PRIVATE, *row.options]
    with terminal(neighbourhood.path, *options, size=(100, 60), environment=kept) as shown:
        status = shown.finish()
    seen = "\n".join(shown.transcript)
    print(seen)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert neighbourhood.verdicts() == VERDICTS
    assert seen.count("4 entries: 2 failed, 2 passed") == 1, seen
    assert seen.count("ledger    .manifest/runs/") == 2  # among its files, and at the very end
    assert "in flight" not in seen, seen
