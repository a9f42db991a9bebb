"""Define the digest of a run: what a history of many runs is made of, long after its ledger."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from typing import Final, Literal

from pydantic import Field

from pytest_manifest.redaction.documents import unsalted
from pytest_manifest.schema import fields
from pytest_manifest.schema.models import Entry
from pytest_manifest.schema.statuses import Outcome, VerdictStatus
from pytest_manifest.schema.summary import SummaryCause
from pytest_manifest.schema.wire import canonical_text

MOST_BYTES: Final = 50_000
"""Bytes of a digest, in which as many entries that did not pass are listed as fit."""
Partial = Literal["selection", "shard", "stopped", "unsent"]
"""selection: entries of the manifest were left out; shard: it is one of several; stopped: it was
ended, or goes on without pytest; unsent: more than a tenth of it was held back, or taken back."""
MOST_WORKS: Final = 5_000
"""Entries up to which a digest has their work, too: so many leave room for those that failed."""
_BITS: Final = 10
"""Bits of an entry in the set of ids: of a hundred that are not in it one seems to be."""
_MOST_BITS: Final = 8 * 16_384
_BITS_EACH: Final = 0.69
"""How often an id is hashed for each bit that it has: ln 2, which has fewest taken for others."""


class DigestIds(fields.Document):
    """Names of a run's entries, as a Bloom filter: of what is not in it some few seem to be.

    A name's bits are the numbers that its BLAKE2b of 32 bytes is made of, of four bytes each, the
    first first, modulo the number of bits; bit 0 is the lowest of the first byte.
    """

    hashes: fields.Count
    """How many bits each name sets."""
    bits: fields.Text
    """The bits, in base64."""

    @classmethod
    def of_size(cls, entries: int) -> tuple[bytearray, int]:
        """Return the bits for a set of so many ids, and how many of them each id sets."""
        number = min(max(entries * _BITS, 64), _MOST_BITS)
        hashes = round(number / max(entries, 1) * _BITS_EACH)
        return bytearray((number + 7) // 8), min(max(hashes, 1), 7)

    @classmethod
    def of(cls, names: Collection[str]) -> DigestIds:
        """Return the filter of these names."""
        bits, hashes = cls.of_size(len(names))
        for name in names:
            for place in places(name, len(bits), hashes):
                bits[place >> 3] |= 1 << (place & 7)
        return cls(hashes=hashes, bits=base64.b64encode(bits).decode("ascii"))

    def __contains__(self, entry: str) -> bool:
        bits = base64.b64decode(self.bits)
        return all(bits[n >> 3] & 1 << (n & 7) for n in places(entry, len(bits), self.hashes))


def places(entry: str, size: int, hashes: int) -> list[int]:
    """Return the numbers of an id's bits among those of ``size`` bytes."""
    found = hashlib.blake2b(entry.encode(), digest_size=32).digest()
    return [int.from_bytes(found[4 * n : 4 * n + 4], "big") % (8 * size) for n in range(hashes)]


class DigestTask(fields.Document):
    """The entries of one task in a run."""

    task: fields.Name
    """The task's name."""
    count: fields.Count
    """How many entries it had."""
    passed: fields.Count = 0
    """How many of them passed."""
    bad: fields.Count = 0
    """How many failed, or have no known end; the others were held back, taken back, or are open."""
    samples: fields.Count = 0
    """Of how many jobs of this run that passed the seconds are known."""
    p50: fields.Number | None = None
    """The median of these seconds."""
    p95: fields.Number | None = None
    """Their 95th percentile."""
    code: list[fields.Text] = Field(default_factory=list)
    """The code that ran, as receipts have it, shortened; that of most jobs first, three at most."""


class DigestWorker(fields.Document):
    """The memory of one worker process, of those that had twenty jobs or more."""

    worker: fields.Text
    """Celery's name of the worker."""
    pid: int | None = None
    """The process."""
    jobs: fields.Count
    """How many jobs told its memory."""
    memory: list[fields.Count]
    """The most that it ever had by its first job, and after a quarter, a half, three quarters and
    all of its jobs, in bytes."""


