"""Two runs whose jobs started other tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_manifest.analysis.comparison import compare_trees
from pytest_manifest.schema.summary import SummaryTreeChange
from tests.unit.cli_support import as_json, make_run, manifest, write_manifest
from tests.unit.test_cli_trees import add_tree


def test_entries_with_other_descendants_are_found() -> None:
    """Those that have more, fewer, none any more, or other ends."""
    before = [("a", {"passed": 2}), ("b", {"passed": 1}), ("d", {"passed": 1}), ("é", {None: 1})]
    after = [("a", {"passed": 2}), ("c", {"failed": 1}), ("d", {"passed": 2})]
    assert list(compare_trees(before, after)) == [  # type: ignore[arg-type]  # no status but these
        SummaryTreeChange(id="b", before={"passed": 1}, after={}),
        SummaryTreeChange(id="c", before={}, after={"failed": 1}),
        SummaryTreeChange(id="d", before={"passed": 1}, after={"passed": 2}),
        SummaryTreeChange(id="é", before={"pending": 1}, after={}),
    ]


def test_a_comparison_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their numbers before and after."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"}, {"id": "b", "task": "t"})
    first, last = (make_run(file, number, ["passed", "passed"]) for number in (1, 2))
    assert "other descendants" not in manifest("show", "last", f"--diff={first.stem}")
    add_tree(first, "b", {"c1": "passed"})
    add_tree(last, "b", {"c1": "passed", "c2": "failed"})
    lines = manifest("show", "last", f"--diff={first.stem}").splitlines()
    assert lines[-2:] == [
        "    1 with other descendants",
        "      b  1 passed -> 1 failed, 1 passed",
    ]
    changed = {"id": "b", "before": {"passed": 1}, "after": {"failed": 1, "passed": 1}}
    assert as_json("show", "last", f"--diff={first.stem}")["changed_trees"] == [changed]
