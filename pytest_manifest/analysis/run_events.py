"""Find out by a run's figures what somebody should be told of, each event once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.digest import digests_of
from pytest_manifest.analysis.notices import SILENCE, silence_of
from pytest_manifest.analysis.statistics import quantile
from pytest_manifest.schema.run_event import (
    EVENTS,
    MOST_CAUSES,
    EventCause,
    EventLink,
    EventName,
    RunEvent,
)
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.statuses import BAD, STATUSES, outcome_of
from pytest_manifest.text import cut, duration, many, plural, short_path

EARLIER: Final = 10
"""Runs whose durations say when one is late."""
_FEWEST: Final = 3
"""Runs before which nothing is late."""
_SLACK: Final = 60.0
"""Seconds that a run may take longer: what comes before the first job is not in theirs."""
_SLOW_TASK: Final = 2.0
"""A job may take so many times the 95th percentile of the slowest task before its run has stalled:
a long job is no stall."""
_UNKNOWN_TASK: Final = 300.0
"""Seconds in place of the percentile where no job has ended."""
_TITLE: Final = 120


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """The runs of a manifest before this one.

    ``usual``: seconds that hardly one took longer than; None: not known. ``bad``: how many entries
    of the last had failed.
    """

    usual: float | None = None
    bad: int = 0


class RunEvents:
    """The events of one run since the last look. For one thread.

    ``earlier``: what is known of earlier runs. ``wanted``: the events to return.
    """

    def __init__(
        self,
        root: Path,
        links: Sequence[EventLink] = (),
        *,
        earlier: EarlierRuns | None = None,
        wanted: Collection[EventName] = EVENTS,
    ) -> None:
        self._root, self._links, self._wanted = root, links, wanted
        self._earlier = earlier or EarlierRuns()
        self._said: set[EventName] = set()
        self._stalled = False

    def see(
        self, found: RunStatus, exit_status: int | None = None, *, had_failed: bool = False
    ) -> list[RunEvent]:
        """Return what happened; with ``exit_status`` the session has ended.

        ``had_failed``: its first failure was told of before pytest took the run up again.
        """
        if had_failed:
            self._said.add("first_failure")
        events = list(self._happened(found, exit_status))
        return [
            self._event(found, name, title, exit_status)
            for name, title in events
            if name in self._wanted
        ]

    def _happened(
        self, found: RunStatus, exit_status: int | None
    ) -> Iterator[tuple[EventName, str]]:
        bad = sum(count for one, count in found.counts.items() if outcome_of(one) in BAD)
        bad -= found.accepted
        if bad and self._once("first_failure"):
            yield "first_failure", f"first failure, after {many(found.done, 'entry')}"
        if exit_status is not None:
            if self._once("finished"):
                before = self._earlier.bad
                fine = found.counts.get("passed", 0) + found.accepted
                if before and exit_status == 0 and fine == found.total:
                    yield "recovered", f"all passed again, {before:,} had failed in the run before"
                yield "finished", _end(found, bad)
            return
        stall = silence_of(found)
        if stall is not None and (found.state == "left" or _is_long(found)):
            if not self._stalled:
                self._stalled = True
                yield "stalled", stall.text
        elif self._stalled and stall is None:
            self._stalled = False
            yield "recovered", "it goes on again"
        usual = self._earlier.usual
        is_late = usual is not None and found.elapsed > usual + _SLACK
        if is_late and not found.is_over and self._once("late"):
            took, most = duration(found.elapsed), duration(usual or 0)
            yield "late", f"late: {took} so far, of earlier runs 95 % took at most {most}"

    def _once(self, name: EventName) -> bool:
        is_new = name not in self._said
        self._said.add(name)
        return is_new

    def _event(
        self, found: RunStatus, name: EventName, title: str, exit_status: int | None
    ) -> RunEvent:
        manifest = short_path(Path(found.manifest), self._root)
        return RunEvent(
            event=name,
            title=f"{manifest}: {title}",
            run=found.run,
            manifest=manifest,
            at=found.at,
            state=found.state,
            is_bad=name != "recovered" and exit_status != 0,
            exit_status=exit_status,
            elapsed=found.elapsed,
            total=found.total,
            done=found.done,
            counts=found.counts,
            causes=[
                EventCause(title=cut(one.title, _TITLE), kind=one.kind, count=one.count)
                for one in found.causes[:MOST_CAUSES]
            ],
            links=list(self._links),
        )


def _is_long(found: RunStatus) -> bool:
    """Return whether the silence is longer than a job of the slowest task explains."""
    silence = (found.at - (found.heard or found.began)).total_seconds()
    usual = [one.p95 for one in found.tasks if one.p95 is not None]
    return silence > max(SILENCE, _SLOW_TASK * max(usual, default=_UNKNOWN_TASK))


def _end(found: RunStatus, bad: int) -> str:
    took, passed = duration(found.elapsed), found.counts.get("passed", 0)
    if found.state == "detached":
        return f"left to its workers, {found.done:,} of {many(found.total, 'entry')} done"
    if passed == found.total:
        return f"all {plural(found.total, 'entry')} passed, in {took}"
    rest = found.total - passed - bad - found.accepted
    more = f", {found.accepted:,} accepted" if found.accepted else ""
    more += f", {rest:,} neither passed nor failed" if rest else ""
    return f"{bad:,} of {plural(found.total, 'entry')} failed{more}, in {took}"


def text_of(event: RunEvent) -> str:
    """Return an event in some lines of text, without its title."""
    counts = ", ".join(f"{STATUSES[one].words} {count:,}" for one, count in event.counts.items())
    lines = [
        f"{event.done:,} of {plural(event.total, 'entry')} done: {counts or 'nothing yet'}",
        *(f"{one.count:,} x {one.title}" for one in event.causes),
        *(f"{one.name}: {one.at}" for one in event.links),
        f"Run {event.run}, {duration(event.elapsed)}",
    ]
    return "\n".join(lines)


def earlier_runs(run: str, ledger: Path, manifest: Path) -> EarlierRuns:
    """Return what is known of the runs of a manifest before this one, by their digests.

    Raises LedgerError where the folder cannot be read.
    """
    digests = digests_of(ledger.parent, manifest)
    mine = next((n for n, one in enumerate(digests) if one.run == run), len(digests))
    whole = [one for one in digests[:mine] if one.status == "finished" and one.partial is None]
    took = sorted(one.duration for one in whole[-EARLIER:] if one.duration is not None)
    usual = quantile(took, 0.95) if len(took) >= _FEWEST else None
    return EarlierRuns(usual, whole[-1].bad if whole else 0)
