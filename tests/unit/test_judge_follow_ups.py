"""What follows from a judgement: what is sent again, what may have run, what it has cost."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from pytest_manifest.schema import Entry
from pytest_manifest.schema import facts as f
from pytest_manifest.schema import run_facts as r
from pytest_manifest.verdict.judge import Again
from pytest_manifest.verdict.messages import Reused
from tests.unit.judge_world import (
    BEGAN,
    OTHER_CODE,
    PASSED,
    REPEATABLE,
    Step,
    World,
    an_entry,
    code,
    crash,
    ended,
    handed_on,
    node,
    nowhere,
    of_root,
    planned,
    play,
    recalled,
    resent,
    result,
    run_over,
    segment,
    sending,
    sent,
    set_back,
    several,
    spawned,
    started,
    store,
    stored,
    taken_up,
    time_over,
    unreadable,
    withheld,
)

ONCE = an_entry(idempotent=True, retries=1)
HARMLESS = an_entry(idempotent=True)
UNCERTAIN = several(planned(), sending(), result("uncertain"))


def again_uncertain(times: int) -> Step:
    """Lose the message so often on its way to the broker, and publish it once more each time."""
    more = (several(nowhere(), sending(n), result("uncertain", n)) for n in range(2, times + 1))
    return several(UNCERTAIN, *more)


AGAIN: list[tuple[str, list[Step], Entry, Again]] = [
    ("lost", [sent(), started(), nowhere()], ONCE, "attempt"),
    ("crashed", [sent(), crash("x1")], ONCE, "attempt"),
    ("unknown", [sent(), store("emptied"), nowhere()], ONCE, "attempt"),
    ("unknown, and it has ended", [sent(), started(), ended(runtime=None)], ONCE, ""),
    ("passed", [sent(), started(), ended()], ONCE, ""),
    ("failed", [sent(), started(), ended("failed")], ONCE, ""),
    ("timed out", [sent(), started(), time_over()], ONCE, ""),
    ("pending", [sent(), started()], ONCE, ""),
    ("not idempotent", [sent(), started(), nowhere()], an_entry(retries=1), ""),
    ("no retries", [sent(), started(), nowhere()], an_entry(idempotent=True), ""),
    ("no retries left", [sent(), crash("x1"), resent(), crash("x2")], ONCE, ""),
    ("resumed in between", [sent(), crash("x1"), resent("resume"), crash("x2")], ONCE, "attempt"),
    ("too deadly", [segment(kills=1), sent(), crash("x1")], ONCE, ""),
    (
        "a descendant may run yet",
        [sent(), started(), spawned("c1"), time_over("deadline"), of_root(), nowhere()],
        ONCE,
        "",
    ),
    (
        "a lost descendant",
        [sent(), started(), spawned("c"), nowhere(), of_root(), ended()],
        ONCE,
        "attempt",
    ),
    ("never sent, as the run gave up", [planned(), run_over("gave_up")], ONCE, ""),
    ("its message got lost on its way", [UNCERTAIN, nowhere()], an_entry(), "message"),
    ("it got lost three times", [again_uncertain(3), nowhere()], an_entry(), "message"),
    ("it got lost four times", [again_uncertain(4), nowhere()], an_entry(), ""),
    ("it may have been begun", [UNCERTAIN, node("w2", "stock"), nowhere()], an_entry(), ""),
    ("it may, and that does no harm", [UNCERTAIN, node("w2", "stock"), nowhere()], ONCE, "message"),
    ("it was begun", [UNCERTAIN, started(), nowhere()], an_entry(), ""),
    (
        "the store is emptied",
        [UNCERTAIN, store("emptied"), nowhere()],
        an_entry(idempotent=True),
        "",
    ),
    ("something is stored of it", [UNCERTAIN, unreadable(), nowhere()], an_entry(), ""),
    ("the broker had it for certain", [sent(), nowhere()], an_entry(), ""),
    ("it is not searched for yet", [UNCERTAIN, time_over("deadline")], an_entry(), ""),
]


@pytest.mark.parametrize(
    ("steps", "entry", "again"),
    [pytest.param(*rest, id=name) for name, *rest in AGAIN],
)
def test_what_is_sent_again(steps: list[Step], entry: Entry, again: Again) -> None:
    """Another attempt where the entry allows one, or the message that no worker can have had."""
    assert play(steps, entry).judge().again == again


MAY_HAVE_RUN: list[tuple[str, list[Step], bool]] = [
    ("not planned", [], False),
    ("not sent", [planned()], False),
    ("held back", [planned(), withheld("budget")], False),
    ("refused", [planned(), sending(), result("refused")], False),
    ("sent, and each start would be known", [sent()], False),
    ("sent, and a stock worker is there", [node("w2", "stock"), sent()], True),
    ("pytest died while it was published", [node("w2", "stock"), planned(), sending()], True),
    ("begun", [sent(), started()], True),
    ("withdrawn", [node("w2", "stock"), sent(), recalled("stop", "withdrawn")], False),
    ("withdrawn, and begun all the same", [sent(), recalled("stop", "withdrawn"), started()], True),
    (
        "withdrawn, and taken up again",
        [node("w2", "stock"), sent(), recalled("stop", "withdrawn"), taken_up()],
        True,
    ),
    ("revoked by a worker", [sent(), ended("revoked")], False),
    ("revoked by a stock worker", [node("w2", "stock"), sent(), stored("revoked")], True),
    ("expired at a worker", [node("w2", "stock"), sent(), ended("expired")], False),
    (
        "the same, delivered again",
        [node("w2", "stock"), sent(), ended("expired", redelivered=True)],
        True,
    ),
    ("forged", [sent(), ended()], True),
]


@pytest.mark.parametrize(
    ("steps", "may"), [pytest.param(*rest, id=name) for name, *rest in MAY_HAVE_RUN]
)
def test_what_may_have_run(steps: list[Step], may: bool) -> None:
    """By the traces that a run leaves, and by who would have reported one."""
    assert play(steps).judge().may_have_run is may


COSTLY = an_entry(cost=2.0, idempotent=True, retries=9, expect={"executions": 9})
ONE = {"evidence": {"cost": 1.0}}
AT_ONE = ended("succeeded", "x1", **ONE)
SECOND_AT_ONE = ended("succeeded", "x2", **ONE)
RETRIED_AT_ONE = several(started("x2", retries=1), ended("succeeded", "x2", retries=1, **ONE))
COSTS: list[tuple[str, list[Step], str]] = [
    ("as estimated", [sent(), started(), ended()], "2"),
    ("as reported", [sent(), started(), ended(evidence={"cost": 0.3})], "0.3"),
    ("not sent", [planned()], "0"),
    ("begun", [sent(), started()], "2"),
    ("begun twice", [sent(), started(), started("x2", redelivered=True), SECOND_AT_ONE], "3"),
    ("begun twice by its pool", [sent(), started(), started(pid=12), AT_ONE], "3"),
    ("a try that reports", [sent(), started(), handed_on(cost=0.5), RETRIED_AT_ONE], "1.5"),
    ("a try that reports nothing", [sent(), started(), handed_on(), RETRIED_AT_ONE], "3"),
    ("the store's copy", [sent(), started(), AT_ONE, stored()], "1"),
    ("the store alone", [sent(), stored()], "2"),
    ("two attempts", [sent(), crash("x1"), resent(), started("x2"), SECOND_AT_ONE], "3"),
    ("two attempts, both begun", [sent(), started(), nowhere(), resent(), started("x2")], "4"),
    ("turned away", [sent(), ended("rejected")], "0"),
    ("forged", [sent(), started(), ended(evidence={"cost": 9.0}, task="tasks.other")], "2"),
]


@pytest.mark.parametrize(("steps", "cost"), [pytest.param(*rest, id=name) for name, *rest in COSTS])
def test_what_it_has_cost(steps: list[Step], cost: str) -> None:
    """Every execution counts: as it reports, or as the entry estimates."""
    assert play(steps, COSTLY).judge().cost == Decimal(cost)


def reused(world: World) -> None:
    """Reuse a pass of another run's entry: its facts are copied, with what excuses them."""
    origin = f.Reused(run="run-0", entry="e0", attempt=3, by="run-1", at=BEGAN)
    planned("reuse", number=0, reused=origin)(world)
    sending()(world)
    result()(world)


