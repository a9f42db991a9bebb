"""Write advice where a bottleneck shows; none where numbers are too small to tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_manifest.analysis.quantiles import Distribution
from pytest_manifest.text import middle, printable, seconds

ENOUGH = 10
"""Entries below which no advice is given."""
_LONG_WAIT = 1.0  # s
_MANY_TIMES = 10
_BUSY = 0.5
_IDLE = 0.25
_LONG_RUN = 5.0  # s
_HANDING_OVER = 0.1
"""Seconds of a worker process that passing it one job may take; it usually takes some ms."""
_UNEVEN = 2.0
_ID_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Signs:
    """The numbers behind advice: times in seconds, ``wait`` without jobs that were to wait.

    ``busy``: seconds that each worker process worked; ``duration``: from the first start to the
    last end, without pauses between the run's ``parts``; ``capacity``: seconds that the processes
    had together; ``slowest``: id and runtime of the entry that ran longest.
    """

    entries: int
    wait: Distribution | None
    runtime: Distribution | None
    busy: Sequence[float]
    duration: float | None
    capacity: float
    parts: int
    slowest: tuple[str, float] | None
    redeliveries: int
    retries: int
    deaths: int = 0
    """Attempts whose process died: its worker stands still until it has another one."""


def advice(signs: Signs, *, takes_one: bool = False) -> tuple[str, ...]:
    """Return what would help, the most important first.

    ``takes_one``: each process takes one job at a time, so that no job waits for a busy one.
    """
    if signs.entries < ENOUGH:
        return ()
    uneven = () if takes_one else _uneven(signs)
    return (*_waiting(signs), *_one_long_job(signs), *uneven, *_repeats(signs))


def _load(signs: Signs) -> float | None:
    """Return the share of their time that the workers were busy."""
    return sum(signs.busy) / signs.capacity if signs.capacity else None


def _waiting(signs: Signs) -> Iterator[str]:
    if signs.wait is None or signs.runtime is None or signs.wait.p50 < _LONG_WAIT:
        return
    ran = signs.runtime.p50
    if signs.wait.p50 < _MANY_TIMES * ran:
        return
    times = f"{signs.wait.p50 / ran:.0f} times as long as they ran" if ran >= 0.001 else "long"
    medians = f"median {_short(signs.wait.p50)} and {_short(ran)}"
    load = _load(signs)
    if load is None or load >= _BUSY:
        yield f"jobs waited {times} ({medians}): more workers would help"
    elif load < _IDLE and signs.deaths:
        yield (
            f"jobs waited {times} ({medians}) though the workers were busy only {load:.0%} of the "
            f"time: {signs.deaths} jobs had killed their process, and a worker stands still until "
            "it has another one, for seconds where it has one alone; mend those jobs"
        )
    elif load < _IDLE and (signs.capacity - sum(signs.busy)) / signs.entries > _HANDING_OVER:
        yield (
            f"jobs waited {times} ({medians}) though the workers were busy only {load:.0%} of the "
            "time: look in their logs for what they stood still for"
        )
    elif load < _IDLE:
        yield (
            f"jobs waited {times} ({medians}) though the workers were busy only {load:.0%} of the "
            "time: handing a job over takes longer than running it; put more work into each job"
        )


def _one_long_job(signs: Signs) -> Iterator[str]:
    if signs.slowest is None or signs.duration is None or signs.duration < _LONG_RUN:
        return
    name, took = signs.slowest
    others = signs.capacity - signs.duration
    if took >= signs.duration / 2 and sum(signs.busy) - took < others * _BUSY:
        yield (
            f"{middle(printable(name), _ID_LIMIT)!r} alone ran {_short(took)} of "
            f"{_short(signs.duration)} while other workers had nothing to do: put it first in the "
            "manifest, or split it"
        )


def _uneven(signs: Signs) -> Iterator[str]:
    if len(signs.busy) < 2 or signs.duration is None or signs.duration < _LONG_RUN:
        return
    if signs.parts > 1:  # the processes of a short part had less time than those of a long one
        return
    most, average = max(signs.busy), sum(signs.busy) / len(signs.busy)
    longest = 0.0 if signs.runtime is None else signs.runtime.max
    if most >= _UNEVEN * average and longest < most / 2 and signs.entries >= 4 * len(signs.busy):
        yield (
            f"the busiest of {len(signs.busy)} worker processes did {most / sum(signs.busy):.0%} "
            "of the work: worker_prefetch_multiplier = 1 would spread it evenly"
        )


def _repeats(signs: Signs) -> Iterator[str]:
    if signs.redeliveries >= max(2, signs.entries / 100):
        yield (
            f"the broker delivered {signs.redeliveries} jobs more than once: workers died, or its "
            "visibility timeout is shorter than a job takes"
        )
    if signs.retries > signs.entries / 2:
        yield (
            f"tasks asked for {signs.retries} retries in {signs.entries} jobs: find what they "
            "stumble over"
        )


def _short(value: float) -> str:
    return seconds(float(f"{value:.2g}"))
