"""What a run keeps of its manifest, and what is left of its work when that is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles, runs_by_copy
from pytest_manifest.ledger.rows import SendState
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.changes import keep_manifest, left_work
from pytest_manifest.schema import Entry, Header, VerdictStatus
from tests.reports import add_starts
from tests.unit.ledger_support import INFO, MOMENT, start, verdict


def manifest(path: Path, *entries: Entry) -> Manifest:
    return write_manifest(path, Header(), entries)


def once(name: str, value: int = 0) -> Entry:
    return Entry(id=name, task="t", args=[value], idempotent=False)


@pytest.fixture
def before(tmp_path: Path) -> Manifest:
    return manifest(tmp_path / "before.jsonl", once("a"), once("b", 1), once("c", 2))


@pytest.fixture
def ledger(tmp_path: Path, before: Manifest) -> Path:
    """The ledger of a run of ``before``, which is kept beside it; all was sent, and ``a`` began."""
    path = tmp_path / "runs" / f"{INFO.run}.sqlite"
    with Ledger.create(path, replace(INFO, sha256=before.sha256, is_private=True)) as made:
        made.attempts.plan((f"t-{name}", name, 1, n) for n, name in enumerate("abc"))
        made.attempts.mark([f"t-{name}" for name in "abc"], "sent", sent_at=MOMENT)
        add_starts(made, [start("t-a", "x"), start("t-b", "y")])
    keep_manifest(before, path)
    return path


def test_a_run_is_found_by_what_is_kept_beside_it(
    ledger: Path, before: Manifest, tmp_path: Path
) -> None:
    """Also where its ledger cannot be opened; not by another manifest."""
    ledger.write_bytes(b"")
    other = manifest(tmp_path / "other.jsonl", once("a", 7))
    assert runs_by_copy(ledger.parent, before.sha256) == [ledger]
    assert runs_by_copy(ledger.parent, other.sha256) == []


def test_work_that_may_have_run_and_has_not_passed_is_left(ledger: Path, tmp_path: Path) -> None:
    """Whatever its entry is called now; not what is other work, or may be repeated."""
    edited = manifest(
        tmp_path / "edited.jsonl",
        once("renamed"),
        once("b", 7),
        once("c", 2),
        Entry(id="again", task="t", args=[0], idempotent=True),
        once("a").model_copy(update={"timeout": 7.0}),
    )
    every = list(edited.ids)
    assert left_work(ledger, edited, every) == ["renamed", "a"]
    assert left_work(ledger, edited, ["b", "c", "again"]) == []


@pytest.mark.parametrize(
    ("status", "left"), [("passed", []), ("failed", ["a"]), ("unknown", ["a"]), (None, ["a"])]
)
def test_what_has_passed_is_not_left(
    ledger: Path, before: Manifest, status: VerdictStatus | None, left: Sequence[str]
) -> None:
    """By the verdict that the run has."""
    if status is not None:
        with Ledger.open(ledger, write=True) as opened:
            opened.verdicts.record([(verdict("a", status), None)])
    assert left_work(ledger, before, ["a", "c"]) == left


@pytest.mark.parametrize(("state", "left"), [("sent", ["a"]), ("planned", []), ("withheld", [])])
def test_without_its_manifest_the_ids_stand_for_the_work(
    ledger: Path, before: Manifest, state: SendState, left: Sequence[str]
) -> None:
    """Of what was sent, whether it has begun or not."""
    with Ledger.open(ledger, write=True) as opened:
        opened.attempts.mark(["t-a"], state)
    RunFiles(ledger).manifest(before.sha256).unlink()
    assert left_work(ledger, before, ["a"]) == left
