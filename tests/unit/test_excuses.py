"""What excuses a report belongs to its run, its attempt and its moment; it reaches nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_manifest.ledger import GAVE_UP, OTHER_BROKER, STOCK_WORKERS, STORE_EMPTIED, Ledger
from pytest_manifest.ledger import utc_now as true_now
from pytest_manifest.run import clock, task_metadata
from pytest_manifest.run.clock import CLOCK, ClockWatch
from pytest_manifest.run.task_metadata import record_own_limits
from pytest_manifest.verdict import Costs
from tests.unit.shards_support import Shards

BACK = 7200.0


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path)


def in_rounds(shards: Shards, rounds: int, *, reverse: bool) -> Path:
    """Merge the shards, and what was merged once more for each further round."""
    from pytest_manifest.run.merge import merge

    path = shards.merged(reverse=reverse)
    for _ in range(rounds - 1):
        path = merge([path]).ledger
    return path


# Shards


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_limit_holds_for_the_jobs_of_its_own_shard(
    shards: Shards, rounds: int, reverse: bool
) -> None:
    """Jobs of 2 s, with a limit of 1 s in one shard and of 100 s in the other."""
    shards.add(limit=1.0)
    shards.add(limit=100.0)
    assert [shards.statuses(path) for path in shards.paths] == [
        {"e0": "timed_out"},
        {"e1": "passed"},
    ]
    path = in_rounds(shards, rounds, reverse=reverse)
    assert shards.audited(path) == {"e0": "timed_out", "e1": "passed"}
    assert shards.broken(path) == []


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("starts", [("another",), ()])
def test_a_store_that_was_emptied_excuses_no_other_shard(
    shards: Shards, starts: tuple[str, ...], rounds: int, reverse: bool
) -> None:
    """An end of an execution that nobody had begun, also where nobody had begun any."""
    shards.add(starts=starts)
    shards.add(facts={STORE_EMPTIED: "1"})
    assert shards.statuses(shards.paths[0]) == {"e0": "forged"}
    path = in_rounds(shards, rounds, reverse=reverse)
    assert shards.audited(path) == {"e0": "forged", "e1": "passed"}
    assert shards.broken(path) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_a_clock_that_was_set_back_excuses_no_other_shard(shards: Shards, reverse: bool) -> None:
    """A report from an hour before its job was sent, in the shard whose clock went right."""
    shards.add(before=3600.0)
    shards.add(facts={CLOCK: f'{{"boot": "b", "ahead": 1.0, "set_back": {BACK}}}'})
    assert shards.statuses(shards.paths[0]) == {"e0": "forged"}
    path = shards.merged(reverse=reverse)
    assert shards.audited(path) == {"e0": "forged", "e1": "passed"}
    assert shards.broken(path) == []


@pytest.mark.parametrize("key", [STORE_EMPTIED, GAVE_UP, OTHER_BROKER, STOCK_WORKERS])
@pytest.mark.parametrize("rounds", [1, 2])
def test_costs_of_a_merged_run_are_the_sums_of_its_shards(
    shards: Shards, key: str, rounds: int
) -> None:
    """What may have run unreported in one shard has not in the other, which never lacks a start."""
    shards.add(state="revoked", runtime=None, starts=())
    shards.add(facts={key: "1"})
    total = 0.0
    for path in shards.paths:
        with Ledger.open(path) as ledger:
            total += Costs(ledger, shards.manifest).total()
    with Ledger.open(in_rounds(shards, rounds, reverse=False)) as ledger:
        assert Costs(ledger, shards.manifest).total() == total


# One run


def test_a_limit_that_is_raised_holds_for_what_is_sent_from_then_on(shards: Shards) -> None:
    """The attempt of before stays as it was judged, by an audit and by the check."""
    path = shards.add(limit=1.0)
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 100.0})
    assert shards.audited(path) == {"e0": "timed_out"}
    assert shards.broken(path) == []


def test_a_limit_that_is_lowered_reaches_no_pass_of_before(shards: Shards) -> None:
    path = shards.add(limit=100.0)
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 1.0})
    assert shards.audited(path) == {"e0": "passed"}
    assert shards.broken(path) == []


def test_a_raised_limit_reaches_nothing_of_before_where_the_clock_was_set_back(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent before has the later time then."""
    path = shards.add(limit=1.0)
    monkeypatch.setattr(task_metadata, "utc_now", lambda: true_now() - timedelta(hours=1))
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 100.0})
    assert shards.audited(path) == {"e0": "timed_out"}


def test_a_store_that_is_emptied_later_excuses_nothing_of_before(shards: Shards) -> None:
    path = shards.add(starts=())
    with Ledger.open(path, write=True) as ledger:
        ledger.info.set_meta(STORE_EMPTIED, "1")
    assert shards.audited(path) == {"e0": "forged"}


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall's clock back by so many seconds, as a watch sees it."""
    back = 0.0
    monkeypatch.setattr(clock, "utc_now", lambda: true_now() - timedelta(seconds=back))
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=time.monotonic))
    monkeypatch.setattr(clock, "boot_id", lambda: "this")

    def by(seconds: float) -> None:
        nonlocal back
        back += seconds

    return by


def test_a_clock_that_is_set_back_later_excuses_nothing_of_before(
    shards: Shards, set_back: Callable[[float], None]
) -> None:
    path = shards.add(before=3600.0)
    with Ledger.open(path, write=True) as ledger:
        watch = ClockWatch(ledger)
        watch.look()
        set_back(BACK)
        watch.look()
    assert shards.audited(path) == {"e0": "forged"}
