"""Name the metrics of a run, and take their values from its status: the one table of them.

Names are those of OpenTelemetry, from which those of Prometheus follow. No label is the id of an
entry or a run, so that a year of runs makes no more series than one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from pytest_manifest.schema.run_status import RunStatus

Labels: TypeAlias = Mapping[str, str]
Points: TypeAlias = Iterable[tuple[Labels, float | None]]
"""Values by labels; None: not known, so it is left out."""
_UNITS: Final = {"s": "seconds", "{receipt}/s": "per_second"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: what it is, its unit (UCUM), and its values by the status of a run.

    Each is a gauge: an operator may have entries sent again, and an audit may correct verdicts.
    """

    name: str
    unit: str
    about: str
    points: Callable[[RunStatus], Points]

    @property
    def prometheus(self) -> str:
        """Return its name in Prometheus, as OpenTelemetry's collector makes it, too."""
        unit = _UNITS.get(self.unit)
        return re.sub(r"\W", "_", self.name if unit is None else f"{self.name}_{unit}")


def _one(read: Callable[[RunStatus], float | None]) -> Callable[[RunStatus], Points]:
    return lambda status: [({}, read(status))]


def _verdicts(status: RunStatus) -> Points:
    return [({"status": name}, number) for name, number in status.counts.items()]


def _in_flight(status: RunStatus) -> Points:
    return [({"state": "running"}, status.running), ({"state": "waiting"}, status.waiting)]


def _waited(status: RunStatus) -> float:
    since = status.waiting_since
    return 0.0 if since is None or status.is_over else (status.at - since).total_seconds()


def _ended(status: RunStatus) -> float | None:
    return _seconds(status.heard) if status.is_over else None


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


METRICS: Final = (
    Metric(
        *("manifest.run.active", "1", "Whether the run goes on: 1, or 0."),
        _one(lambda status: float(not status.is_over)),
    ),
    Metric(
        *("manifest.run.entries", "{entry}", "Entries of the run."),
        _one(lambda status: status.total),
    ),
    Metric(
        "manifest.run.verdicts", "{entry}", "Entries that have a verdict, by its status.", _verdicts
    ),
    Metric(
        *("manifest.run.in_flight", "{entry}", "Entries that were sent and have no verdict."),
        _in_flight,
    ),
    Metric(
        "manifest.run.oldest_waiting",
        "s",
        "How long the message has waited that waits longest.",
        _one(_waited),
    ),
    Metric(
        *("manifest.run.receipts", "{receipt}/s", "Receipts judged a second in the last minute."),
        _one(lambda status: 0.0 if status.is_over else status.rate),
    ),
    Metric(
        *("manifest.run.cost", "{cost}", "What the run has cost, in the entries' unit."),
        _one(lambda status: status.cost.total),
    ),
    Metric(
        *("manifest.run.duration", "s", "For how long pytest has worked on the run."),
        _one(lambda status: status.elapsed),
    ),
    Metric(
        *("manifest.run.start_time", "s", "When the run was made (Unix time)."),
        _one(lambda status: _seconds(status.began)),
    ),
    Metric(
        *("manifest.run.end_time", "s", "When the run ended (Unix time)."),
        _one(_ended),
    ),
)
"""The metrics of a run."""
LAST_SUCCESS: Final = Metric(
    "manifest.run.last_success_time",
    "s",
    "When the last run of the manifest ended in which no entry failed (Unix time).",
    lambda _status: (),
)
"""Of a manifest's runs, whose values are not in the status of one."""


def manifest_label(status: RunStatus) -> str:
    """Return the label of a run's manifest: its file's name, wherever that is checked out."""
    return Path(status.manifest).name
