"""Let passes of earlier runs count for entries whose work is the very same, and send these not.

An earlier pass is only offered here. Whether it counts is decided as for every other attempt: all
that the earlier ledger has of it is copied, and judged by what the entry expects now.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.errors import DispatchError, LedgerError, ManifestError
from pytest_manifest.ledger import SECRETS, TO_REUSE, Ledger, utc_now
from pytest_manifest.ledger.attempts import ReusedAttempt, TreeRows
from pytest_manifest.ledger.descendants import descendant_of_row
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.jobs import LoadedAttempt
from pytest_manifest.ledger.queries import BATCH, StoredPass
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, damaged, origin_of, receipt_of
from pytest_manifest.ledger.run_info import REUSED_RUNS, TaskRuns
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.processes import is_held
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.send_queue import FirstAttempts, names_of
from pytest_manifest.run.settings import EarlierRuns
from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema.facts import Ended, Reused, Stored
from pytest_manifest.schema.run_facts import JobFact, RunFact
from pytest_manifest.schema.statuses import NOT_SENT, OF_ITS_PROCESS
from pytest_manifest.schema.wire import canonical
from pytest_manifest.text import listed, plural
from pytest_manifest.verdict.judging import Judged, Judging, recorded, signatures_of


def work_of(raw: bytes) -> Mapping[str, JsonValue]:
    """Return the fields of an entry's line, which was checked when its manifest was read."""
    fields: Mapping[str, JsonValue] = from_json(raw)
    return fields


def work_key(entry: Mapping[str, JsonValue]) -> bytes | None:
    """Return a digest of an entry's work and of what is expected of it; None: it has none.

    What differs in task, arguments, expectations or timeout has another one, also where it is only
    written otherwise. The id, and where and when the job runs (queue, priority, countdown, ...),
    make no difference.
    """
    given = [entry.get(name, default) for name, default in _WORK]
    work = canonical([entry["task"], *given])
    return None if work is None else hashlib.sha256(work).digest()


def waits_for(entry: Mapping[str, JsonValue]) -> Sequence[str]:
    """Return the ids that an entry's line says it waits for."""
    after = entry.get("after")
    return [str(one) for one in after] if isinstance(after, list) else []


_WORK: Final[Sequence[tuple[str, JsonValue]]] = (
    ("args", []),
    ("kwargs", {}),
    ("expect", {}),
    ("timeout", None),
)
"""The fields of the work beside the task, and what stands for one that is left out."""


@dataclass(frozen=True, slots=True)
class OfferedPass:
    """A pass of an earlier run that may count for an entry.

    ``key``: of its work; ``rows``: all that the earlier ledger has of it, but for its ``facts``;
    ``waited_for``: the task ids of the passes in its ledger that its entry waited for there;
    ``is_sound``: whether all that the job started is
    known, and ran the code that would run now.
    """

    key: bytes
    attempt: ReusedAttempt
    rows: TreeRows
    facts: Sequence[JobFact | RunFact]
    waited_for: Container[str]
    is_sound: bool


