"""Choose the things to know of a run, at most three: each with its evidence and a remedy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from pytest_manifest.analysis.live_figures import RunFigures
from pytest_manifest.analysis.live_story import moment, short
from pytest_manifest.schema.run_status import MOST_NOTICES, RunStatus, StatusNotice
from pytest_manifest.schema.statuses import BAD, STATUSES, outcome_of
from pytest_manifest.text import cut, duration, listed, many, one_line, plural, rate_text

SILENCE: Final = 120.0
"""Seconds in which nothing was heard, of which a person should know."""
_FELL: Final = 0.6
"""The share of the median below which the rate has fallen."""
_SETTLED: Final = 180.0
"""Seconds of a stretch before its rate is compared."""
_DEATH_SHOWN: Final = 600.0
"""Seconds for which a death is a thing to know; its entry says the rest."""
_MANY: Final = 0.03
"""The share of the entries judged that makes a cause a thing to know."""
_ENOUGH: Final = 5
_MOVED: Final = 600.0
_COMMAND: Final = 1000
"""Characters of a command at most."""
_SOON: Final = 6 * 3600.0
"""Seconds within which a limit that will strike is a thing to know."""


def things_to_know(figures: RunFigures, found: RunStatus) -> list[StatusNotice]:
    """Return what a person should know of a run, the most important first."""
    if found.state == "left":
        return [_left(found, short(shlex.join(figures.go_on), _COMMAND))]
    if found.is_over:
        return []
    causes = [*_causes(found)]
    every = [
        *_workers(figures, found),
        *_held(figures, found),
        *_quiet(found),
        *causes,
        *(_limit(found) if not causes else ()),  # which say it, too
        *_slow(figures, found),
        *_budget(found),
        *_no_pass(found),
        *_moved(found),
    ]
    return every[:MOST_NOTICES]


def silence_of(found: RunStatus) -> StatusNotice | None:
    """Return what is to know of a run of which nothing is heard; None where it goes on."""
    if found.state == "left":
        return _left(found)
    return None if found.is_over else next(_quiet(found), None)


def clock_of(at: datetime) -> str:
    """Return a moment as these sentences name it."""
    return f"{at:%H:%M} UTC"


def _left(found: RunStatus, go_on: str = "") -> StatusNotice:
    """Note that nobody follows a run; ``go_on``: the command that does."""
    heard = found.heard or found.began
    return StatusNotice(
        code="left",
        text="Its pytest is gone, and has not recorded how the run ended",
        evidence=f"No process holds the run's lock; the ledger was last written at "
        f"{clock_of(heard)}, {duration(max((found.at - heard).total_seconds(), 0))} ago",
        remedy=f"Go on: {go_on}",
        since=heard,
    )


def _workers(figures: RunFigures, found: RunStatus) -> Iterator[StatusNotice]:
    now = figures.now
    silent = [one for one in found.workers if one.is_gone and one.running]
    for one in silent[:1]:
        had = listed(one.has, 2)
        since = "" if one.heard is None else f" since {clock_of(one.heard)}"
        yield StatusNotice(
            code="worker",
            text=f"Worker {one.name} has been silent{since}; it has {had}",
            evidence=f"It did not answer the last search; {plural(len(silent), 'worker')} like it",
            remedy="See whether it lives; what it has comes back when its connection ends, or the "
            "broker's visibility timeout is over",
            since=one.heard,
        )
    deaths = [one for one in figures.story.deaths if now - one.at < _DEATH_SHOWN]
    if not deaths:
        return
    last = deaths[-1]
    name = figures.names([last.entry]).get(last.entry, "?")
    code = "" if last.exit_code is None else f" with exit code {last.exit_code}"
    yield StatusNotice(
        code="worker",
        text=f"A process of {short(last.worker, 60)} ended at {clock_of(moment(last.at))} while it "
        f"ran {cut(name, 60)}",
        evidence=f"It ended{code}; {plural(len(deaths), 'process')} in ten minutes. "
        f"The entry {_fate(figures, last.entry)}",
        remedy="Look at the worker's log and for a lack of memory",
        since=moment(last.at),
    )


def _fate(figures: RunFigures, entry: int) -> str:
    status = figures.entries.status(entry)
    if status is not None and figures.entries.is_done(entry):
        return STATUSES[status].words
    if any(one.entry == entry for _, one in figures.under_way()):
        return "runs again"
    return "waits: it is judged, or sent again, once its end is known"


def _held(figures: RunFigures, found: RunStatus) -> Iterator[StatusNotice]:
    since = figures.story.held_since
    if found.state in ("paused", "draining") and since is not None:
        holding = (one for one in found.actions if one.changed and one.action in ("pause", "drain"))
        last = next(holding, None)
        who = "" if last is None else f" by {last.by}"
        why = "" if last is None or not last.reason else f": {last.reason}"
        yield StatusNotice(
            code="paused",
            text=f"{found.state.capitalize()} since {clock_of(moment(since))}{who}{why}",
            evidence=f"{many(found.running, 'entry')} run, {found.waiting:,} wait, "
            f"{found.unsent:,} are not sent",
            remedy=f"Go on: manifest ctl {found.run} resume",
            since=moment(since),
        )
    for one in found.throttling:
        if one.ended is None:
            yield StatusNotice(
                code="paused",
                text=f"Sending is held back since {clock_of(one.began)} by {one.why}",
                evidence=one.detail or "no further detail was given",
                remedy="It goes on by itself when that is over",
                since=one.began,
            )
            return


def _quiet(found: RunStatus) -> Iterator[StatusNotice]:
    if found.heard is None or found.state == "paused":
        return
    silence = (found.at - found.heard).total_seconds()
    if silence < SILENCE or found.done == found.total:
        return
    retry = ""
    if found.next_try is not None and found.retrying:
        retry = f"; the next of {found.retrying:,} tries is due at {clock_of(found.next_try)}"
    yield StatusNotice(
        code="quiet",
        text=f"Nothing was heard for {duration(silence)}",
        evidence=f"{many(found.running, 'entry')} run, {found.waiting:,} wait for a worker, "
        f"{found.unsent:,} are not sent{retry}",
        remedy=f"Ask why it does not move: manifest doctor {found.run}",
        since=found.heard,
    )


def _causes(found: RunStatus) -> Iterator[StatusNotice]:
    for one in sorted(found.causes, key=lambda one: -one.last_minute):
        is_many = found.done >= 20 and one.count >= _MANY * found.done
        if one.count < 3 or not (one.is_new or one.last_minute >= _ENOUGH or is_many):
            continue
        new = "" if one.is_new is None else "; the last run had it, too"
        if one.is_new:
            new = "; the last run of this manifest did not have it"
        yield StatusNotice(
            code="cause",
            text=f"{cut(one.title, 80)}: {many(one.count, 'entry')}, {one.last_minute} in the last "
            "minute",
            evidence=f"Such as {cut(one.example, 60)}{new}: {cut(one.message, 120)}",
            remedy=_strikes(found) or f"Look at one: manifest show {found.run} --status {one.kind}",
        )
        return


def _limit(found: RunStatus) -> Iterator[StatusNotice]:
    strikes = _strikes(found)
    if strikes is not None:
        yield StatusNotice(
            code="limit",
            text=strikes,
            evidence=f"{_failed(found):,} of {found.total:,} entries failed so far, "
            f"{sum(one.last_minute for one in found.causes)} in the last minute",
            remedy="Mend what goes wrong and resume, or set another limit: "
            f"manifest ctl {found.run} set max-failed=N",
        )


def _failed(found: RunStatus) -> int:
    return sum(number for one, number in found.counts.items() if outcome_of(one) in BAD)


def _strikes(found: RunStatus) -> str | None:
    """Return when the limit of failures stops the run; None where that is not soon."""
    given = str(found.limits.get("max-failed") or "")
    number = given.partition(":")[0]
    try:
        most = float(number.removesuffix("%"))
    except ValueError:
        return None
    most = most / 100 * found.total if number.endswith("%") else most
    each_minute = sum(one.last_minute for one in found.causes)
    left = most - _failed(found)
    if found.state != "running" or not each_minute or left < 0:
        return None
    until = max(left / each_minute * 60, 1.0)
    end = None if found.eta is None else (found.eta.at - found.at).total_seconds()
    if until > _SOON or (end is not None and until > end):
        return None
    took = duration(until)
    return f"--manifest-max-failed={one_line(given)} stops the run in about {took}"


def _slow(figures: RunFigures, found: RunStatus) -> Iterator[StatusNotice]:
    rate, usual = found.rate, found.median_rate
    if rate is None or not usual or found.state != "running" or not found.unsent + found.waiting:
        return
    if rate >= _FELL * usual or figures.now - figures.pace.since < _SETTLED:
        return
    since = moment(figures.pace.slow_since(figures.now, _FELL * usual))
    minute = timedelta(seconds=60)
    quiet = [
        (one.name, one.heard)
        for one in found.workers
        if one.heard is not None and one.heard < min(since + minute, found.at - minute)
    ]
    slow = [one for one in found.longest if one.p95 is not None and one.seconds > 2 * one.p95]
    why = "No worker and no entry stands out"
    if quiet:
        why = f"Worker {quiet[0][0]} has not been heard since {clock_of(quiet[0][1])}"
    elif slow:
        why = f"Entry {cut(slow[0].id, 60)} has been running for {duration(slow[0].seconds)}"
    yield StatusNotice(
        code="slow",
        text=f"Rate fell from {rate_text(usual)} to {rate_text(rate)} a second at "
        f"{clock_of(since)}",
        evidence=why,
        remedy=f"Ask why: manifest doctor {found.run}",
        since=since,
    )


def _budget(found: RunStatus) -> Iterator[StatusNotice]:
    cost = found.cost
    if cost.total is None or not cost.budget or cost.foreseen is None:
        return
    if cost.foreseen > cost.budget and found.done >= _ENOUGH:
        yield StatusNotice(
            code="budget",
            text=f"The budget of {cost.budget:g} will not last: the whole is foreseen to cost "
            f"{cost.foreseen:.3g}",
            evidence=f"{cost.total:.3g} for {many(found.done, 'entry')}",
            remedy=f"Set another one: manifest ctl {found.run} set budget=COST",
        )


def _no_pass(found: RunStatus) -> Iterator[StatusNotice]:
    never = [one for one in found.tasks if one.failed >= _ENOUGH and not one.passed]
    if never:
        names = listed([cut(one.task, 60) for one in never], 2)
        yield StatusNotice(
            code="no_pass",
            text=f"No entry of {names} has passed",
            evidence=f"{sum(one.failed for one in never):,} have failed",
            remedy="See whether its workers have the code and the services that it needs",
        )


def _moved(found: RunStatus) -> Iterator[StatusNotice]:
    eta = found.eta
    if eta is None or eta.before is None or eta.before_at is None:
        return
    if abs((eta.at - eta.before).total_seconds()) > max(_MOVED, found.elapsed / 10):
        yield StatusNotice(
            code="eta",
            text=f"The end has moved from {clock_of(eta.before)} to {clock_of(eta.at)}",
            evidence=f"As it was foreseen at {clock_of(eta.before_at)}, and is now",
            remedy="See the rate, and what runs longest",
        )