class DigestEntry(fields.Document):
    """An entry that did not pass."""

    id: fields.Name
    """The entry's id."""
    task: fields.Name
    """The task's name."""
    verdict: VerdictStatus | None = None
    """What it came to; null: nobody has judged it."""
    work: fields.Text
    """A digest of task, arguments and headers as reports show them: what it is called is not in
    it."""
    cause: fields.Count | None = None
    """Which of the causes it has, from 0; null: none of those listed."""
    idempotent: bool = False
    """Whether it may be run twice."""


class RunDigest(fields.Document):
    """A run that is over, in at most 50 kB, without the entries that passed.

    Fields that have their default are left out of the file.
    """

    digest: fields.Version
    """The version of this format."""
    run: fields.Name
    """The run's id."""
    number: fields.Count = 0
    """Its number among the runs of its folder, which orders those of one moment."""
    manifest: fields.Text
    """The manifest's file."""
    manifest_sha256: fields.Sha256
    """SHA-256 of the manifest's lines after its header."""
    workflow: fields.Text | None = None
    """The workflow that planned it."""
    mode: fields.Text | None = None
    """The workflow's mode."""
    shard: fields.Text | None = None
    """The shard of the manifest that was run, like ``2/8``."""
    merged: list[fields.Name] = Field(default_factory=list)
    """The runs that it was merged of, which are not counted again."""
    created_at: fields.Time
    """When the run was made."""
    status: Literal["running", "finished", "stopped", "detached"]
    """Whether all was judged, the run was stopped, or the workers go on without pytest."""
    partial: Partial | None = None
    """Why it is not the whole manifest's; null: it is."""
    owned: bool = False
    """Whether the stack was started for this run."""
    broker: fields.Text
    """The broker's URL, without its password."""
    backend: fields.Text
    """The result store's URL, without its password."""
    version: fields.Text
    """The version of pytest-celery-manifest that has written this."""
    celery: fields.Text | None = None
    """The version of the workers' Celery, or several; null: it is not known."""
    entries: fields.Count
    """How many entries were selected."""
    manifest_entries: fields.Count
    """How many the manifest has."""
    reused: fields.Count = 0
    """How many were judged by jobs of earlier runs."""
    verdicts: dict[VerdictStatus, fields.Count]
    """How many entries have which verdict."""
    outcomes: dict[Outcome, fields.Count]
    """How many tests they make ``passed``, ``failed``, ``error``, ``skipped`` or ``pending``."""
    duration: fields.Number | None = None
    """Seconds for which it was worked on; null: nothing has ended."""
    rate: fields.Number | None = None
    """Jobs that ended, per second of that."""
    cost: fields.Number | None = None
    """What it has cost, in the entries' unit; null: no receipt tells a cost."""
    tasks: list[DigestTask]
    """By task, sorted by name."""
    causes: list[SummaryCause] = Field(default_factory=list)
    """Failures by cause, the largest first, twenty at most."""
    workers: list[DigestWorker] = Field(default_factory=list)
    """Worker processes whose memory grew most, twenty at most."""
    listed: list[DigestEntry] = Field(default_factory=list)
    """The entries that did not pass: those that failed first, each in the manifest's order."""
    unlisted: fields.Count = 0
    """How many further ones there are."""
    ids: DigestIds
    """The ids of all its entries."""
    works: DigestIds | None = None
    """The ``work`` of all that no two of its entries have; null: they are more than 5,000."""

    @property
    def passed(self) -> int:
        """Return how many entries passed."""
        return self.outcomes.get("passed", 0)

    @property
    def bad(self) -> int:
        """Return how many entries failed, or have no known end."""
        return self.outcomes.get("failed", 0) + self.outcomes.get("error", 0)


def work_of(entry: Entry) -> str:
    """Return a digest of an entry's work, whatever it is called and expected to come to."""
    work = canonical_text([entry.task, list(entry.args), dict(entry.kwargs), dict(entry.headers)])
    work = unsalted(work)  # each session hides by a salt of its own
    return hashlib.sha256(work.encode("utf-8", "surrogatepass")).hexdigest()[:16]
