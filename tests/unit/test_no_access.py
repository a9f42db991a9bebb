"""A folder that belongs to somebody else: a sentence, with both users' ids, and nothing is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pytest_manifest.errors import DispatchError, LedgerError, ManifestToolError, PlanError
from pytest_manifest.ledger.files import ledgers_in, unmade_runs
from pytest_manifest.planning import PlanBuilder, plan_spec
from pytest_manifest.run.locks import one_dispatch_at_a_time

NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[int]:
    """Act as another user than root, to whom nothing is shut; yield the id."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    os.seteuid(NOBODY)
    try:
        yield NOBODY
    finally:
        os.seteuid(0)


@pytest.fixture
def shut() -> Iterator[Path]:
    """A folder that is seen, and may be written by nobody but root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


@contextmanager
def refused(kind: type[ManifestToolError], folder: Path, advice: str) -> Iterator[None]:
    """Expect the sentence, as another user."""
    with pytest.raises(kind) as caught, somebody_else() as user:
        yield
    assert f"{folder}: cannot be written (Permission denied)" in str(caught.value)
    assert f"it belongs to the user with the id {folder.stat().st_uid}" in str(caught.value)
    assert f"this is the one with the id {user}" in str(caught.value)
    assert advice in str(caught.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("below", [".", "runs"])
def test_runs_that_belong_to_somebody_else(shut: Path, below: str) -> None:
    """As in a volume of another user's containers: the folder is there, or is to be made there."""
    with (
        refused(DispatchError, shut, "manifest_dir"),
        one_dispatch_at_a_time(shut / below, "0" * 64),
    ):
        pytest.fail("it was let in")


def test_a_failure_of_the_dispatch_itself_is_not_reworded(tmp_path: Path) -> None:
    """What happens while the lock is held is not about its folder."""
    with pytest.raises(PermissionError, match="inside"), one_dispatch_at_a_time(tmp_path, "0" * 64):
        raise PermissionError("inside")


@pytest.mark.parametrize("below", [".", "manifests"])
def test_a_plan_that_may_not_be_written(shut: Path, below: str) -> None:
    """The folder that is mounted into a container may be of another user than its own."""
    spec = plan_spec("greetings:all", lambda plan: plan.add("jobs.double", id="one"))
    with closing(PlanBuilder(spec, {})) as builder:
        builder.add("jobs.double", id="one")
        with refused(PlanError, shut, "--manifest=FILE"):
            builder.freeze(shut / below / "m.jsonl", shut)


def test_a_plan_whose_folder_cannot_be_made(tmp_path: Path) -> None:
    """For any other reason; here a file has its name."""
    (tmp_path / "manifests").touch()
    spec = plan_spec("greetings:all", lambda plan: plan.add("jobs.double", id="one"))
    with closing(PlanBuilder(spec, {})) as builder:
        builder.add("jobs.double", id="one")
        with pytest.raises(PlanError, match=r"cannot be written to .*manifests .*free some space"):
            builder.freeze(tmp_path / "manifests" / "m.jsonl", tmp_path)


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o600])
@pytest.mark.parametrize("below", [".", "runs"])
def test_runs_that_may_not_be_seen(shut: Path, below: str, mode: int) -> None:
    """Nobody knows whether there are any: that is not said to be none."""
    folder = shut / below
    shut.chmod(0o755)
    folder.mkdir(exist_ok=True)
    shut.chmod(mode)
    if below == "runs" and mode & 0o111:
        folder.chmod(0o000)
    for look in ledgers_in, unmade_runs:
        with pytest.raises(LedgerError) as caught, somebody_else() as user:
            look(folder)
        assert "cannot be read (Permission denied)" in str(caught.value)
        assert f"this is the one with the id {user}" in str(caught.value)
        assert "manifest_dir" in str(caught.value)


def test_a_folder_that_is_missing_has_no_runs(tmp_path: Path) -> None:
    """Nor has a file, or a link that leads nowhere."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in "missing", "file", "link", "link/runs", "file/runs":
        assert ledgers_in(tmp_path / name) == []


@pytest.mark.parametrize("what", ["file", "loop", "nowhere"])
def test_a_folder_for_runs_that_is_none(tmp_path: Path, what: str) -> None:
    """No space would help."""
    place = tmp_path / what
    if what == "file":
        place.touch()
    else:
        place.symlink_to(place if what == "loop" else tmp_path / "gone")
    with (
        pytest.raises(DispatchError, match=f"nothing was sent; .*{what}.* is no folder"),
        one_dispatch_at_a_time(place / "runs", "0" * 64),
    ):
        pytest.fail("it was let in")


def test_links_that_lead_to_one_another_are_a_sentence(tmp_path: Path) -> None:
    """What is behind them is not known."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(LedgerError, match=r"cannot be read .*symbolic links"):
        ledgers_in(tmp_path / "loop/runs")
