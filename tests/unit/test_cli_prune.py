"""``manifest prune``: old runs go, and none that an unfinished one needs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_manifest.analysis.digest import digests_of
from pytest_manifest.cli.prune import _needed, _StoredRun, age
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.run_facts import Action
from tests.unit.cli_support import as_json, make_run, manifest, write_manifest


def stored(run: str, *, needs: tuple[str, ...] = (), **fields: object) -> _StoredRun:
    """A run as the command has read it."""
    given = {"sha256": run, "is_finished": True, "only_once": False, **fields}
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return _StoredRun(Path(f"{run}.sqlite"), moment, needs=frozenset(needs), **given)  # type: ignore[arg-type]  # by name


def test_what_an_unfinished_run_needs_is_needed() -> None:
    """Shards that it was merged of, runs whose passes it reuses, and what these need in turn."""
    runs = [
        stored("source"),
        stored("shard", needs=("source",)),
        stored("merged", needs=("shard", "gone"), is_finished=False),
        stored("other", needs=("free",)),
        stored("free"),
    ]
    assert _needed(runs) == {"merged", "shard", "source", "gone"}


def test_the_last_run_of_what_is_run_only_once_is_needed() -> None:
    """Without it the batch would be bought again."""
    runs = [stored(run, sha256="same", only_once=True) for run in ("first", "last")]
    assert _needed(runs) == {"last"}


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", "1.5d"])
def test_an_age_has_a_unit(text: str) -> None:
    with pytest.raises(PlanError, match="hours, days or weeks, like 12h, 30d, 4w"):
        age(text)
    assert (age("0h"), age("2w")) == (timedelta(), timedelta(days=14))


def test_old_runs_go_with_all_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the newest, the younger and the unfinished ones; a digest of each stays."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"})
    first, unfinished, third, last = (
        make_run(file, number, [None if number == 2 else "passed"]) for number in (1, 2, 3, 4)
    )
    before = set(first.parent.glob("*.sqlite"))
    assert as_json("prune", "--keep=1", "--older=900w")["dropped"] == []
    assert as_json("prune", "--keep=4", "--older=0h")["dropped"] == []
    would = as_json("prune", "--keep=1", "--older=0h", "--dry-run")
    assert (would["dropped"], would["kept"]) == ([first.stem, third.stem], 2)
    assert set(first.parent.glob("*.sqlite")) == before
    said = manifest("prune", "--keep=1", "--older=0h").splitlines()
    assert said[:2] == [f"dropped {first.stem}", f"dropped {third.stem}"]
    assert said[2].endswith("kept: 2 runs, 1 of them old, but unfinished or needed")
    left = {path.name for path in first.parent.glob("*") if path.suffix != ".json"}
    assert {name.split(".")[0] for name in left} == {unfinished.stem, last.stem}
    kept = [one.run for one in digests_of(first.parent)]
    assert kept == [first.stem, third.stem]


def test_what_an_operator_has_asked_of_a_runs_resume_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is to be sent again; what was asked of the session alone is over with it."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"})
    asked, paused = (make_run(file, number, ["failed"]) for number in (1, 2))
    orders: list[tuple[Path, Action]] = [(asked, "requeue"), (paused, "pause")]
    for path, action in orders:
        with Ledger.open(path, write=True) as ledger:
            ledger.commands.add(action, by="me", data={"entries": ["a"]})
    assert as_json("prune", "--keep=0", "--older=0h")["dropped"] == [paused.stem]
    assert asked.exists()
