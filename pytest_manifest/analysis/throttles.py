"""Add up what has held a run's sending back, and list what operators did to it, by its facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from pytest_manifest.ledger import Ledger
from pytest_manifest.redaction.texts import redact
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_facts import (
    JobFact,
    RunFact,
    Segment,
    SegmentEnded,
    Steered,
    ThrottleCause,
    Throttled,
    cancelled_by,
    names_in,
)
from pytest_manifest.schema.summary import SummaryAction, SummaryThrottle
from pytest_manifest.text import duration, plural


def throttles_of(facts: Iterable[JobFact | RunFact]) -> list[SummaryThrottle]:
    """Return what held sending back, each cause with its key once, in the order of its first time.

    ``facts`` of one run. What a stretch of the run has not ended ends with its last fact; of what
    goes on only the begin is known.
    """
    began: dict[tuple[ThrottleCause, str], datetime] = {}
    found: dict[tuple[ThrottleCause, str], SummaryThrottle] = {}
    last: datetime | None = None

    def end(which: tuple[ThrottleCause, str], at: datetime) -> None:
        one, since = found[which], began.pop(which)
        lasted = one.seconds + max((at - since).total_seconds(), 0.0)
        found[which] = one.model_copy(update={"ended": at, "seconds": lasted})

    for fact in facts:
        if isinstance(fact, Throttled):
            which = fact.why, fact.key
            if fact.is_over:
                if which in began:
                    end(which, fact.at)
            elif which not in began:
                began[which] = fact.at
                known = found.get(which) or SummaryThrottle(
                    why=fact.why, key=fact.key, detail="", times=0, began=fact.at
                )
                found[which] = known.model_copy(
                    update={"detail": fact.detail, "times": known.times + 1, "ended": None}
                )
        elif isinstance(fact, Segment | SegmentEnded):  # a killed pytest has recorded no end
            for which in list(began):
                end(which, fact.at if isinstance(fact, SegmentEnded) else last or fact.at)
        last = fact.at
    return list(found.values())


def throttles_in(ledger: Ledger, run: str) -> list[SummaryThrottle]:
    """Return what held back a run, or those that it was merged of."""
    return [
        one
        for name in [run, *ledger.info.merged()]
        for one in throttles_of(ledger.facts.of_run(name))
    ]


def actions_in(ledger: Ledger, run: str) -> list[SummaryAction]:
    """Return what operators did to a run, or to those that it was merged of, in order."""
    found = [
        one
        for name in [run, *ledger.info.merged()]
        for one in ledger.facts.of_run(name)
        if isinstance(one, Steered)
    ]
    statuses = ledger.verdicts.statuses() if (names := cancelled_by(found)) else {}
    others = {name for name in names if statuses.get(name, _OWN) != _OWN}
    return [_action(one, others) for one in found]


def settings_phrase(noted: Mapping[str, JsonValue]) -> str:
    """Return what is set to what, seconds in words: the deadline."""
    spelled = dict(noted)
    if isinstance(limit := noted.get("deadline"), float):
        spelled["deadline"] = duration(limit)
    return ", ".join(f"{name} = {value}" for name, value in spelled.items())


_OWN: Final[VerdictStatus] = "cancelled"


def _action(one: Steered, ended_otherwise: Set[str]) -> SummaryAction:
    """Return an action as it is shown; of a cancel, how many of its entries ended otherwise."""
    said = settings_phrase(one.data)
    if "entries" in one.data:
        names = names_in(one.data)
        said = plural(len(names), "entry")
        if one.action == "cancel" and (others := sum(name in ended_otherwise for name in names)):
            said += f", of which {others} ended otherwise"
    return SummaryAction(
        at=one.at,
        action=one.action,
        by=redact(one.by),
        reason=redact(one.reason),
        changed=one.changed,
        detail=redact(said),
    )
