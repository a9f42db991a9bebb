"""Follow runs as they go on, and send a collector their spans and metrics: a process of its own.

It reads ledgers alone, so whatever becomes of the collector is nothing to the run. pytest starts
it (``manifest_otlp``), names ledgers on its stdin, and closes that when it ends.
"""

from __future__ import annotations

import json
import math
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.reading import read_some
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import ManifestToolError, StackError
from pytest_manifest.ledger.additions import AddedVerdict
from pytest_manifest.redaction.names import configure
from pytest_manifest.redaction.texts import hide_environment
from pytest_manifest.reporting.otlp import spans
from pytest_manifest.reporting.otlp.collector import Collector, Signal
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.statuses import BAD, outcome_of

LOOK_SECONDS: Final = 1.0
METRICS_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
LAST_SECONDS: Final = 30.0
"""Seconds after pytest's end beyond which nothing is sent any more."""
AT_ONCE: Final = 200
"""Spans in one request."""
MOST_WAITING: Final = 20_000
"""Spans that wait for a collector that does not take them; of more, the oldest are left out."""


def follow_for_pytest() -> None:
    """Do what the pytest that has started this process says on stdin, until that ends.

    The first line has the settings, each further one a ledger. What could not be sent is said on
    stdout at the end, as JSON.
    """
    lines, follower, refused = _Lines(), None, ""
    while not lines.are_over:
        for line in lines.wait(LOOK_SECONDS):
            given = json.loads(line)
            if follower is not None:
                follower.add(Path(given["ledger"]))
            elif not refused:
                configure(names=given["names"], is_on=given["redacts"])
                hide_environment()
                try:
                    follower = Follower(Collector(given["endpoint"]))
                except StackError as error:
                    refused = str(error)
        if follower is not None:
            follower.look()
    if follower is not None:
        follower.end()
        refused = follower.error
    sys.stdout.write(json.dumps({"error": refused}) + "\n")


class _Lines:
    """The lines of stdin, as they come."""

    def __init__(self) -> None:
        self.are_over = False
        self._rest = b""

    def wait(self, seconds: float) -> list[bytes]:
        """Return those that come within so many seconds."""
        if not select.select([0], [], [], seconds)[0]:
            return []
        data = os.read(0, 1 << 16)
        self.are_over = not data
        *found, self._rest = (self._rest + data).split(b"\n")
        return found


class _Reader(RunReader):
    """A reader that also notes which entries have got a verdict: when, and whether it is bad."""

    def __init__(self, path: Path) -> None:
        self.judged: dict[int, tuple[float, bool]] = {}
        super().__init__(path)

    def add_verdict(self, one: AddedVerdict) -> None:
        super().add_verdict(one)
        if one.status is not None:
            self.judged[one.entry] = one.at / 1e6, outcome_of(one.status) in BAD


class _Followed:
    """A run that is followed for one stretch; what is judged in another is sent by its follower."""

    def __init__(self, path: Path) -> None:
        self.run = StoredRun.open(path, by_settings=False)
        with self.run.read() as ledger:
            self.trace = ledger.info.trace()
        self.reader = _Reader(path)
        self.reader.read()
        self.number = max(len(self.reader.story.stretches), 1)
        self.done: set[int] = set()

    def _is_of_stretch(self, at: float) -> bool:
        """Return whether what is judged at this moment is judged while pytest is there."""
        mine, later = self.number - 1, self.number
        stretches = self.reader.story.stretches
        began = stretches[mine][0] if mine < len(stretches) else 0.0
        until = stretches[later][0] if later < len(stretches) else math.inf
        return began <= at < until

    def new_spans(self) -> Iterator[spans.Span]:
        """Yield the spans of the entries that have been judged since the last call."""
        new = {
            entry: is_bad
            for entry, (at, is_bad) in self.reader.judged.items()
            if entry not in self.done and self._is_of_stretch(at)
        }
        self.reader.judged.clear()
        if not self.trace.root.is_sampled:  # nor is the span of CI that it would be below
            return
        self.done |= new.keys()
        names = self.reader.names(new)
        kept = (name for n, name in names.items() if spans.is_kept(self.trace, name, new[n]))
        yield from self._spans([*kept])

    def last_spans(self, status: RunStatus) -> Iterator[spans.Span]:
        """Yield the span of the run's stretch; entries without a verdict have one once judged."""
        if self.trace.root.is_sampled:
            stretches = self.reader.story.stretches[: self.number]
            yield spans.run_span(status, self.trace, stretches, self.number)

    def _spans(self, names: Sequence[str]) -> Iterator[spans.Span]:
        info = self.run.info
        for start in range(0, len(names), AT_ONCE):
            with self.run.read() as ledger:
                records = read_some(ledger, self.run.manifest, names[start : start + AT_ONCE])
            for one in records:
                yield spans.entry_span(one, self.trace, info.manifest.name, info.created_at)


class Follower:
    """Follow runs, and send what is new of them; a fault is kept, and nothing raised.

    What a collector does not take waits for the next time, as far as there is room.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._runs: list[_Followed] = []
        self._backlog: deque[spans.Span] = deque(maxlen=MOST_WAITING)
        interval = os.environ.get(METRICS_INTERVAL, "")
        self._interval = int(interval) / 1000 if interval.isdecimal() else 10.0
        self._next = self._pause = 0.0
        self._deadline = math.inf
        self.sent = 0
        self.error = ""

    def add(self, path: Path) -> None:
        """Follow the run of this ledger, too."""
        try:
            self._runs.append(_Followed(path))
        except ManifestToolError as error:
            self.error = str(error)

    def look(self) -> None:
        """Send the spans that are new, and metrics where their time has come."""
        statuses = self._read()
        if time.monotonic() < self._pause:
            return
        self._send_spans()
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._send_metrics(statuses)

    def end(self) -> None:
        """Send what is left, for at most :data:`LAST_SECONDS`."""
        self._deadline = time.monotonic() + LAST_SECONDS
        statuses = self._read()
        for one, status in statuses:
            with suppress(ManifestToolError), closing(one.reader):
                self._backlog.extend(one.last_spans(status))
        self._send_spans()
        self._send_metrics(statuses)
        if self._backlog:
            self.error = f"{self.error or 'the collector is slow'}; {len(self._backlog)} spans lost"

    def _read(self) -> list[tuple[_Followed, RunStatus]]:
        found = []
        for one in self._runs:
            try:
                found.append((one, one.reader.look()))
                self._backlog.extend(one.new_spans())
            except ManifestToolError as error:
                self.error = str(error)
        return found

    def _send_spans(self) -> None:
        while self._backlog and time.monotonic() < self._deadline:
            some = [*islice(self._backlog, AT_ONCE)]
            if not self._send("traces", spans.spans_document(some)):
                return
            for _ in some:
                self._backlog.popleft()
            self.sent += len(some)

    def _send_metrics(self, statuses: Sequence[tuple[_Followed, RunStatus]]) -> None:
        for _, status in statuses:
            if time.monotonic() < self._deadline:
                self._send("metrics", spans.metrics_document(status))

    def _send(self, signal: Signal, document: Mapping[str, JsonValue]) -> bool:
        """Send a request; return whether it was taken. After one that was not there is a pause."""
        try:
            self._collector.send(signal, document)
        except StackError as error:
            self.error = str(error)
            self._pause = time.monotonic() + self._interval
            return False
        self.error = ""
        return True
