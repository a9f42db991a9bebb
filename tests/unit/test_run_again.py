"""Verdicts that are looked at again: only those that something has changed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.run.changes import EarlierLines
from pytest_manifest.run.evaluation import AttemptEvaluator
from pytest_manifest.run.reevaluation import reevaluate
from pytest_manifest.schema import Entry, Expectations, Header, VerdictStatus
from tests.unit.analysis_support import INFO, START, MadeRun
from tests.unit.ledger_support import NOTHING

WHOLE: dict[str, Any] = dict.fromkeys(("sent_at", "started_at", "finished_at"), START) | NOTHING
COUNT = 1203
"""More than two batches."""


def entry(name: str, **fields: object) -> Entry:
    return Entry.model_validate({"id": name, "task": "jobs.t", **fields})


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    """A run of many entries; one failed, one is pending, one was given up, the others passed."""
    made = MadeRun(tmp_path, [entry(f"e-{n}") for n in range(COUNT)])
    names = [f"e-{n}" for n in range(COUNT)]
    odd: dict[str, VerdictStatus] = {"e-7": "failed", "e-8": "pending", "e-1200": "timed_out"}
    with made.ledger as ledger, ledger.transaction():
        made.plan(*names)
        for name in names:
            kind = odd.get(name, "passed")
            receipt = made.receipt(name, **WHOLE) if kind in ("passed", "failed") else None
            made.settle(name, kind, receipt)
        yield made


def again(
    made: MadeRun, manifest: Manifest, before: Manifest | None, only: Sequence[str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The verdicts of another kind than before, and the entries that were judged by receipts."""
    judged: list[str] = []

    class Watched(AttemptEvaluator):
        def evaluate(self, flight, receipt, starts=None):  # type: ignore[no-untyped-def]  # as its base
            judged.append(flight.entry.id)
            return super().evaluate(flight, receipt, starts)

    bench = Watched(INFO.run, manifest, made.ledger, kills=1, lifetime=0)
    had = made.ledger.verdicts.statuses()
    found = [verdict for verdict, _ in reevaluate(made.ledger, manifest, before, bench, only)]
    return {one.entry: one.verdict for one in found if one.verdict != had[one.entry]}, judged


def changed(made: MadeRun, folder: Path, *entries: Entry, without: Sequence[str] = ()) -> Manifest:
    """The manifest with these entries in place of their former selves, or added."""
    new = {one.id: one for one in entries}
    kept = [new.pop(old.id, old) for old in made.manifest if old.id not in without]
    return write_manifest(folder / "new.jsonl", Header(workflow="demo"), [*kept, *new.values()])


WITHOUT_RECEIPT = {"e-8", "e-1200"}


def test_what_is_said_to_have_passed_is_judged_by_its_receipt(made: MadeRun) -> None:
    """Every pass is held against its entry anew; one without a receipt says nothing.

    What has not passed stands: what excuses it may have come since.
    """
    for name in ("e-9", "e-10"):
        made.settle(name, "passed", None)
    verdicts, judged = again(made, made.manifest, made.manifest)
    assert verdicts == {"e-9": "unknown", "e-10": "unknown"}
    left = WITHOUT_RECEIPT | {"e-7", "e-9", "e-10"}
    assert sorted(judged) == sorted(one.id for one in made.manifest if one.id not in left)


@pytest.mark.parametrize("lean", [False, True])
def test_changed_lines_are_judged_again(made: MadeRun, tmp_path: Path, *, lean: bool) -> None:
    """Other expectations, other work, new and removed entries, wherever they stand."""
    expect = Expectations(result={"n": 1})
    manifest = changed(
        made,
        tmp_path,
        entry("e-3", expect=expect),
        entry("e-4", args=[1]),
        entry("e-1100", expect=expect, meta={"x": 1}),
        entry("e-1101", meta={"x": 1}),
        entry("new"),
        without=["e-0", "e-5", "e-600"],
    )
    before = read_manifest(made.manifest.path, lean=lean)
    verdicts, judged = again(made, manifest, before)
    assert verdicts == {"e-3": "failed", "e-4": "unknown", "e-1100": "failed"}
    assert {"e-3", "e-1100", "e-1101"} <= set(judged)
    assert "e-7" not in judged


def test_entries_in_another_order_are_the_same(made: MadeRun, tmp_path: Path) -> None:
    """Nothing of them is other work, and each is judged once."""
    turned = list(reversed(list(made.manifest)))
    manifest = write_manifest(tmp_path / "new.jsonl", Header(workflow="demo"), turned)
    verdicts, judged = again(made, manifest, made.manifest)
    assert verdicts == {}
    assert len(judged) == len(set(judged)) == COUNT - len(WITHOUT_RECEIPT | {"e-7"})


def test_without_the_runs_own_manifest_all_are_judged_again(made: MadeRun, tmp_path: Path) -> None:
    """Nobody knows what has changed."""
    manifest = changed(made, tmp_path, entry("e-3", expect=Expectations(result={"n": 1})))
    verdicts, judged = again(made, manifest, None)
    assert verdicts == {"e-3": "failed", "e-7": "passed"}
    assert len(judged) == COUNT - 2


def test_only_what_is_asked_for_is_judged_again(made: MadeRun) -> None:
    """As --manifest-resume does for what was selected."""
    assert again(made, made.manifest, made.manifest, ["e-1", "e-8"]) == ({}, ["e-1"])


def test_an_earlier_manifest_is_read_along(made: MadeRun) -> None:
    """In the same order nothing of it is kept; otherwise its ids are looked up."""
    lean = read_manifest(made.manifest.path, lean=True)
    with closing(EarlierLines(lean)) as earlier:
        lines = [earlier.line(f"e-{n}") for n in range(COUNT)]
        assert "_index" not in vars(lean)
        assert earlier.line("e-3") == lines[3]
        assert [earlier.line("new"), earlier.line("e-4"), earlier.line("e-2")] == [
            None,
            lines[4],
            lines[2],
        ]
    assert all(line and b"e-%d" % n in line for n, line in enumerate(lines))
