"""The summary of a run, for machines: what it came to, entry by entry, and its files."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from pytest_manifest.analysis.digest import make_digest, read_digest
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.schema.summary import RunSummary
from pytest_manifest.schema.wire import parse_moment
from scripts.schemas import FOLDER
from tests.plugin.conftest import Project
from tests.plugin.test_run_page import data_of
from tests.plugin.ways import xdist_in

MEMORY = "--manifest-broker=memory://"


def summary(path: Path) -> dict[str, Any]:
    """The document in a file, valid by the committed schema and by the model."""
    text = path.read_text("utf-8")
    RunSummary.model_validate_json(text)
    document: dict[str, Any] = json.loads(text)
    schema = json.loads((FOLDER / "run-summary.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(document)
    return document


def newest(project: Project) -> dict[str, Any]:
    return summary(project.ledgers()[-1].with_suffix(".summary.json"))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_a_digest_is_written_at_the_end(project: Project) -> None:
    """The same that is made of the ledger later."""
    project.break_("a")
    project.manifest("m.jsonl", [{"id": n, "task": "jobs.flaky", "args": [n]} for n in "abc"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2, failed=1)
    ledger = project.ledgers()[-1]
    written = read_digest(RunFiles(ledger).digest)
    assert written == make_digest(ledger)
    assert written is not None
    assert [(one.id, one.verdict) for one in written.listed] == [("a", "failed")]


def test_a_page_of_all_runs_is_written_at_the_end(project: Project) -> None:
    """With the run that has just ended."""
    project.manifest("m.jsonl", [{"id": n, "task": "jobs.flaky", "args": [n]} for n in "abc"])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=3)
    project.break_("b")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-history=pages/history.html")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*history*pages/history.html"])
    page = (project.path / "pages" / "history.html").read_text("utf-8")
    assert "1 entry is red since run 2" in page
    (digest, _) = project.ledgers()
    assert digest.stem in page


def test_a_pause_is_no_part_of_a_runs_duration(project: Project) -> None:
    """In the summary, the terminal, on the page and in Markdown: it was worked on in two parts."""
    broken = project.break_("a")
    rows = [{"id": n, "task": "jobs.flaky", "args": [n], "idempotent": True} for n in "abcd"]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=3, failed=1)
    first = newest(project)["statistics"]
    assert (first["parts"], first["pauses"]) == (1, 0)
    broken.unlink()
    reports = ("--manifest-report=run.html", "--manifest-report=run.md")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "-v", *reports)

    told = newest(project)["statistics"]
    whole = parse_moment(told["ended"]) - parse_moment(told["began"])
    assert told["parts"] == 2
    assert 0 < told["pauses"] < whole.total_seconds()
    assert told["duration"] == pytest.approx(whole.total_seconds() - told["pauses"])
    assert told["throughput"] == pytest.approx(5 / told["duration"])
    result.stdout.fnmatch_lines(["  * s of work in 2 parts*"])
    assert " of work in 2 parts" in (project.path / "run.md").read_text("utf-8")
    figures = data_of(project.path / "run.html")["figures"]
    assert figures["parts"] == 2
    assert figures["duration"] == pytest.approx(told["duration"], rel=0.01)


@pytest.mark.parametrize("workers", xdist_in(pytest.mark.ring(2)))
def test_what_succeeded_and_what_failed_stands_apart(
    project: Project, workers: tuple[str, ...]
) -> None:
    """Each entry is in one of three lists, with verdict, sentence and line; figures agree."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1}},
            {"id": "bad", "task": "jobs.fail", "args": ["no such film"]},
            {"id": "held", "task": "jobs.double", "kwargs": {"n": 2}, "after": ["bad"]},
            {"id": "unknown", "task": "jobs.nobody"},
        ],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, *workers)
    told = newest(project)

    assert ids(told["succeeded"]) == ["good"]
    assert ids(told["failed"]) == ["bad", "unknown"]
    assert ids(told["unfinished"]) == ["held"]
    bad = told["failed"][0]
    assert (bad["line"], bad["verdict"], bad["task"]) == (2, "failed", "jobs.fail")
    assert "no such film" in bad["sentence"]
    assert told["statistics"]["entries"] == 4
    assert told["statistics"]["causes"][0]["examples"] == ["bad"]
    assert told["run"]["status"] == "finished"
    assert told["comparison"] is None
    result.stdout.fnmatch_lines(["  summary   .manifest/runs/*.summary.json"])


