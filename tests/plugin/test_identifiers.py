"""Names in files that anybody may have written lead nowhere else."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import Project
from tests.plugin.test_resume import MEMORY

ELSEWHERE = """
from pathlib import Path

Path(__file__).with_name("imported").touch()

def test_it(entry):
    pass
"""


def test_a_receipts_run_is_no_path(project: Project) -> None:
    """Receipts of a run elsewhere are refused: no ledger is planted that a later look believes."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    text = ledger.with_suffix(".receipts.jsonl").read_text("utf-8")
    for run in (str(ledger.with_name("29991231T000000-run-of-nobody")), "../run-of-nobody"):
        project.write("r.jsonl", text.replace(f'"{ledger.stem}"', json.dumps(run)))
        result = project.run(
            "--manifest=m.jsonl", "--manifest-audit", "--manifest-receipts=r.jsonl"
        )
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*r.jsonl:1: 'run'*must be a plain name*"])
    assert project.ledgers() == [ledger]
    assert not list(project.path.parent.rglob("*run-of-nobody*"))


def test_a_workflow_is_no_path(project: Project) -> None:
    """Nothing is imported from where a header points; a run is looked for in its folder alone."""
    project.write("elsewhere/verify.py", ELSEWHERE)
    for field, name in (
        ("workflow", "../elsewhere"),
        ("mode", "a/b"),
    ):
        header = {"manifest": 1, "workflow": "w", field: name}
        project.manifest("m.jsonl", [header, {"id": "a", "task": "jobs.double", "args": [1]}])
        result = project.run("--manifest=m.jsonl", MEMORY)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*m.jsonl:1: '{field}'*must be a plain name*"])
    assert not (project.path / "elsewhere" / "imported").exists()
    result = project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-run=../other")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--manifest-run=../other: must be a plain name*"])
