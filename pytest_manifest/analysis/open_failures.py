"""Find what is open of all runs of a folder: the entries whose last run did not pass them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_digest import DigestEntry, RunDigest
from pytest_manifest.schema.statuses import ACCEPTABLE, BAD, STATUSES, UNSENT, outcome_of

_OWNER: Final = "owner:"
"""The beginning of a tag that names an entry's owner."""


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """An entry that failed in the last run that had it. ``cause``: the line that reports show.

    ``since``, ``first``: when that cause was first seen of it in a row, and in which run; ``run``:
    the last one. ``owner``: by its ``meta`` or a tag; "" where there is none.
    """

    id: str
    manifest: Path
    cause: str
    verdict: VerdictStatus
    since: datetime
    first: str
    run: str
    work: str
    idempotent: bool
    owner: str = ""

    @property
    def is_safe(self) -> bool:
        """Return whether it can run again without doing something twice, or killing its worker."""
        return (self.idempotent and self.verdict != "quarantined") or self.verdict in UNSENT

    @property
    def may_be_accepted(self) -> bool:
        return self.verdict in ACCEPTABLE


def open_failures(digests: Iterable[RunDigest]) -> list[OpenEntry]:
    """Return what is open by these runs, oldest first, of any manifests.

    An entry that a run did not have stays as it was; one that was renamed is known by its work.
    """
    state: dict[Path, dict[str, OpenEntry]] = {}
    for run in digests:
        path = Path(run.manifest)
        state[path] = _after(run, path, state.get(path, {}))
    return [
        entry for path, some in state.items() for entry in _with_owners(path, list(some.values()))
    ]


def unjudged_of(digests: Iterable[RunDigest]) -> dict[str, int]:
    """Map the newest run of each manifest, or of its shard, that has entries without a verdict.

    These are as they were in the run before. Returns run -> how many.
    """
    newest = {(one.manifest, one.shard): one for one in digests}
    found = {one.run: one.outcomes.get("pending", 0) for one in newest.values()}
    return {run: number for run, number in found.items() if number}


def _after(run: RunDigest, path: Path, before: Mapping[str, OpenEntry]) -> dict[str, OpenEntry]:
    listed = {one.id: one for one in run.listed}
    by_work = {one.work: one for one in before.values() if one.id not in run.ids}
    kept = {
        name: one
        for name, one in before.items()
        # Where some are not listed, what is not may have failed all the same.
        if name not in run.ids or name in listed or run.unlisted
    }
    for one in run.listed:
        if one.verdict is None or outcome_of(one.verdict) not in BAD:
            continue
        earlier = before.get(one.id) or by_work.get(one.work)
        made = _opened(run, path, one)
        if earlier is not None and earlier.cause == made.cause:
            made = replace(made, since=earlier.since, first=earlier.first)
        if earlier is not None and earlier.id != one.id:
            kept.pop(earlier.id, None)
        kept[one.id] = made
    return kept


def _opened(run: RunDigest, path: Path, one: DigestEntry) -> OpenEntry:
    verdict: VerdictStatus = one.verdict or "pending"
    known = one.cause is not None and one.cause < len(run.causes)
    return OpenEntry(
        id=one.id,
        manifest=path,
        cause=run.causes[one.cause or 0].title if known else STATUSES[verdict].words,
        verdict=verdict,
        since=run.created_at,
        first=run.run,
        run=run.run,
        work=one.work,
        idempotent=one.idempotent,
    )


def _with_owners(path: Path, some: list[OpenEntry]) -> Iterator[OpenEntry]:
    """Yield the entries with who they belong to, as far as the manifest is there and says so."""
    owners: dict[str, str] = {}
    with suppress(ManifestError):
        manifest = read_manifest(path, lean=True) if some else None
        if manifest is not None:
            for entry in manifest.some([one.id for one in some if one.id in manifest]):
                tags = (one[len(_OWNER) :] for one in entry.tags if one.startswith(_OWNER))
                owners[entry.id] = str(entry.meta.get("owner") or next(tags, ""))
    for one in some:
        yield replace(one, owner=owners.get(one.id, ""))
