"""Reports in open formats after a run: ``--manifest-report`` by the ending of the file."""

from __future__ import annotations

import json
import stat

import pytest

from tests.plugin.conftest import Project
from tests.unit.test_formats import problems, samples

MEMORY = "--manifest-broker=memory://"


def test_a_run_leaves_reports_by_their_endings(project: Project) -> None:
    """Of a real run, in folders that are made; the summary names them."""
    project.break_("b")
    rows = [{"id": one, "task": "jobs.flaky", "args": [one]} for one in "ab"]
    project.manifest("m.jsonl", rows)
    files = {
        "ctrf": "out/m.ctrf.json",
        "prometheus": "out/m.prom",
        "csv": "out/m.csv",
        "parquet": "out/m.parquet",
        "openlineage": "out/m.openlineage.jsonl",
    }
    result = project.run(
        "--manifest=m.jsonl", MEMORY, *(f"--manifest-report={one}" for one in files.values())
    )
    result.assert_outcomes(passed=1, failed=1)
    document = json.loads((project.path / "out/m.ctrf.json").read_text("utf-8"))
    assert problems(document, "ctrf.schema.json") == []
    assert [one["status"] for one in document["results"]["tests"]] == ["passed", "failed"]
    assert document["results"]["tests"][1]["trace"].startswith("Traceback")
    found = samples((project.path / "out/m.prom").read_text("utf-8"))
    assert (found["manifest_run_verdicts", "passed"], found["manifest_run_active", ""]) == (1, 0)
    for form, file in files.items():
        assert stat.S_IMODE((project.path / file).stat().st_mode) == 0o600
        result.stdout.fnmatch_lines([f"*{form}*{file}*"])


def test_a_second_run_has_a_report_of_its_own(project: Project) -> None:
    """With its id in the name, before the whole ending."""
    project.doubles("a.jsonl", count=1)
    project.doubles("b.jsonl", count=2)
    report = "--manifest-report=out/run.ctrf.json"
    project.run("--manifest=a.jsonl", "--manifest=b.jsonl", MEMORY, report)
    first, second = sorted((project.path / "out").iterdir(), key=lambda path: len(path.name))
    assert first.name == "run.ctrf.json"
    document = json.loads(second.read_text("utf-8"))
    assert second.name == f"run.{document['runId']}.ctrf.json"


def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ending that is none, an attestation without a key to sign it."""
    project.doubles("m.jsonl", count=1)
    monkeypatch.delenv("MANIFEST_SIGNING_KEY", raising=False)
    for file, why in (
        ("run.xml", "its name must end in one of .html, .md, .json, .csv, .ctrf.json,"),
        ("run.intoto.jsonl", "is signed; name a private key by MANIFEST_SIGNING_KEY"),
    ):
        result = project.run("--manifest=m.jsonl", MEMORY, f"--manifest-report={file}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*--manifest-report={file}: *{why}*"])
    assert project.ledgers() == []
