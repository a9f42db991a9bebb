"""What is open over all runs: by the last run that had an entry, since its cause was first seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_manifest.analysis.digest import make_digest
from pytest_manifest.analysis.open_failures import OpenEntry, open_failures
from pytest_manifest.schema import VerdictStatus
from tests.unit.following_support import MadeRun

Night = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class Nights:
    """Runs of one manifest after another."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self.runs: list[MadeRun] = []

    def add(self, bad: dict[str, tuple[VerdictStatus, str]], **more: object) -> MadeRun:
        """A run in which these are so, by a kind of error, and all others pass."""
        number = len(self.runs) + 1
        run = MadeRun(self._folder, self._patch, number=number, entries=4, **more)  # type: ignore[arg-type]  # options as the callee names them
        self.runs.append(run)
        run.after(number * 86400)
        for name in (one.id for one in run.manifest):
            status, error = bad.get(name, ("passed", ""))
            run.send(name)
            run.start(name)
            if error:
                run.judge(name, status, error=error)
            else:
                run.judge(name, status)
        run.stop()
        return run

    def open(self) -> dict[str, OpenEntry]:
        return {one.id: one for one in open_failures(make_digest(run.path) for run in self.runs)}


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    made = Nights(tmp_path, monkeypatch)
    yield made
    for run in made.runs:
        run.close()


def test_what_passed_in_the_last_run_is_not_open(nights: Nights) -> None:
    nights.add({"e1": ("failed", "no"), "e2": ("failed", "no")})
    assert nights.open().keys() == {"e1", "e2"}
    nights.add({"e2": ("failed", "no")})
    assert nights.open().keys() == {"e2"}
    nights.add({})
    assert nights.open() == {}


def test_it_is_open_since_its_cause_was_first_seen_in_a_row(nights: Nights) -> None:
    """Another cause begins anew, and so does one that had passed between."""
    first = nights.add({"e1": ("failed", "no"), "e2": ("failed", "no"), "e3": ("failed", "no")})
    second = nights.add({"e1": ("failed", "no"), "e2": ("crashed", "")})
    third = nights.add({"e1": ("failed", "no"), "e2": ("crashed", ""), "e3": ("failed", "no")})
    found = nights.open()
    assert [found[name].first for name in ("e1", "e2", "e3")] == [first.run, second.run, third.run]
    assert {one.run for one in found.values()} == {third.run}
    assert found["e1"].cause == "Refused"


@pytest.mark.parametrize(
    ("status", "more", "is_safe"),
    [
        ("failed", {}, False),
        ("failed", {"idempotent": True}, True),
        ("unknown_task", {}, True),
        ("crashed", {}, False),
        ("quarantined", {"idempotent": True}, False),
    ],
)
def test_safe_is_what_is_idempotent_or_never_ran(
    nights: Nights, status: VerdictStatus, more: dict[str, object], is_safe: bool
) -> None:
    nights.add({"e1": (status, "")}, more=more)
    assert nights.open()["e1"].is_safe == is_safe


@pytest.mark.parametrize("more", [{"meta": {"owner": "ann"}}, {"tags": ["x", "owner:ann"]}])
def test_an_owner_is_in_the_meta_or_a_tag(nights: Nights, more: dict[str, object]) -> None:
    nights.add({"e1": ("failed", "no")}, more=more)
    assert nights.open()["e1"].owner == "ann"


def test_what_cannot_be_accepted_is_known(nights: Nights) -> None:
    nights.add({"e1": ("duplicated", ""), "e2": ("failed", "no")})
    found = nights.open()
    assert [found[name].may_be_accepted for name in ("e1", "e2")] == [False, True]
