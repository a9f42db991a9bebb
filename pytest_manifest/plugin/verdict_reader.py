"""Read the verdict of a test's entry from the ledgers of this session's runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.bindings import Binding
from pytest_manifest.ledger import BUDGET, EntryVerdict, Ledger, StoredVerdict

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.manifest.partition import Groups
    from pytest_manifest.plugin.coordination import KnownRuns
    from pytest_manifest.schema import Receipt


class GroupProgress:
    """Count, of each group, the entries that have no verdict yet, with one bit for each entry."""

    def __init__(self, groups: Groups) -> None:
        self._manifest = groups.manifest
        self._names = [group.name for group in groups]
        self._missing = [group.count for group in groups]
        self._owners = groups.owners
        self._seen = bytearray(len(groups.manifest) // 8 + 1)

    def complete(self, entries: Iterable[str]) -> Iterator[str]:
        """Yield the names of the groups that these entries complete.

        Ignores entries that the manifest does not have, and those that were counted before.
        """
        for entry in entries:
            if entry not in self._manifest:
                continue
            position = self._manifest.position_of(entry)
            byte, bit = position >> 3, 1 << (position & 7)
            if self._seen[byte] & bit:
                continue
            self._seen[byte] |= bit
            owner = self._owners[position]
            self._missing[owner] -= 1
            if not self._missing[owner]:
                yield self._names[owner]


POLL = 0.02
_AHEAD = 20
"""Verdicts looked up at once, at most."""
_KEPT = 0.1
"""Seconds for which verdicts that were looked up ahead are used."""
_PAUSE = 10
"""Pause between two reads, as a multiple of the time that a read takes."""


@dataclass(frozen=True)
class ManifestRun:
    """A run as a whole, for tests of a whole manifest.

    ``workers``: worker processes that answered before dispatch, None where none did; ``owned``: the
    stack was started for this run; ``run``: its id; ``budget``: what it may cost, in the entries'
    unit, None where that was not limited; ``ledger``: its file, None for a run made by hand.
    """

    manifest: Manifest
    settled: Sequence[EntryVerdict]
    workers: int | None
    owned: bool
    run: str = ""
    budget: float | None = None
    ledger: Path | None = field(default=None, repr=False)

    def cost(self) -> float:
        """Return the cost of all attempts of the run, in the entries' unit.

        An attempt costs what its receipt reports; without a receipt, if it ran or may have run, the
        entry's estimate. A run made by hand has only the attempts of the verdicts in ``settled``.
        """
        from pytest_manifest.verdict.judging import Costs, cost_of_verdict

        if self.ledger is None:
            return float(sum(cost_of_verdict(s, self.manifest) for s in self.settled))
        with Ledger.open(self.ledger) as ledger:
            return Costs(ledger, self.manifest).total()

    def receipts(self) -> dict[str, Receipt]:
        """Return the receipts of the selected entries by entry id."""
        return {s.verdict.entry: s.receipt for s in self.settled if s.receipt is not None}


@dataclass
class OpenRun:
    """A run's open ledger, and how far its verdicts were read."""

    ledger: Ledger
    id: str
    entries: int
    seen: set[str] = field(default_factory=set)
    """The entries that have their verdict; where there are groups, the complete groups."""
    position: int = 0
    progress: GroupProgress | None = None
    _ahead: dict[str, StoredVerdict] = field(default_factory=dict)
    _until: float = 0.0
    _used: int = 1

    def take(self, entry: str) -> StoredVerdict | None:
        """Take an entry's verdict, None where there is none; a second take reads the ledger.

        It is read together with the next ones, whose tests mostly run next: twice as many as were
        used of those before.
        """
        now = time.monotonic()
        found = self._ahead.pop(entry, None) if now < self._until else None
        if found is not None:
            self._used += 1
            return found
        number, self._used = min(_AHEAD, 2 * self._used), 1
        self._ahead = dict(self.ledger.verdicts.stored_from(entry, number))
        self._until = now + _KEPT
        return self._ahead.pop(entry, None)