class Offers:
    """Match passes with the entries that want one.

    ``codes``: the digest of each task's code that would run; ``run`` reuses them, ``at`` (UTC);
    ``signed_only``: whether it takes signed reports alone.
    """

    def __init__(
        self,
        manifest: Manifest,
        codes: Mapping[str, str],
        run: str,
        at: datetime,
        *,
        signed_only: bool,
    ) -> None:
        self.signed_only = signed_only
        self._manifest = manifest
        self._codes = codes
        self._run = run
        self._at = at
        self.wanted: dict[bytes, dict[str, int]] = {}
        """The entries that want a pass, and their positions, by the digest of their work."""
        self._taken: set[str] = set()
        """The task ids of what was offered: an earlier run may have reused it as well."""
        self.secrets: set[str] = set()
        """The secrets of the runs of which something is offered."""
        self.outdated: set[str] = set()
        """Entries of which there is a pass by other code."""
        self.corrected: set[str] = set()
        """Task ids of passes that are none any more by the runs that had sent them."""

    def knows_code_of(self, task: str) -> bool:
        """Return whether it is known what code a job of this task would run."""
        return task in self._codes

    def knows_id_of(self, raw: bytes) -> bool:
        """Return whether the manifest has an entry of the same id as an earlier one's line."""
        return id_and_task(raw)[0] in self._manifest

    def want(self, key: bytes, entry: str, position: int) -> None:
        """Have the next pass of this work offered to this entry."""
        self.wanted.setdefault(key, {})[entry] = position

    def match(self, key: bytes, one: StoredPass) -> str | None:
        """Return the entry that a pass may count for; None where none wants it.

        That is the one of the same id. Only a pass whose id the manifest does not have may count
        for another, so that no two entries, be they of two shards, count one job.
        """
        wanted = self.wanted.get(key)
        if not wanted or one.task_id in self._taken or one.task_id in self.corrected:
            return None
        if one.entry in wanted:
            return one.entry
        return None if one.entry in self._manifest else next(iter(wanted))

    def take(self, key: bytes, entry: str, task_id: str) -> int:
        """Return the entry's position; it wants no pass from here on."""
        self._taken.add(task_id)
        wanted = self.wanted[key]
        position = wanted.pop(entry)
        if not wanted:
            del self.wanted[key]
        return position

    def give_back(self, key: bytes, entry: str, position: int, task_id: str) -> None:
        """Have another pass offered to an entry: the one that was does not count."""
        self._taken.discard(task_id)
        self.want(key, entry, position)

    def is_of_this_code(self, receipt: Receipt) -> bool:
        """Return whether a receipt tells that its task ran the code that would run now."""
        if receipt.source != "worker" or receipt.state not in OF_ITS_PROCESS or receipt.replaced:
            return False
        return receipt.code is not None and receipt.code == self._codes.get(receipt.task)

    def origin(self, one: StoredPass, runs: TaskRuns) -> Reused:
        """Return where a pass was sent: of what was reused itself, the run that had sent it."""
        known = origin_of(one.reused_from)
        if known is None:
            run = runs.run_of(one.task_id)
            known = Reused(run=run, entry=one.entry, attempt=one.attempt, by=self._run, at=self._at)
        return replace(known, by=self._run, at=self._at)


class _Match(NamedTuple):
    """A pass, and the entry that wants it."""

    key: bytes
    of: StoredPass
    sent_at: str
    entry: str
    position: int
    after: Sequence[str]
    """The entries that its own one waited for in its run."""