@pytest.mark.parametrize(
    ("stack", "logs"),
    [
        pytest.param((MEMORY,), (), id="memory"),
        pytest.param(
            (), ("worker-log",), id="private", marks=[pytest.mark.live, pytest.mark.ring(2)]
        ),
    ],
)
def test_files_have_checksums(
    project: Project, stack: tuple[str, ...], logs: tuple[str, ...]
) -> None:
    """What is written to no more has its checksum; ledger and log have none."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", *stack)
    files = newest(project)["files"]

    kinds = {file["kind"] for file in files}
    assert kinds == {"manifest", "ledger", "receipts", "log", *logs}
    for file in files:
        path = project.path / file["path"]
        if file["kind"] in ("ledger", "log"):
            assert file["sha256"] is None
        else:
            assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert file["bytes"] == path.stat().st_size
    path = project.ledgers()[-1].with_suffix(".summary.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_copy_is_written_where_it_is_wanted(project: Project) -> None:
    """``--manifest-report`` makes folders; a second run's copy has its id in its name."""
    project.doubles("a.jsonl", count=1)
    project.doubles("b.jsonl", count=2)
    copy = "--manifest-report=out/run.json"
    project.run("--manifest=a.jsonl", "--manifest=b.jsonl", MEMORY, copy)

    first, second = sorted((project.path / "out").iterdir(), key=lambda path: len(path.name))
    assert first.name == "run.json"
    assert summary(first)["run"]["manifest"] == "a.jsonl"
    assert second.name == f"run.{summary(second)['run']['run']}.json"
    assert summary(second)["run"]["manifest"] == "b.jsonl"


def test_cost_and_comparison_are_in_it(project: Project) -> None:
    """The budget with what was spent of it, and what changed since the run that is named."""
    project.write("shop.py", 'from jobs import app\n@app.task\ndef buy(): return {"cost": 0.1}\n')
    project.write("pytest.ini", "[pytest]\nmanifest_app = shop:app\n")
    rows: list[dict[str, object]] = [
        {"id": f"b-{n}", "task": "shop.buy", "cost": 0.2} for n in "xyz"
    ]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-budget=5")
    first = newest(project)
    assert first["cost"] == {"total": 0.3, "budget": 5.0, "over_budget": False}

    project.manifest("m.jsonl", [*rows, {"id": "new", "task": "jobs.fail", "args": ["x"]}])
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-compare=last")
    changes = newest(project)["comparison"]
    assert changes["before"]["run"] == first["run"]["run"]
    assert changes["added"] == ["new"]
    assert ids(changes["newly_failing"]) == ["new"]


def test_an_audit_writes_it_anew(project: Project) -> None:
    """A later look has the last word; of receipts alone, there is only the copy asked for."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY)
    path = project.ledgers()[-1].with_suffix(".summary.json")
    before = path.read_bytes()
    path.unlink()
    project.run("--manifest=m.jsonl", "--manifest-audit")
    assert summary(path)["succeeded"] == json.loads(before)["succeeded"]

    kept = path.with_suffix("").with_suffix(".receipts.jsonl").read_text("utf-8")
    project.write("one.jsonl", kept.splitlines(keepends=True)[0])
    receipts = "--manifest-receipts=one.jsonl"
    project.run("--manifest=m.jsonl", "--manifest-audit", receipts, "--manifest-report=s.json")
    apart = summary(project.path / "s.json")
    assert ids(apart["succeeded"]) == ["d-0"]
    assert [(row["id"], row["verdict"]) for row in apart["failed"]] == [("d-1", "unknown")]
    assert len(list(path.parent.glob("*.summary.json"))) == 1


def test_any_text_is_held(project: Project) -> None:
    """Whatever jobs say: the document is JSON in UTF-8."""
    project.write(
        "talk.py",
        "from jobs import app\n@app.task\ndef talk():\n"
        "    raise ValueError('\\x00\\ud83c\\u202e\\x1b[1m')\n",
    )
    project.write("pytest.ini", "[pytest]\nmanifest_app = talk:app\n")
    project.manifest("m.jsonl", [{"id": '<a> "é" 🎬', "task": "talk.talk"}])
    project.run("--manifest=m.jsonl", MEMORY)
    (row,) = newest(project)["failed"]
    assert row["id"] == '<a> "é" 🎬'
    assert "ValueError" in row["sentence"]
