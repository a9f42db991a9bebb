"""What excuses a report belongs to its run, its attempt and its moment; it reaches nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_manifest import signing as keys
from pytest_manifest.ledger import (
    RECEIPT_KEYS,
    Ledger,
)
from pytest_manifest.ledger import utc_now as true_now
from pytest_manifest.run import fact_log
from pytest_manifest.run import fact_log as clock
from pytest_manifest.run.fact_log import CLOCK, ClockWatch, note_emptied, record_own_limits
from pytest_manifest.schema.facts import Reused
from pytest_manifest.schema.run_facts import SetBack, StoreFact
from pytest_manifest.verdict.judging import Costs, Judging, signatures_of
from pytest_manifest.verdict.signatures import UNTRUSTED
from pytest_manifest.worker import signing
from tests.reports import EMPTIED
from tests.unit.shards_support import Shards

BACK = 7200.0


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path)


# Shards


@pytest.mark.parametrize("reverse", [False, True])
def test_a_limit_holds_for_the_jobs_of_its_own_shard(shards: Shards, reverse: bool) -> None:
    """Jobs of 2 s, with a limit of 1 s in one shard and of 100 s in the other."""
    shards.add(limits={"t": 1.0})
    shards.add(limits={"t": 100.0})
    assert [shards.statuses(path) for path in shards.paths] == [
        {"e0": "timed_out"},
        {"e1": "passed"},
    ]
    path = shards.merged(reverse=reverse)
    assert shards.audited(path) == {"e0": "timed_out", "e1": "passed"}
    assert shards.broken(path) == []


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("starts", [("another",), ()])
def test_a_store_that_was_emptied_excuses_no_other_shard(
    shards: Shards, starts: tuple[str, ...], reverse: bool
) -> None:
    """An end of an execution that nobody had begun, also where nobody had begun any."""
    shards.add(starts=starts)
    shards.add(facts=[EMPTIED])
    assert shards.statuses(shards.paths[0]) == {"e0": "forged"}
    path = shards.merged(reverse=reverse)
    assert shards.audited(path) == {"e0": "forged", "e1": "passed"}
    assert shards.broken(path) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_a_clock_that_was_set_back_excuses_no_other_shard(shards: Shards, reverse: bool) -> None:
    """A report from an hour before its job was sent, in the shard whose clock went right."""
    shards.add(before=3600.0)
    shards.add(columns={CLOCK: f'{{"boot": "b", "ahead": 1.0, "set_back": {BACK}}}'})
    assert shards.statuses(shards.paths[0]) == {"e0": "forged"}
    path = shards.merged(reverse=reverse)
    assert shards.audited(path) == {"e0": "forged", "e1": "passed"}
    assert shards.broken(path) == []


def test_costs_of_a_merged_run_are_the_sums_of_its_shards(shards: Shards) -> None:
    """What may have run unreported in one shard has not in the other, which never lacks a start."""
    late: dict[str, Any] = {"state": "expired", "source": "backend", "runtime": None}
    shards.add(starts=(), **late)
    with Ledger.open(shards.add(starts=(), **late), write=True) as ledger:
        note_emptied(ledger)
    total = 0.0
    for path in shards.paths:
        with Ledger.open(path) as ledger:
            total += Costs(ledger, shards.manifest).total()
    with Ledger.open(shards.merged(reverse=False)) as ledger:
        merged = Costs(ledger, shards.manifest)
        assert merged.total() == total
        assert [merged.of(row.task_id) for row in ledger.attempts.all()] == [0, 2]


def excused(shards: Shards, path: Path) -> dict[str, list[tuple[str, object]]]:
    """What excuses the reports of each attempt of a ledger; where it is reused, nothing of that."""
    found: dict[str, list[tuple[str, object]]] = {}
    with Ledger.open(path) as ledger:
        judging = Judging(ledger)
        for row in ledger.attempts.all():
            [one] = ledger.jobs.of_entry(row.entry)
            own = one.own
            facts = judging.excuses(own)
            assert {fact.job for fact in facts} <= {row.task_id}
            found[row.entry] = [
                ("store", fact.what) if isinstance(fact, StoreFact) else ("clock", fact.by)
                for fact in facts
            ]
            origin = Reused(run=own.job.run, entry="e", attempt=1, by=own.job.run, at=own.job.at)
            assert judging.excuses(replace(own, job=replace(own.job, reused=origin))) == ()
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_what_excuses_a_report_is_of_its_own_shard(tmp_path: Path, reverse: bool) -> None:
    """The store that was emptied before its end; the clock that was set back meanwhile."""
    shards = Shards(tmp_path, total=4)
    shards.add()
    shards.add(facts=[EMPTIED], is_whole=False)
    shards.add(flown=[SetBack(seq=0, at=true_now(), by=BACK, most=BACK)])
    shards.add(flown=[EMPTIED])
    wanted: dict[str, list[tuple[str, object]]] = {
        "e0": [],
        "e1": [("store", "emptied")],
        "e2": [("clock", BACK)],
        "e3": [("store", "emptied")],
    }
    alone: dict[str, list[tuple[str, object]]] = {}
    for path in shards.paths:
        alone |= excused(shards, path)
    assert alone == wanted
    assert excused(shards, shards.merged(reverse=reverse)) == wanted


@pytest.fixture
def two_keys() -> Iterator[Sequence[tuple[bytes, str]]]:
    yield [keys.generate(), keys.generate()]
    signing.forget()


def test_a_key_that_one_shard_trusts_is_none_of_another(
    shards: Shards, two_keys: Sequence[tuple[bytes, str]]
) -> None:
    """Whoever has the key of one shard's workers could speak for all of them; a key that is named
    for the audit itself is trusted in all."""
    (private, public), (_, other) = two_keys
    signing.use(keys.read_signer(private.decode(), "key"))
    shards.add(columns={RECEIPT_KEYS: other})
    shards.add(columns={RECEIPT_KEYS: public})
    assert shards.statuses(shards.paths[0]) == {"e0": "forged"}
    path = shards.merged(reverse=False)
    assert shards.audited(path) == {"e0": "forged", "e1": "passed"}
    with Ledger.open(path) as ledger:
        [(_, receipt)] = ledger.events.receipts(ledger.attempts.of_entry("e1")[0].task_id)
        of = [signatures_of(ledger), *(signatures_of(ledger, one) for one in ledger.info.merged())]
        faults = [one.fault_of(receipt) for one in of if one is not None]
    assert faults == ["", UNTRUSTED, ""]
    assert shards.audited(path, receipt_keys=public) == {"e0": "passed", "e1": "passed"}


# One run


def test_a_limit_that_is_raised_holds_for_what_is_sent_from_then_on(shards: Shards) -> None:
    """The attempt of before stays as it was judged, by an audit and by the check."""
    path = shards.add(limits={"t": 1.0})
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 100.0})
    assert shards.audited(path) == {"e0": "timed_out"}
    assert shards.broken(path) == []


def test_a_limit_that_a_task_gets_later_reaches_no_pass_of_before(shards: Shards) -> None:
    path = shards.add(limits={})
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 1.0})
    assert shards.audited(path) == {"e0": "passed"}
    assert shards.broken(path) == []


def test_a_limit_that_is_lowered_reaches_no_pass_of_before(shards: Shards) -> None:
    path = shards.add(limits={"t": 100.0})
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 1.0})
    assert shards.audited(path) == {"e0": "passed"}
    assert shards.broken(path) == []


def test_a_raised_limit_reaches_nothing_of_before_where_the_clock_was_set_back(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent before has the later time then."""
    path = shards.add(limits={"t": 1.0})
    monkeypatch.setattr(fact_log, "utc_now", lambda: true_now() - timedelta(hours=1))
    with Ledger.open(path, write=True) as ledger:
        record_own_limits(ledger, {"t": 100.0})
    assert shards.audited(path) == {"e0": "timed_out"}


def test_a_store_that_is_emptied_later_excuses_nothing_of_before(shards: Shards) -> None:
    """Only what is in flight then."""
    path = shards.add(starts=())
    with Ledger.open(path, write=True) as ledger:
        note_emptied(ledger)
    assert shards.audited(path) == {"e0": "forged"}


def test_a_store_that_was_away_when_a_job_was_judged_is_remembered(shards: Shards) -> None:
    """What is believed since nobody could ask is believed by the next audit, too."""
    path = shards.add(starts=(), is_whole=False)
    assert shards.statuses(path) == {"e0": "passed"}
    assert shards.audited(path) == {"e0": "passed"}


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