class EarlierPasses:
    """Read the passes of one ledger."""

    def __init__(self, path: Path, offers: Offers) -> None:
        self._path = path
        self._offers = offers

    def batches(self, *, of_own_ids: bool) -> Iterator[Sequence[OfferedPass]]:
        """Yield the passes that entries want: of their own ids, or of ids that no entry has.

        Raises LedgerError or ManifestError where the run cannot be read, or goes on.
        """
        if self._goes_on():
            raise LedgerError(
                f"{self._path}: its run goes on in another pytest, and may yet correct what it has "
                "said; reuse it when that has ended"
            )
        with Ledger.open(self._path) as ledger:
            sha256 = ledger.info.read().sha256
            manifest = kept_manifest(self._path, sha256)
            if manifest is None or manifest.sha256 != sha256:
                fault = "not beside it" if manifest is None else "another one now"
                raise LedgerError(
                    f"{self._path}: the manifest that it was made of is {fault}, so what has "
                    "passed there is not known; put it back, or name another run"
                )
            is_checked = False
            runs = ledger.info.task_runs()
            for some in self._lines(manifest, of_own_ids=of_own_ids):
                found = list(self._matching(ledger, some))
                if not found:
                    continue
                try:
                    if not is_checked:  # of most runs of a folder nothing is wanted
                        self._check(ledger)
                        is_checked = True
                    offered = list(self._offered(ledger, runs, found))
                except LedgerError:
                    for one in found:
                        self._offers.give_back(one.key, one.entry, one.position, one.of.task_id)
                    raise
                yield offered

    def _lines(self, manifest: Manifest, *, of_own_ids: bool) -> Iterator[Sequence[bytes]]:
        """Yield an earlier manifest's lines: those whose ids the present one has, or the others.

        The former count for these ids alone, and one of the latter could take such an entry from
        them.
        """
        raws = (line.raw for line in manifest.lines())
        lines = (raw for raw in raws if self._offers.knows_id_of(raw) is of_own_ids)
        while some := list(islice(lines, BATCH)):
            yield some

    def _goes_on(self) -> bool:
        lock = RunFiles(self._path).lock
        try:
            return is_held(lock)
        except OSError as error:
            raise LedgerError(
                f"{lock}: whether its run goes on is not known ({error.strerror}); name a copy "
                f"of {self._path.name} and of its manifest, without the lock"
            ) from error

    def _check(self, ledger: Ledger) -> None:
        ledger.check_types()
        ledger.verdicts.refuse_contradictions()
        ledger.info.hide_secrets()  # what was one there may be in the receipts
        self._offers.secrets |= ledger.info.texts(SECRETS)

    def _matching(self, ledger: Ledger, lines: Sequence[bytes]) -> Iterator[_Match]:
        """Yield the passes of these lines that entries want, each for another entry."""
        keys: dict[str, bytes] = {}
        after: dict[str, Sequence[str]] = {}
        for raw in lines:
            name, task = id_and_task(raw)
            if not self._offers.knows_code_of(task):
                continue
            work = work_of(raw)
            wanted = work_key(work)
            if wanted is not None and wanted in self._offers.wanted:
                keys[name], after[name] = wanted, waits_for(work)
        passes = list(ledger.queries.stored_passes(keys)) if keys else []
        self._offers.corrected |= self._corrected(passes)
        for one in passes:
            key = keys[one.entry]
            entry = self._offers.match(key, one)
            if entry is None or one.receipt is None:
                continue
            if one.sent_at is None:  # a newer copy of the ledger has sent it, maybe once more since
                continue
            with ledger.parse_errors():
                receipt = receipt_of(one.receipt)
            if self._offers.is_of_this_code(receipt):
                position = self._offers.take(key, entry, one.task_id)
                yield _Match(key, one, one.sent_at, entry, position, after[one.entry])
            else:
                self._offers.outdated.add(entry)

    def _corrected(self, passes: Sequence[StoredPass]) -> set[str]:
        """Return the task ids of reused passes that their own runs have judged otherwise since.

        As far as the ledgers of these are beside this one: such a correction is in theirs alone.
        """
        reused: dict[str, dict[str, str]] = {}
        for one in passes:
            try:
                origin = origin_of(one.reused_from)
            except BAD_ROW_ERRORS as error:
                raise damaged(self._path, error) from error
            if origin is not None:
                reused.setdefault(origin.run, {})[one.task_id] = origin.entry
        found: set[str] = set()
        for run, entries in reused.items():
            path = RunFiles.of(self._path.parent, run).ledger
            if path.is_file():
                found |= entries.keys() - _passed_in(path, set(entries.values()))
        return found

    def _offered(
        self, ledger: Ledger, runs: TaskRuns, found: Sequence[_Match]
    ) -> Iterator[OfferedPass]:
        rows = ledger.transfers.rows_of([match.of.task_id for match in found])
        judging = Judging(ledger)
        before = {name for match in found for name in match.after}
        jobs = {one.entry: one.task_id for one in ledger.queries.stored_passes(before)}
        # Of others, what jobs have started was believed whoever had told of it.
        trusts_trees = not self._offers.signed_only or signatures_of(ledger) is not None
        # All of them are read: what cannot be is a fault of this ledger alone.
        loaded = ledger.jobs.of_entries([match.of.entry for match in found])
        for match in found:
            one = match.of
            known = next(i for i in loaded[one.entry] if i.own.job.task_id == one.task_id)
            with ledger.parse_errors():
                origin = self._offers.origin(one, runs)
                for row in rows[one.task_id].descendants:  # with their verdicts
                    descendant_of_row(row)
            sound = self._is_sound(known) and (trusts_trees or not known.descendants)
            attempt = ReusedAttempt(one.task_id, match.entry, match.position, match.sent_at, origin)
            waited_for = {jobs[name] for name in match.after if name in jobs}
            facts = judging.excuses(known.own)
            yield OfferedPass(match.key, attempt, rows[one.task_id], facts, waited_for, sound)

    def _is_sound(self, known: LoadedAttempt) -> bool:
        """Return whether all tasks that the job started are known, and by which code they ended.

        There are as many as the ends of their parents have counted: an entry that ignores its
        descendants has passed with fewer. That each has ended the judge of the new run looks at.
        """
        children = Counter(one.job.spawn.parent for one in known.descendants if one.job.spawn)
        for one in (known.own, *known.descendants):
            ends = [end.receipt for end in one.each(Ended) if not end.fault]
            if any((end.children or 0) > children[one.job.task_id] for end in ends):
                return False
            if one.job.spawn is None:
                continue
            if not all(map(self._offers.is_of_this_code, ends)) or (one.each(Stored) and not ends):
                return False
        return True


def _passed_in(path: Path, entries: Collection[str]) -> set[str]:
    """Return the task ids by which these entries have passed; none where it cannot be read."""
    try:
        with Ledger.open(path) as ledger:
            return {one.task_id for one in ledger.queries.stored_passes(entries)}
    except LedgerError:
        return set()


_SHOWN: Final = 3
"""Runs and tasks that a message names."""


