"""The table of facts: each kind comes back as it was, in one order with receipts and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.facts import Owned
from pytest_manifest.schema import ErrorInfo
from pytest_manifest.schema.facts import (
    Announced,
    ChildElsewhere,
    ChildUnsent,
    Closed,
    Ended,
    FactSource,
    Gone,
    HandedOn,
    Kind,
    Moved,
    Nowhere,
    Recalled,
    Seen,
    Sending,
    SendResult,
    Started,
    Stored,
    TakenUp,
    TimeOver,
    Withheld,
)
from pytest_manifest.schema.run_facts import (
    KINDS,
    JobFact,
    NodeFact,
    PlaceFact,
    RunFact,
    RunOver,
    Search,
    Segment,
    SegmentEnded,
    SetBack,
    Steered,
    StoreFact,
    TaskFact,
    Throttled,
)
from tests.reports import add_receipts, add_starts, facts_after, facts_of
from tests.unit.ledger_support import INFO, MOMENT, receipt, start, verdict

RUN = INFO.run
PLANNED = 1
"""The number that the planned attempts have."""
ONE_OF_EACH: tuple[JobFact | RunFact, ...] = (
    Withheld(seq=0, at=MOMENT, job="t-a", code="after", names=("x", "y"), fields={"left_out": 3}),
    Sending(seq=0, at=MOMENT, job="t-a", number=2, sent_at=MOMENT),
    SendResult(seq=0, at=MOMENT, job="t-a", number=2, outcome="uncertain", error="the 'wire'"),
    Gone(
        seq=0, at=MOMENT, job="t-a", source=FactSource.SUPERVISOR, execution="x1", pid=7,
        exit_code=-9, worker="w1",
    ),
    Nowhere(seq=0, at=MOMENT, job="t-a", source=FactSource.SEARCH, as_of=4),
    Seen(
        seq=0, at=MOMENT, job="t-a", source=FactSource.SEARCH, place="unacked", as_of=4, holder="w"
    ),
    Moved(seq=0, at=MOMENT, job="t-a", how="put_back"),
    TimeOver(seq=0, at=MOMENT, job="t-a", of="timeout", limit=1.5, execution="x1"),
    Recalled(seq=0, at=MOMENT, job="t-a", why="stop", stage="heard"),
    TakenUp(seq=0, at=MOMENT, job="t-a", why="resume"),
    Started(
        seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, execution="x1", started_at=MOMENT,
        retries=1, hop=2, redelivered=True, worker="w@h", host="h", pid=7, boot="b",
        namespace="pid:[1]",
    ),
    HandedOn(
        seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, execution="x1", how="retry",
        ended_at=MOMENT, next_at=MOMENT, cost=0.5,
    ),
    Ended(
        seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, execution="x1", fault="unsigned",
        receipt=receipt("a", result={"ä": [1]}),
    ),
    Stored(
        seq=0, at=MOMENT, job="t-a", source=FactSource.STORE,
        receipt=receipt("a", state="failed", error=ErrorInfo(type="E", message="m")),
    ),
    ChildUnsent(seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER),
    ChildElsewhere(seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, broker="redis://b"),
    Announced(
        seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, key="k", announcer="t-a",
        how="after", task="t", number=2, task_ids=("c1", "c2"), is_off=True,
    ),
    Closed(seq=0, at=MOMENT, job="t-a", source=FactSource.WORKER, key="k"),
    Segment(
        seq=0, at=MOMENT, kills=3, lifetime=60.0, deadline=9.5, canary=1, max_failed="5%",
        budget=0.25, limits={"tenant": 5}, rates={"": "200/s", "tenant=a": "3/m"}, queue_depth=50,
    ),
    SegmentEnded(seq=0, at=MOMENT, how="stopped"),
    TaskFact(seq=0, at=MOMENT, task="t", code="0ab", limit=3.0),
    StoreFact(seq=0, at=MOMENT, what="emptied"),
    NodeFact(seq=0, at=MOMENT, name="w@h", what="silent"),
    PlaceFact(seq=0, at=MOMENT, what="other_broker", url="redis://b"),
    Search(
        seq=0, at=MOMENT, source=FactSource.SEARCH, as_of=4, answered=("w1",), silent=("w2",),
        blind_spot="it shows no queue", counts={"missing": 2},
    ),
    SetBack(seq=0, at=MOMENT, by=3600.0, most=3600.0),
    RunOver(seq=0, at=MOMENT, why="deadline", limit=3.0),
    Throttled(seq=0, at=MOMENT, why="rate", detail="no more than 3/m", is_over=True, key="a=b"),
    Steered(
        seq=0, at=MOMENT, command=2, action="set", by="ada@box", reason="failover", changed=False,
        data={"window": 3, "limit.tenant": 2},
    ),
)  # fmt: skip


def owned(fact: JobFact | RunFact) -> Owned:
    return "a" if fact.job else None, fact


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        made.attempts.plan([("t-a", "a", 1, 0), ("t-b", "b", 1, 1)])
        yield made


def test_there_is_one_of_each_kind() -> None:
    assert {fact.kind for fact in ONE_OF_EACH} == set(KINDS) == set(Kind)


@pytest.mark.parametrize("fact", ONE_OF_EACH, ids=lambda one: one.kind.name)
def test_a_fact_comes_back_as_it_was(ledger: Ledger, fact: JobFact | RunFact) -> None:
    """With the next number of the order, whatever number it had."""
    ledger.facts.append([owned(replace(fact, seq=77))])
    (found,) = facts_of(ledger, "a") if fact.job else ledger.facts.of_run(RUN)
    assert found == replace(fact, seq=PLANNED + 1)


def test_each_reader_has_the_same_facts(ledger: Ledger) -> None:
    """Of an entry, of the run, by kind, and after a position."""
    other = replace(ONE_OF_EACH[4], job="t-b")
    ledger.facts.append([("b", other), *map(owned, ONE_OF_EACH)])
    every = facts_after(ledger, 0)
    assert [one.fact.seq for one in every] == [PLANNED + n for n in range(1, len(ONE_OF_EACH) + 2)]
    assert [one.fact for one in every if one.entry == "a"] == facts_of(ledger, "a")
    assert [one.fact for one in every if one.run == RUN] == ledger.facts.of_run(RUN)
    assert facts_after(ledger, PLANNED + 3) == every[3:]
    assert [one.job for one in ledger.facts.of_kind(Nowhere)] == ["t-b", "t-a"]
    assert facts_of(ledger, "nobody's") == []


def test_facts_receipts_and_verdicts_have_one_order(ledger: Ledger) -> None:
    """So that it is known what had been seen when a verdict was given, also by another writer."""
    ledger.facts.append([owned(ONE_OF_EACH[4])])
    with ledger.transaction():
        add_starts(ledger, [start("t-a", "x")])
        add_receipts(ledger, [("t-a", "x", receipt("a"))])
        ledger.verdicts.record([(verdict("a"), receipt("a"))])
    assert [ledger.verdicts.since(0), ledger.facts.last_seq()] == [
        [(PLANNED + 4, "a", "passed")],
        PLANNED + 4,
    ]
    with Ledger.open(ledger.path, write=True) as other:
        other.facts.append([owned(ONE_OF_EACH[6])])
    ledger.facts.append([owned(ONE_OF_EACH[7])])
    assert [one.seq for one in facts_of(ledger, "a")] == [PLANNED + n for n in (1, 2, 3, 5, 6)]


def test_what_is_not_committed_has_taken_no_number(ledger: Ledger) -> None:
    """Nor is anything of it there."""
    with suppress(ZeroDivisionError), ledger.transaction():
        ledger.facts.append([owned(ONE_OF_EACH[4])])
        raise ZeroDivisionError
    assert facts_after(ledger, 0) == []
    ledger.facts.append([owned(ONE_OF_EACH[6])])
    assert [one.seq for one in facts_of(ledger, "a")] == [PLANNED + 1]


def test_times_are_kept_to_the_microsecond(ledger: Ledger) -> None:
    moments = [MOMENT + timedelta(microseconds=n) for n in range(3)]
    ledger.facts.append([owned(replace(ONE_OF_EACH[4], at=at)) for at in moments])
    assert [one.at for one in facts_of(ledger, "a")] == moments


@pytest.mark.parametrize("change", ["kind = 99", "source = 99", "data = '[]'", "data = 'x'"])
def test_a_damaged_fact_is_named_as_damage(ledger: Ledger, change: str) -> None:
    ledger.facts.append([owned(ONE_OF_EACH[4])])
    ledger._db.connection.execute(f"UPDATE facts SET {change}")
    with pytest.raises(LedgerError, match="the ledger is damaged"):
        facts_of(ledger, "a")