class VerdictReader:
    """Read the verdicts of these runs. Use it from one thread.

    ``groups``: how the manifests' entries are put together, None where each has its own test;
    ``over``: returns whether no further verdict will come.
    """

    def __init__(
        self,
        known: KnownRuns,
        groups: Callable[[Path], Groups] | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._known, self._groups, self._over = known, groups, over
        self.runs: dict[Path, OpenRun] = {}
        """By manifest."""
        for manifest, path in known.ledgers.items():
            ledger = Ledger.open(path)
            run, entries = ledger.info.read().run, ledger.attempts.count_entries()
            self.runs[manifest] = OpenRun(ledger, run, entries)
        self._last: tuple[Binding, StoredVerdict | None] | None = None
        """The last binding that was looked up: a test asks several times for its own."""

    def close(self) -> None:
        for run in self.runs.values():
            run.ledger.close()

    def refresh(self) -> list[tuple[Path, str]]:
        """Return (manifest, entry) of each verdict since the last call, in the order of recording.

        Where there are groups, (manifest, group) of those that have become complete.
        """
        over, found = self._over(), list[tuple[Path, str]]()
        for manifest, run in self.runs.items():
            rows = list(run.ledger.verdicts.since(run.position))
            run.position = rows[-1][0] if rows else run.position
            fresh: Iterable[str] = [entry for _, entry, _ in rows]
            if self._groups is not None and over:  # every group is due
                fresh = (one.name for one in self._groups(manifest) if one.name not in run.seen)
            elif self._groups is not None:
                run.progress = run.progress or GroupProgress(self._groups(manifest))
                fresh = run.progress.complete(fresh)
            subjects = list(fresh)
            run.seen.update(subjects)
            found += [(manifest, subject) for subject in subjects]
        return found

    def is_ready(self, binding: Binding) -> bool:
        """Check whether the last refresh found the binding's verdict, or all verdicts of its run.

        A binding whose manifest was not dispatched is ready: its test reports that.
        """
        run = self.runs.get(binding.manifest)
        if run is None:
            return True  # not dispatched: the test will report it
        if binding.subject is not None:
            return binding.subject in run.seen
        if not binding.whole_run:
            return True
        if self._groups is not None or len(run.seen) < run.entries:
            return self._over()
        return sum(run.ledger.verdicts.counts().values()) >= run.entries or self._over()

    def forget(self) -> None:
        """Drop the verdict that was looked up last, so that the next look-up reads the ledger."""
        self._last = None

    def wait(self, binding: Binding, give_up: Callable[[], bool]) -> None:
        """Wait until the binding is ready, or ``give_up`` returns True."""
        run = self.runs.get(binding.manifest)
        while True:
            # give_up() first: to see what was written before the end.
            over, began = give_up(), time.monotonic()
            if binding.group is None or run is None or self._groups is None:
                self.refresh()
                is_ready = self.is_ready(binding)
            else:  # only the process that hands out tests counts all groups
                entries = self._groups(binding.manifest).ids(binding.group)
                is_ready = self._over() or run.ledger.queries.all_have_verdicts(entries)
            if is_ready or over:
                return
            time.sleep(max(POLL, _PAUSE * (time.monotonic() - began)))

    def verdict(self, binding: Binding) -> StoredVerdict | None:
        """Return the verdict of the binding's entry; the same one until :meth:`forget`.

        One that was taken back since, as an operator has the entry sent again, is waited for.
        """
        if self._last is None or self._last[0] is not binding:
            run = self.runs.get(binding.manifest)
            found = None if run is None or binding.entry is None else run.take(binding.entry)
            while found is None and run is not None and binding.entry in run.seen:
                over = self._over() or run.ledger.info.status != "running"
                found = run.take(binding.entry)
                if over:
                    break
                time.sleep(POLL)
            self._last = binding, found
        return self._last[1]

    def parsed(self, binding: Binding) -> EntryVerdict | None:
        """Return :meth:`verdict` with its receipt, as models."""
        stored = self.verdict(binding)
        return None if stored is None else stored.parse()

    def whole_run(self, manifest: Manifest) -> ManifestRun:
        run = self.runs[manifest.path.resolve()]
        ledger = run.ledger
        budget = ledger.info.get_meta(BUDGET)
        return ManifestRun(
            manifest,
            list(ledger.queries.all_verdicts()),
            self._known.workers,
            self._known.owned,
            run=run.id,
            budget=float(budget) if budget else None,
            ledger=ledger.path,
        )