def refuse_unlooked(ledger: Ledger) -> None:
    """Raise DispatchError where a run was to reuse passes, and ended before it had looked for any.

    To go on with it would send all of what has passed before.
    """
    if ledger.info.get_meta(TO_REUSE):
        raise DispatchError(
            f"run {ledger.info.read().run} was to reuse earlier passes (--manifest-reuse), and "
            "ended before it had looked for them; nothing of it was sent, so begin it again with "
            "the same command, without --manifest-resume"
        )


def take_over_passes(state: RunState, ledger: Ledger, codes: Mapping[str, str]) -> None:
    """Judge what is to be sent by earlier passes of the same work, and leave the rest to be sent.

    ``codes``: the digest of each task's code that would run, as far as that is known. All of it is
    one transaction. Raises DispatchError where a run that was named cannot be used.
    """
    earlier, selected = state.settings.reuse, len(state.to_send)
    assert earlier is not None
    with ledger.transaction():
        found = _Takeover(state, ledger, codes)
        found.search(earlier)
        found.hold_back_dependents()
        ledger.transfers.withdraw_planned(list(found.reused))
        ledger.info.set_meta(TO_REUSE, "")
    if isinstance(state.to_send, FirstAttempts):
        state.to_send = state.to_send.without_entries(found.reused)
    else:
        state.to_send = [one for one in state.to_send if one.entry.id not in found.reused]
    state.notices += found.messages(selected)


