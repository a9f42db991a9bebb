"""The tasks that jobs started, in the run page's file: apart, in blocks, within a budget."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.reporting.run_page import columns
from pytest_manifest.reporting.run_page import columns as trees_module
from pytest_manifest.reporting.run_page.page import BLOCK, write_page
from tests.run_page_sample import HOSTILE, about, sample_records, sample_tree, sample_trees
from tests.unit.test_run_page import Page
from tests.unit.tree_support import Trees


def written(path: Path, count: int, source: columns.TreeSource | None) -> Page:
    """A page of a sample of entries with these trees."""
    file = path / "run.html"
    write_page(file, about(sample_records(count), trees=source), sample_records(count))
    return Page(file)


def block_of(page: Page, number: int) -> list[Any]:
    """The trees of a block's entries."""
    packed = base64.b64decode(page.script(f"trees-{number}"))
    found: list[Any] = json.loads(gzip.decompress(packed))
    return found


def test_trees_are_in_blocks_beside_those_of_details(tmp_path: Path) -> None:
    """A block of entries without any has none; the first load knows just how many there are."""
    count = 2 * BLOCK + 10
    records = list(sample_records(count))

    def read(attempts: Any, limit: int) -> Any:
        return sample_trees(1, 30).read([a for a in attempts if a.task_id == wanted], limit)

    last = records[-1].last
    assert last is not None
    wanted = last.task_id
    page = written(tmp_path, count, columns.TreeSource(read))
    data = page.data["trees"]
    assert (data["blocks"], data["total"], data["shown"]) == ([2], 30, 30)
    assert [[data["kinds"][kind], number] for kind, number in data["counts"]] == [
        ["passed", 29],
        ["failed", 1],
    ]
    assert not [a for a, _ in page.scripts if a.get("id") in ("trees-0", "trees-1")]
    [[place, [tree]]] = block_of(page, 2)
    assert place == 9
    expected = sample_tree(last)
    assert tree["id"] == [one.task_id for _, one in expected.tasks]
    assert tree["depth"] == [depth for depth, _ in expected.tasks]
    assert [data["tasks"][at] for at in tree["task"]] == [one.task for _, one in expected.tasks]
    assert [tree["id"][at] for at in tree["path"]] == expected.path
    [[at, sentence, error, trace, log]] = tree["notes"]
    assert data["kinds"][tree["kind"][at]] == "failed"
    assert sentence.startswith("The task raised ValueError")
    assert error.startswith("ValueError: page ")
    assert trace.startswith("Traceback")
    assert log is None
    assert tree["id"][0] not in page.script("data")


def test_the_timeline_reaches_over_descendants_that_it_does_not_have_yet(tmp_path: Path) -> None:
    """A tree ends later than its root, and what it does is no pause."""
    page = written(tmp_path, 3, sample_trees(1, 30))
    bars = page.data["bars"]
    spans = [(tree["start"], tree["stop"]) for _, [tree] in block_of(page, 0)]
    assert bars["reach"][0] == min(min(start) for start, _ in spans)
    assert bars["reach"][1] == max(max(stop) for _, stop in spans)
    assert bars["reach"][1] > max(bars["end"])


def test_a_page_of_jobs_that_started_none_has_no_trees(tmp_path: Path) -> None:
    """No block, and nothing in the data."""
    page = written(tmp_path, 3, None)
    assert page.data["trees"] is None
    assert page.data["bars"]["reach"] is None
    assert not [a for a, _ in page.scripts if str(a.get("id")).startswith("trees-")]


def test_nothing_in_a_tree_is_markup(tmp_path: Path) -> None:
    """Names of tasks and ids are the users'."""

    def read(attempts: Any, limit: int) -> Any:
        found = sample_trees(1, 8).read(attempts, limit)
        return {
            root: replace(
                tree,
                tasks=[
                    (depth, replace(one, task=HOSTILE[0], how=HOSTILE[1], worker=HOSTILE[2]))
                    for depth, one in tree.tasks
                ],
            )
            for root, tree in found.items()
        }

    plain = written(tmp_path, 3, sample_trees(1, 8))
    nasty = written(tmp_path, 3, columns.TreeSource(read))
    assert nasty.names == plain.names
    assert HOSTILE[0] in nasty.data["trees"]["tasks"]


def test_each_tree_has_its_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small trees are whole; what they leave is for the large ones."""
    assert columns.shared_limit([]) == columns.MOST_OF_TREE
    assert columns.shared_limit([100] * 1000) == columns.MOST_OF_TREE
    assert columns.shared_limit([5, 1_000_000]) == columns.MOST_OF_TREE
    monkeypatch.setattr(trees_module, "BUDGET", 1000)
    assert columns.shared_limit([100] * 10) == columns.MOST_OF_TREE
    assert columns.shared_limit([100] * 20) == 50
    assert columns.shared_limit([10] * 50 + [400] * 5) == 100
    assert columns.shared_limit([100] * 10_000) == columns.LEAST


@pytest.mark.ring(2)
def test_a_page_of_many_descendants_stays_small(tmp_path: Path) -> None:
    """A hundred of each of a thousand entries: some 5 MB, none of which is in the first load."""
    page = written(tmp_path, 1000, sample_trees(1, 100))
    few = written(tmp_path, 1000, None)
    total = page.data["trees"]["total"]
    assert total > 95_000
    assert len(page.text) - len(few.text) < 60 * total
    assert len(page.script("data")) < len(few.script("data")) * 1.1 + 2000


def test_the_trees_of_a_ledger_are_those_that_it_has(tmp_path: Path) -> None:
    """None where no job started any."""
    ledger = Trees(tmp_path / "r.sqlite")
    root = ledger.entry("a")
    assert columns.trees_of(ledger.ledger) is None
    ledger.child(root, "c-1")
    source = columns.trees_of(ledger.ledger)
    assert source is not None
    assert source.limit == columns.MOST_OF_TREE


def test_the_most_frequent_end_is_told_first(tmp_path: Path) -> None:
    """Of each tree as of the whole run."""

    def read(attempts: Any, limit: int) -> Any:
        found = sample_trees(1, 8).read(attempts, limit)
        return {
            root: replace(tree, counts={"failed": 1, "passed": 7}) for root, tree in found.items()
        }

    page = written(tmp_path, 1, columns.TreeSource(read))
    kinds = page.data["trees"]["kinds"]
    [[_, [tree]]] = block_of(page, 0)
    assert [[kinds[kind], count] for kind, count in tree["counts"]] == [
        ["passed", 7],
        ["failed", 1],
    ]
