"""Files through which the processes of one xdist session agree."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_manifest.bindings import Binding
from pytest_manifest.manifest.partition import Balance
from pytest_manifest.plugin.coordination import (
    PREFIX,
    Collection,
    Coordination,
    KnownRuns,
    own_prefix,
)


@pytest.fixture
def coordination(tmp_path: Path) -> Coordination:
    return Coordination(tmp_path)


def test_what_is_told_is_what_is_heard(coordination: Coordination, tmp_path: Path) -> None:
    """Collections and runs pass through unchanged, None and all."""
    bindings = [
        Binding(Path("/m.jsonl"), "é[0]::x"),
        None,
        Binding(Path("/m.jsonl"), None, whole_run=True),
        Binding(Path("/m.jsonl"), None, group="00001-01000", builtin=True),
    ]
    coordination.publish_collection("gw0", Collection(bindings, problem=None))
    assert coordination.collection("gw0") == Collection(bindings, None)
    coordination.publish_runs(KnownRuns({Path("/m.jsonl"): tmp_path / "l"}, 2, owned=True))
    assert coordination.runs() == ({Path("/m.jsonl"): tmp_path / "l"}, 2, True)
    balance = Balance.of("r", {"é[0]": 0.1 + 0.2, "b": 1e-9})
    coordination.publish_balance(balance)
    heard = coordination.balance()
    assert (heard, heard.run, heard.seconds) == (balance, "r", balance.seconds)


def test_a_plan_is_made_by_one_and_read_by_the_others(
    coordination: Coordination, tmp_path: Path
) -> None:
    """Whoever comes second waits, and then finds it done."""
    made: list[int] = []

    def make() -> Path:
        made.append(1)
        return tmp_path / "m.jsonl"

    threads = [
        threading.Thread(target=coordination.planned_once, args=("a:b", make)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(made) == 1
    assert coordination.planned_once("a:b", make) == (tmp_path / "m.jsonl").resolve()
    coordination.publish_plan("c:d", None)
    assert coordination.wait_for_plan("c:d") is None


def test_folders_of_killed_controllers_are_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead process's folder goes, a living one's stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(timeout=30)
    here = own_prefix()
    dead, alive = (tmp_path / f"{here}{pid}-x" for pid in (process.pid, os.getpid()))
    elsewhere = tmp_path / f"{PREFIX}0123abcd-{process.pid}-x"  # a pid of another container
    other = tmp_path / f"{PREFIX}notes-of-mine"
    for folder in (dead, alive, elsewhere, other):
        folder.mkdir()
    mine = Coordination.create()
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
    assert other.exists()
    mine.remove()
    assert not mine.folder.exists()