class _Takeover:
    """Take earlier passes over into a run's ledger; call it all within one transaction."""

    def __init__(self, state: RunState, ledger: Ledger, codes: Mapping[str, str]) -> None:
        self._state = state
        self._ledger = ledger
        self.reused: dict[str, ReusedAttempt] = {}
        """What was taken over, by the entry that it counts for."""
        self._runs: Counter[str] = Counter()
        """How many entries were reused, by the run that had sent them."""
        self._unknown_code: Counter[str] = Counter()
        self._excluded = self._held_back = self._doubted = self._of_other_trees = 0
        self._after: dict[str, Sequence[str]] = {}
        self._waited_for: dict[str, Container[str]] = {}
        """What the job of a reused entry had waited for, as task ids, by entry."""
        self._unreadable: list[Path] = []
        signed_only = signatures_of(ledger) is not None
        self._offers = Offers(
            state.manifest, codes, state.info.run, utc_now(), signed_only=signed_only
        )
        selected = {entry for _, entry in names_of(state.to_send)}
        for position, line in enumerate(state.manifest.lines()):
            name, task = id_and_task(line.raw)
            if name in selected:
                self._want(name, task, position, work_of(line.raw))

    def _want(self, name: str, task: str, position: int, entry: Mapping[str, JsonValue]) -> None:
        if after := waits_for(entry):
            self._after[name] = after
        if entry.get("reuse", True) is False:
            self._excluded += 1
        elif not self._offers.knows_code_of(task):
            self._unknown_code[task] += 1
        elif (key := work_key(entry)) is not None:
            self._offers.want(key, name, position)

    def search(self, earlier: EarlierRuns) -> None:
        """Take over what earlier runs have, from the first named one on.

        An entry's own passes are looked for in all of them before those of other ids.
        """
        for of_own_ids in (True, False):
            for path in earlier.ledgers:
                if path == self._state.files.ledger or not self._offers.wanted:
                    continue
                if path not in self._unreadable:
                    self._search_run(path, of_own_ids=of_own_ids, is_named=earlier.are_named)

    def _search_run(self, path: Path, *, of_own_ids: bool, is_named: bool) -> None:
        # What fails while this ledger is written is no fault of the earlier one.
        batches = EarlierPasses(path, self._offers).batches(of_own_ids=of_own_ids)
        while True:
            try:
                batch = next(batches, None)
            except (LedgerError, ManifestError) as error:
                if is_named:
                    raise DispatchError(f"nothing was sent: {error}") from error
                self._unreadable.append(path)
                return
            if batch is None:
                return
            self._take(batch)

    def _take(self, batch: Sequence[OfferedPass]) -> None:
        """Copy these passes, judge each anew, and remove those that do not pass."""
        transfers = self._ledger.transfers
        transfers.add_reused([(one.attempt, one.rows) for one in batch])
        self._ledger.facts.append((one.attempt.entry, fact) for one in batch for fact in one.facts)
        origins = {one.attempt.origin.run for one in batch}
        self._ledger.info.add_texts(REUSED_RUNS, origins)
        judging = Judging(self._ledger, by_present_keys=True)
        entries = self._state.manifest.some(one.attempt.entry for one in batch)
        passed: list[tuple[Verdict, Receipt | None]] = []
        left: list[str] = []
        loaded = self._ledger.jobs.of_entries([one.attempt.entry for one in batch])
        for entry, one in zip(entries, batch, strict=True):
            taken = [each for each in loaded[entry.id] if each.own.job.reused is not None]
            judged = judging.judge(entry, taken)  # not what is planned yet
            if one.is_sound and judged.judgement.status == "passed" and _is_sound(judging, judged):
                passed.append(recorded(judged))
                self.reused[entry.id] = one.attempt
                self._waited_for[entry.id] = one.waited_for
                self._runs[one.attempt.origin.run] += 1
            else:
                left.append(one.attempt.task_id)
                if one.is_sound:
                    self._doubted += 1
                else:
                    self._of_other_trees += 1
                self._offers.give_back(one.key, entry.id, one.attempt.position, one.attempt.task_id)
        transfers.drop_reused(left)
        self._ledger.verdicts.record(passed)

    def hold_back_dependents(self) -> None:
        """Remove what waits for an entry that runs again, or whose job it did not wait for.

        Its work was done on what another job had left, or on what none had left yet.
        """
        waiting: dict[str, list[str]] = {}
        for name, others in self._after.items():
            for other in others:
                waiting.setdefault(other, []).append(name)
        stale = [name for name in self._after if not self._is_up_to_date(name)]
        removed: list[ReusedAttempt] = []
        while stale:
            name = stale.pop()
            one = self.reused.pop(name, None)
            if one is not None:
                removed.append(one)
                self._runs[one.origin.run] -= 1
                self._held_back += 1
                stale += waiting.get(name, ())
        self._ledger.verdicts.reopen([one.entry for one in removed])
        self._ledger.transfers.drop_reused([one.task_id for one in removed])
        if self.reused:  # what was a secret there is hidden wherever this run is shown
            self._ledger.info.add_texts(SECRETS, self._offers.secrets)

    def _is_up_to_date(self, name: str) -> bool:
        """Return whether all that a reused entry waits for is reused, and its job waited for that.

        A job that had passed and was sent anew since has left something else.
        """
        one = self.reused.get(name)
        if one is None:
            return True
        waited_for = self._waited_for[name]
        before = [self.reused.get(other) for other in self._after[name]]
        return all(
            other is not None and other.task_id in waited_for and other.sent_at <= one.sent_at
            for other in before
        )

    def messages(self, selected: int) -> list[str]:
        """Say how many entries are reused, from where, and why others are not."""
        runs = [f"{run} ({count})" for run, count in self._runs.most_common() if count]
        number, entries = len(self.reused), plural(selected, "entry")
        said = [f"reuses {number} of {entries}, from run {listed(runs, _SHOWN)}"]
        if not number:
            said = [f"reuses none of {entries}"]
        tasks = listed(sorted(map(repr, self._unknown_code)), _SHOWN) if self._unknown_code else ""
        unused = {
            f"as no worker says, or not all say alike, what code would run of {tasks}": (
                self._unknown_code.total()
            ),
            'as "reuse": false says': self._excluded,
            "having passed with other code than would run now, or with unreported code": len(
                self._offers.outdated.difference(self.reused)
            ),
            "not having run after what is waited for now": self._held_back,
        }
        # Not: are sent. What they wait for may fail, or may not be selected.
        said += [f"{_counted(n, 'entry')} not reused, {why}" for why, n in unused.items() if n]
        doubtful = {
            "of a job of which not all that it started is known to have ended by the code that "
            "would run now": self._of_other_trees,
            "none as judged now": self._doubted,
            "none any more in the run that had sent it": len(self._offers.corrected),
        }
        said += [f"{_counted(n, 'earlier pass')} {why}" for why, n in doubtful.items() if n]
        if self._unreadable:
            unusable = listed([path.stem for path in self._unreadable], _SHOWN)
            said.append(f"nothing is reused of {unusable}: it goes on, or cannot be read")
        return [f"{self._state.manifest.path.name}: {one}" for one in said]


def _is_sound(judging: Judging, judged: Judged) -> bool:
    """Return whether each task that a job started has passed as well, by this run's keys.

    Also where the entry ignores its descendants. What was never sent has no end.
    """
    attempt = judged.attempts[-1]
    return all(
        judging.descendant(judged.entry, attempt.own.job, facts).finding.status
        in ("passed", NOT_SENT)
        for facts in attempt.descendants
    )


def _counted(number: int, noun: str) -> str:
    return f"{plural(number, noun)} {'is' if number == 1 else 'are'}"