OF_ORIGIN = {"run": "run-0", "entry": "e0", "attempt": 3}


@pytest.mark.parametrize(
    ("fields", "comes_to"),
    [
        (OF_ORIGIN, PASSED),
        ({**OF_ORIGIN, "code": OTHER_CODE}, ("failed", "other_code")),
    ],
)
def test_what_is_reused_is_judged_as_what_it_was(
    fields: dict[str, object], comes_to: tuple[str, str]
) -> None:
    """K: by the identity that it had, and by the code that would run now; it has cost nothing."""
    found = play([reused, started(), ended("succeeded", "x1", **fields), code(OTHER_CODE)]).judge()
    reason = found.finding.reason
    assert isinstance(reason, Reused)
    assert (found.status, reason.why.code, reason.run, reason.entry) == (*comes_to, "run-0", "e0")
    assert (found.cost, found.may_have_run, found.again) == (Decimal(0), False, "")


def test_an_end_of_this_run_is_none_of_what_is_reused() -> None:
    """K: who reused it has not sent it."""
    found = play([reused, started(), ended(), nowhere()]).judge()
    assert (found.status, found.code) == ("forged", "of_another")


def test_what_is_reused_keeps_its_excuses() -> None:
    """K: its store was emptied, or its clock set back, in the run that has sent it."""

    def excused(world: World) -> None:
        lost = world.made(r.StoreFact, what="emptied", job=world.job)
        back = world.made(r.SetBack, by=600.0, most=600.0, job=world.job)
        world.extra[world.job] = (lost, back)

    early = {"started_at": BEGAN - timedelta(minutes=9), **OF_ORIGIN}
    steps = [reused, ended("succeeded", "x1", **early)]
    assert [play(one).judge().status for one in (steps, [*steps, excused])] == ["forged", "passed"]


def test_what_the_present_run_doubts_is_no_excuse_of_what_is_reused() -> None:
    """K: its reports were never in this run's store, nor by this run's clock."""
    early = {"started_at": BEGAN - timedelta(minutes=9), **OF_ORIGIN}
    doubts = [store("emptied"), set_back(600.0)]
    for fields in (OF_ORIGIN, early):
        assert (
            play([reused, *doubts, ended("succeeded", "x1", **fields)]).judge().status == "forged"
        )


def test_each_receipt_gets_what_the_starts_know() -> None:
    """A killed process cannot report where and when it began."""
    found = play([sent(), started(), ended("crashed")], REPEATABLE).judge().receipt
    assert found is not None
    assert (found.started_at, found.pid, found.executions) == (BEGAN, 11, 1)
