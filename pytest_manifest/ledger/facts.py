"""What the ledger knows of the run as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, get_args

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.file import Database
from pytest_manifest.ledger.rows import (
    BAD_ROW_ERRORS,
    MERGED,
    RunInfo,
    RunSegment,
    RunStatus,
    damaged,
    identifier,
    info_of,
    moment,
    text,
)
from pytest_manifest.manifest import Shard

SEGMENTS: Final = "parts"
"""The key of the run's parts: a JSON list of pairs of moments, the oldest first."""
SHARD: Final = "shard"
"""The ledger's key for the shard that a run is of, like ``2/8``; not there: it is of no shard."""
MERGED_SHARDS: Final = "merged_shards"
"""The same for their shards, in that order; null for a run of no shard."""


def segments_json(parts: Iterable[RunSegment]) -> str:
    """What is kept under ``PARTS``."""
    return json.dumps([(text(part.started), text(part.stopped)) for part in parts])


class RunMetadata(Database):
    """Facts about the run: what it is about, how far it is, which manifest it has."""

    def info(self) -> RunInfo:
        with self._parse_errors():
            return info_of(self.all_meta())

    @contextmanager
    def _parse_errors(self) -> Iterator[None]:
        """Raises LedgerError where what is noted is not what we note."""
        try:
            yield
        except BAD_ROW_ERRORS as error:
            raise damaged(self.path, error) from error

    @property
    def status(self) -> RunStatus:
        value = self.get_meta("status")
        if value not in get_args(RunStatus):
            raise LedgerError(f"{self.path}: the ledger holds an unknown run status {value!r}")
        return value  # type: ignore[return-value]  # checked against the literal's values above

    def set_status(self, status: RunStatus) -> None:
        self.set_meta("status", status)

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact about the run, such as the position in its receipts stream."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, value))

    def get_meta(self, key: str) -> str | None:
        row = self._read_one("SELECT value FROM run WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def segments(self) -> list[RunSegment]:
        """The parts that the run was worked on in, the oldest first; none: nobody has noted any."""
        with self._parse_errors():
            rows: list[tuple[str, str | None]] = json.loads(self.get_meta(SEGMENTS) or "[]")
            return [
                RunSegment(datetime.fromisoformat(began), moment(stopped))
                for began, stopped in rows
            ]

    def begin_segment(self, began: datetime) -> None:
        """From now on the run is worked on, for the first time or again."""
        with self._writing():
            self._set_segments([*self.segments(), RunSegment(began)])

    def stop_segment(self, stopped: datetime) -> None:
        """The present part ends before all is done, and jobs that were running end with it."""
        with self._writing():
            *before, last = self.segments() or [RunSegment(self.info().created_at)]
            self._set_segments([*before, RunSegment(last.started, stopped)])

    def _set_segments(self, parts: Iterable[RunSegment]) -> None:
        self.set_meta(SEGMENTS, segments_json(parts))

    def all_meta(self) -> dict[str, str]:
        """Every fact that is kept, by its key."""
        return {key: str(value) for key, value in self._read("SELECT key, value FROM run")}

    def shard(self) -> Shard | None:
        """The shard of the manifest that the run is of, None where it is of no shard."""
        noted = self.get_meta(SHARD)
        with self._parse_errors():
            return None if noted is None else Shard.parse(noted)

    def merged(self) -> Sequence[str]:
        """The ids of the runs that this one was merged of; none for a run that was dispatched."""
        with self._parse_errors():
            return [identifier(one) for one in json.loads(self.get_meta(MERGED) or "[]")]

    def shards(self) -> Sequence[Shard | None]:
        """The shards that the run has entries of, None for the whole manifest."""
        with self._parse_errors():
            merged: list[str | None] = json.loads(self.get_meta(MERGED_SHARDS) or "[]")
            found = [None if text is None else Shard.parse(text) for text in merged]
        return found or [self.shard()]

    def set_digest(self, sha256: str) -> None:
        """The run goes on with a manifest of this digest; the one before is kept.

        Earlier ones are a JSON list, oldest first, noted under ``earlier_sha256``.
        """
        with self._writing():
            present = self.get_meta("sha256")
            if present == sha256:
                return
            with self._parse_errors():
                earlier = [*json.loads(self.get_meta("earlier_sha256") or "[]"), present]
            self.set_meta("earlier_sha256", json.dumps(earlier))
            self.set_meta("sha256", sha256)
