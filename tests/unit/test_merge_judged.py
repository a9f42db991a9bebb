"""What a shard's jobs are judged by is its own run's, wherever its ledger was merged into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.run import audit
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.schema.run_facts import RunFact, SetBack, StoreFact
from pytest_manifest.verdict.judging import Judging
from tests.unit.ledger_support import verdict
from tests.unit.shards_support import Shards


@dataclass(frozen=True)
class Told:
    """What of a shard is otherwise: how it is made, and what its run knew beside."""

    made: Mapping[str, object] = field(default_factory=dict)
    facts: tuple[RunFact, ...] = ()


def judged(shards: Shards, path: Path) -> dict[str, tuple[str, str]]:
    """Status and code of each entry of a ledger that was sent, by its facts."""
    with Ledger.open(path) as ledger:
        known = ledger.attempts.known_entries(list(shards.manifest.ids))
        judging = Judging(ledger)
        found = judging.each(shards.manifest.some(sorted(known)))
        statuses: dict[str, tuple[str, str]] = {}
        for one in found:
            assert judging.as_of(one, 1 << 62).judgement == one.judgement
            statuses[one.entry.id] = one.judgement.status, one.judgement.code
        return statuses


BACK = SetBack(**stamp(), by=3600.0, most=3600.0)
EMPTIED = StoreFact(**stamp(), what="emptied")


@pytest.mark.parametrize(
    ("one", "other", "status"),
    [
        (Told({"limits": {"t": 1.0}}), Told({"limits": {"t": 100.0}}), "timed_out"),
        (Told({"before": 400.0}), Told(facts=(BACK,)), "forged"),
        (Told({"starts": ()}), Told(facts=(EMPTIED,)), "forged"),
        (Told({"runtime": 2.0}), Told({"limits": {"t": 1.0}}), "passed"),
    ],
    ids=["limit", "clock", "store", "no limit"],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_shard_is_judged_by_its_own_facts(
    tmp_path: Path, one: Told, other: Told, status: str, *, reverse: bool
) -> None:
    """Neither the longest limit, nor the clock that was set back most, nor one emptied store."""
    shards = Shards(tmp_path)
    for told in (one, other):
        with Ledger.open(shards.add(**told.made), write=True) as ledger:  # type: ignore[arg-type]  # the table's words
            ledger.facts.append((None, fact) for fact in told.facts)
    alone = judged(shards, shards.paths[0]) | judged(shards, shards.paths[1])
    assert alone["e0"][0] == status
    assert judged(shards, shards.merged(reverse=reverse)) == alone


def test_what_a_run_was_sent_by_is_its_own(tmp_path: Path) -> None:
    """Its stack and the time for which its store keeps something; of all the merged run has one."""
    shards = Shards(tmp_path)
    for owned, ttl in (("1", "60"), ("0", "3600")):
        with Ledger.open(shards.add(), write=True) as ledger:
            ledger.info.set_meta("is_private", owned)
            ledger.info.set_meta("stream_ttl", ttl)
    alone = []
    for path in shards.paths:
        with Ledger.open(path) as ledger:
            alone.append(ledger.jobs.run_facts())
    with Ledger.open(shards.merged()) as ledger:
        found = [ledger.jobs.run_facts(one.run) for one in alone]
    of_both = [
        [(one.created_at, one.is_private, one.stream_ttl, one.backend) for one in some]
        for some in (alone, found)
    ]
    assert of_both[0] == of_both[1]
    assert [one.is_private for one in found] == [True, False]
    assert all(one.first_start is not None for one in found)


def test_several_processes_find_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each judges a part of the entries, and what it finds stands in the manifest's order."""
    shards = Shards(tmp_path, total=5)
    for _ in range(5):
        shards.add()
    path = shards.merged()
    with Ledger.open(path, write=True) as ledger:
        ledger.verdicts.record([(verdict(entry, "lost"), None) for entry in ("e4", "e0", "e2")])
    alone = shards.broken(path)
    assert [one.split()[1] for one in alone[-3:]] == ["e0:", "e2:", "e4:"]
    monkeypatch.setattr(audit, "ENTRIES_OF_A_PROCESS", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert shards.broken(path) == alone
