"""Receipts files with the tasks that jobs started: an audit of one judges as the run did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.manifest.writer import write_receipt_lines
from pytest_manifest.run.exports import exported_lines, ledger_of_receipts
from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.schema import Header, Verdict
from tests.receipts_files import read_receipts
from tests.unit.run_family import Family, entry
from tests.unit.run_rig import Plan, rig
from tests.unit.run_world import Record, _started


def passed(family: Family) -> None:
    family.end(family.started_children("c1", "c2"))
    family.run("succeeded", "succeeded")
    family.made.step(2)


def failed(family: Family) -> None:
    """A child of a child."""
    family.end(family.started_children("c1"))
    middle = family.begin()
    family.spawn("c2", parent="c1")
    family.send("c2")
    family.end(middle)
    family.made.step()
    family.run("failed")
    family.made.step(2)


def lost(family: Family) -> None:
    family.end(family.started_children("c1"))
    family.made.step()
    family.world.queue.clear()
    family.made.run(30)


def timed_out(family: Family) -> None:
    family.end(family.started_children("c1"))
    family.begin()
    family.made.run(30 + TIMEOUT_GRACE + 5)


def duplicated(family: Family) -> None:
    family.end(family.started_children("c1"))
    first = family.begin()
    assert first.execution is not None
    family.end(first)
    family.made.step(2)
    again = replace(first.execution, name="another", pid=first.execution.pid + 1)
    family.world._append(Record(0, _started(again), "c1", started=True))
    family.made.look()


def unsent(family: Family) -> None:
    family.made.step()
    job = family.begin()
    family.spawn("c1")
    family.end(job, facts={"unsent": ["c1"]})
    family.made.run(30)


def exported(family: Family, folder: Path) -> tuple[Manifest, Path]:
    """The manifest of the run, and its receipts file."""
    path, receipts = folder / "m.jsonl", folder / "r.jsonl"
    write_manifest(path, Header(manifest=1, workflow="demo"), [entry()])
    write_receipt_lines(receipts, exported_lines(family.made.ledger))
    return read_manifest(path), receipts


def audited(manifest: Manifest, receipts: Path, folder: Path) -> tuple[Verdict, list[str]]:
    """The entry's verdict by the file alone, and notes."""
    ledger, notes = ledger_of_receipts(manifest, receipts, folder)
    with Ledger.open(ledger) as found:
        settled = found.verdicts.of_entry("a")
    assert settled is not None
    return settled.verdict, notes


@pytest.mark.parametrize("life", [passed, failed, lost, timed_out, duplicated, unsent])
def test_an_audit_of_the_file_judges_as_the_run_did(
    life: Callable[[Family], None], tmp_path: Path
) -> None:
    """Whatever became of a descendant, with a receipt or without one."""
    with rig(Plan((entry(),))) as made:
        family = Family(made)
        life(family)
        manifest, receipts = exported(family, tmp_path)
        verdict, notes = audited(manifest, receipts, tmp_path)
        assert (verdict.verdict, verdict.sentence) == (made.kind("a"), made.sentence("a"))
        assert notes == []
        assert [one.entry for one in read_receipts(receipts)] == ["a"]


def test_a_pass_that_no_receipt_shows_is_not_believed(tmp_path: Path) -> None:
    """Nor is another task's receipt, nor a descendant of another run."""
    with rig(Plan((entry(),))) as made:
        family = Family(made)
        passed(family)
        manifest, receipts = exported(family, tmp_path)
    whole = receipts.read_text()
    root, first, second = whole.splitlines()
    before, _, _ = first.partition(', "receipt":')
    _, separator, others = second.partition(', "receipt":')
    for number, (line, status, notes_of_it) in enumerate(
        [
            (before + "}", "unknown", 0),
            (before + separator + others, "forged", 0),
            (first.replace(f'"root": "{family.root}"', '"root": "other"'), "unknown", 1),
        ]
    ):
        receipts.write_text("\n".join([root, line, second]) + "\n")
        verdict, notes = audited(manifest, receipts, tmp_path / str(number))
        assert (verdict.verdict, len(notes)) == (status, notes_of_it)
