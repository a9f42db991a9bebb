"""Let passes of earlier runs count for entries whose work is the very same, and send these not.

An earlier pass is only offered here. Whether it counts is decided as for every other attempt: all
that the earlier ledger has of it is copied, and judged by what the entry expects now.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
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
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, damaged, origin_of, receipt_of
from pytest_manifest.ledger.run_info import REUSED_RUNS
from pytest_manifest.ledger.verdicts import BATCH, StoredPass
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.processes import is_held
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.send_queue import names_of, without
from pytest_manifest.run.settings import EarlierRuns
from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema.facts import Ended, Reused, Stored
from pytest_manifest.schema.run_facts import JobFact, RunFact
from pytest_manifest.schema.statuses import NOT_SENT, OF_ITS_PROCESS
from pytest_manifest.schema.wire import canonical
from pytest_manifest.text import listed, plural
from pytest_manifest.verdict.judging import Judged, Judging, recorded, signatures_of


def _work_key(entry: Mapping[str, JsonValue]) -> bytes | None:
    """Return a digest of an entry's work and of what is expected of it; None: it has none.

    What differs in task, arguments, expectations or timeout has another one, also where it is only
    written otherwise. The id, and where and when the job runs (queue, priority, countdown, ...),
    make no difference.
    """
    given = [entry.get(name, default) for name, default in _WORK]
    work = canonical([entry["task"], *given])
    return None if work is None else hashlib.sha256(work).digest()


def _waits_for(entry: Mapping[str, JsonValue]) -> Sequence[str]:
    """Return the ids that an entry's line says it waits for."""
    after = entry.get("after")
    return [str(one) for one in after] if isinstance(after, list) else []


_WORK: Final[Sequence[tuple[str, JsonValue]]] = (
    ("args", []),
    ("kwargs", {}),
    ("headers", {}),
    ("expect", {}),
    ("timeout", None),
)
"""The fields of the work beside the task, and what stands for one that is left out."""


class _Match(NamedTuple):
    """A pass, the entry that wants it, and what that one's job had waited for in its run."""

    key: bytes
    of: StoredPass
    sent_at: str
    entry: str
    after: Sequence[str]


class _Offer(NamedTuple):
    """A pass of an earlier run that may count for an entry.

    ``key``: of its work; ``rows``: all that the earlier ledger has of it, but for its ``facts``;
    ``waited_for``: the task ids of the passes in its ledger that its entry waited for there;
    ``is_sound``: whether all that the job started is known, and ran the code that would run now.
    """

    key: bytes
    attempt: ReusedAttempt
    rows: TreeRows
    facts: Sequence[JobFact | RunFact]
    waited_for: Container[str]
    is_sound: bool


def _goes_on(path: Path) -> bool:
    lock = RunFiles(path).lock
    try:
        return is_held(lock)
    except OSError as error:
        raise LedgerError(
            f"{lock}: whether its run goes on is not known ({error.strerror}); name a copy "
            f"of {path.name} and of its manifest, without the lock"
        ) from error


def _manifest_of(ledger: Ledger) -> Manifest:
    """Return the manifest that a ledger was made of. Raises LedgerError where it is not there."""
    sha256 = ledger.info.read().sha256
    manifest = kept_manifest(ledger.path, sha256)
    if manifest is None or manifest.sha256 != sha256:
        fault = "not beside it" if manifest is None else "another one now"
        raise LedgerError(
            f"{ledger.path}: the manifest that it was made of is {fault}, so what has "
            "passed there is not known; put it back, or name another run"
        )
    return manifest


def _corrected(path: Path, passes: Sequence[StoredPass]) -> set[str]:
    """Return the task ids of reused passes that their own runs have judged otherwise since.

    As far as the ledgers of these are beside this one: such a correction is in theirs alone.
    """
    reused: dict[str, dict[str, str]] = {}
    for one in passes:
        try:
            origin = origin_of(one.reused_from)
        except BAD_ROW_ERRORS as error:
            raise damaged(path, error) from error
        if origin is not None:
            reused.setdefault(origin.run, {})[one.task_id] = origin.entry
    found: set[str] = set()
    for run, entries in reused.items():
        ledger = RunFiles.of(path.parent, run).ledger
        if ledger.is_file():
            found |= entries.keys() - _passed_in(ledger, set(entries.values()))
    return found


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
        ledger.attempts.withdraw_planned(list(found.reused))
        ledger.info.set_meta(TO_REUSE, "")
    state.to_send = without(state.to_send, found.reused)
    state.notices += found.messages(selected)


class _Takeover:
    """Take earlier passes over into a run's ledger; call it all within one transaction.

    ``codes``: the digest of each task's code that would run.
    """

    def __init__(self, state: RunState, ledger: Ledger, codes: Mapping[str, str]) -> None:
        self._state, self._manifest = state, state.manifest
        self._ledger = ledger
        self._codes = codes
        self._at = utc_now()
        self._signed_only = signatures_of(ledger) is not None
        self.reused: dict[str, ReusedAttempt] = {}
        """What was taken over, by the entry that it counts for."""
        self._wanted: dict[bytes, dict[str, int]] = {}
        """The entries that want a pass, and their positions, by the digest of their work."""
        self._taken: set[str] = set()
        """The task ids of what counts: an earlier run may have reused it as well."""
        self._secrets: set[str] = set()
        """The secrets of the runs of which something is offered."""
        self._after: dict[str, Sequence[str]] = {}
        self._waited_for: dict[str, Container[str]] = {}
        """What the job of a reused entry had waited for, as task ids, by entry."""
        # For the messages.
        self._runs: Counter[str] = Counter()
        self._unknown_code: Counter[str] = Counter()
        self._excluded = self._held_back = self._doubted = self._of_other_trees = 0
        self._outdated: set[str] = set()
        """Entries of which there is a pass by other code."""
        self._corrected: set[str] = set()
        """Task ids of passes that are none any more by the runs that had sent them."""
        self._unreadable: list[Path] = []
        selected = {entry for _, entry in names_of(state.to_send)}
        for position, line in enumerate(state.manifest.lines()):
            name, task = id_and_task(line.raw)
            if name in selected:
                self._want(name, task, position, from_json(line.raw))

    def _want(self, name: str, task: str, position: int, entry: Mapping[str, JsonValue]) -> None:
        if after := _waits_for(entry):
            self._after[name] = after
        if entry.get("reuse", True) is False:
            self._excluded += 1
        elif task not in self._codes:
            self._unknown_code[task] += 1
        elif (key := _work_key(entry)) is not None:
            self._wanted.setdefault(key, {})[name] = position

    def search(self, earlier: EarlierRuns) -> None:
        """Take over what earlier runs have, from the first named one on.

        An entry's own passes are looked for in all of them before those of other ids.
        """
        for of_own_ids in (True, False):
            for path in earlier.ledgers:
                if path == self._state.files.ledger or not self._wanted:
                    continue
                if path not in self._unreadable:
                    self._search_run(path, of_own_ids=of_own_ids, is_named=earlier.are_named)

    def _search_run(self, path: Path, *, of_own_ids: bool, is_named: bool) -> None:
        # What fails while this ledger is written is no fault of the earlier one.
        batches = self._offers(path, of_own_ids=of_own_ids)
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

    # What one run has

    def _offers(self, path: Path, *, of_own_ids: bool) -> Iterator[Sequence[_Offer]]:
        """Yield the passes that entries want: of their own ids, or of ids that no entry has.

        One of the latter could take an entry from its own id. Raises LedgerError or ManifestError
        where the run cannot be read, or goes on.
        """
        if _goes_on(path):
            raise LedgerError(
                f"{path}: its run goes on in another pytest, and may yet correct what it has "
                "said; reuse it when that has ended"
            )
        with Ledger.open(path) as ledger:
            raws = (line.raw for line in _manifest_of(ledger).lines())
            lines = (raw for raw in raws if (id_and_task(raw)[0] in self._manifest) is of_own_ids)
            is_checked = False
            while some := list(islice(lines, BATCH)):
                found = list(self._matching(ledger, some))
                if found and not is_checked:  # of most runs of a folder nothing is wanted
                    is_checked = True
                    ledger.check_types()
                    ledger.verdicts.refuse_contradictions()
                    ledger.info.hide_secrets()  # what was one there may be in the receipts
                    self._secrets |= ledger.info.texts(SECRETS)
                if found:
                    yield list(self._offered(ledger, found))

    def _matching(self, ledger: Ledger, lines: Sequence[bytes]) -> Iterator[_Match]:
        """Yield the passes of these lines that entries want, each for another entry."""
        keys: dict[str, bytes] = {}
        after: dict[str, Sequence[str]] = {}
        for raw in lines:
            name, task = id_and_task(raw)
            if task in self._codes:
                work = from_json(raw)
                if (wanted := _work_key(work)) is not None and wanted in self._wanted:
                    keys[name], after[name] = wanted, _waits_for(work)
        passes = list(ledger.queries.stored_passes(keys)) if keys else []
        self._corrected |= _corrected(ledger.path, passes)
        matched: set[str] = set()
        for one in passes:
            entry = self._entry_for(keys[one.entry], one, matched)
            if entry is None or one.receipt is None:
                continue
            if one.sent_at is None:  # a newer copy of the ledger has sent it, maybe once more since
                continue
            with ledger.parse_errors():
                receipt = receipt_of(one.receipt)
            if self._is_of_this_code(receipt):
                matched.add(entry)
                yield _Match(keys[one.entry], one, one.sent_at, entry, after[one.entry])
            else:
                self._outdated.add(entry)

    def _entry_for(self, key: bytes, one: StoredPass, matched: Container[str]) -> str | None:
        """Return the entry that a pass may count for; None where none wants it.

        That is the one of the same id. Only a pass whose id the manifest does not have may count
        for another, so that no two entries, be they of two shards, count one job.
        """
        if one.task_id in self._taken or one.task_id in self._corrected:
            return None
        wanted = (name for name in self._wanted.get(key, ()) if name not in matched)
        if one.entry in self._manifest:
            wanted = (name for name in wanted if name == one.entry)
        return next(wanted, None)

    def _is_of_this_code(self, receipt: Receipt) -> bool:
        """Return whether a receipt tells that its task ran the code that would run now."""
        if receipt.source != "worker" or receipt.state not in OF_ITS_PROCESS or receipt.replaced:
            return False
        return receipt.code is not None and receipt.code == self._codes.get(receipt.task)

    def _offered(self, ledger: Ledger, found: Sequence[_Match]) -> Iterator[_Offer]:
        rows = ledger.attempts.rows_of([match.of.task_id for match in found])
        judging, runs = Judging(ledger), ledger.info.task_runs()
        before = {name for match in found for name in match.after}
        jobs = {one.entry: one.task_id for one in ledger.queries.stored_passes(before)}
        # Of others, what jobs have started was believed whoever had told of it.
        trusts_trees = not self._signed_only or signatures_of(ledger) is not None
        # All of them are read: what cannot be is a fault of this ledger alone.
        loaded = ledger.jobs.of_entries([match.of.entry for match in found])
        by = self._state.info.run
        for key, one, sent_at, entry, after in found:
            known = next(i for i in loaded[one.entry] if i.own.job.task_id == one.task_id)
            with ledger.parse_errors():
                was = origin_of(one.reused_from)  # by the run that had sent it
                for row in rows[one.task_id].descendants:  # with their verdicts
                    descendant_of_row(row)
            first = (runs.run_of(one.task_id), one.entry, one.attempt)
            run, name, number = first if was is None else (was.run, was.entry, was.attempt)
            origin = Reused(run=run, entry=name, attempt=number, by=by, at=self._at)
            sound = self._is_sound(known) and (trusts_trees or not known.descendants)
            attempt = ReusedAttempt(one.task_id, entry, self._wanted[key][entry], sent_at, origin)
            waited_for = {jobs[name] for name in after if name in jobs}
            facts = judging.excuses(known.own)
            yield _Offer(key, attempt, rows[one.task_id], facts, waited_for, sound)

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
            if not all(map(self._is_of_this_code, ends)) or (one.each(Stored) and not ends):
                return False
        return True

    # What counts

    def _take(self, batch: Sequence[_Offer]) -> None:
        """Copy these passes, judge each anew, and remove those that do not pass."""
        attempts, names = self._ledger.attempts, [one.attempt.entry for one in batch]
        attempts.add_reused([(one.attempt, one.rows) for one in batch])
        self._ledger.facts.append((one.attempt.entry, fact) for one in batch for fact in one.facts)
        self._ledger.info.add_texts(REUSED_RUNS, {one.attempt.origin.run for one in batch})
        judging = Judging(self._ledger, by_present_keys=True)
        passed: list[tuple[Verdict, Receipt | None]] = []
        left: list[str] = []
        loaded = self._ledger.jobs.of_entries(names)
        for entry, one in zip(self._manifest.some(names), batch, strict=True):
            taken = [each for each in loaded[entry.id] if each.own.job.reused is not None]
            judged = judging.judge(entry, taken)  # not what is planned yet
            if one.is_sound and judged.judgement.status == "passed" and _is_sound(judging, judged):
                passed.append(recorded(judged))
                self.reused[entry.id] = one.attempt
                self._waited_for[entry.id] = one.waited_for
                self._runs[one.attempt.origin.run] += 1
                self._taken.add(one.attempt.task_id)
                del self._wanted[one.key][entry.id]
                if not self._wanted[one.key]:
                    del self._wanted[one.key]
            else:
                left.append(one.attempt.task_id)
                self._doubted += one.is_sound
                self._of_other_trees += not one.is_sound
        attempts.drop_reused(left)
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
        self._ledger.attempts.drop_reused([one.task_id for one in removed])
        if self.reused:  # what was a secret there is hidden wherever this run is shown
            self._ledger.info.add_texts(SECRETS, self._secrets)

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
                self._outdated.difference(self.reused)
            ),
            "not having run after what is waited for now": self._held_back,
        }
        # Not: are sent. What they wait for may fail, or may not be selected.
        said += [f"{_counted(n, 'entry')} not reused, {why}" for why, n in unused.items() if n]
        doubtful = {
            "of a job of which not all that it started is known to have ended by the code that "
            "would run now": self._of_other_trees,
            "none as judged now": self._doubted,
            "none any more in the run that had sent it": len(self._corrected),
        }
        said += [f"{_counted(n, 'earlier pass')} {why}" for why, n in doubtful.items() if n]
        if self._unreadable:
            unusable = listed([path.stem for path in self._unreadable], _SHOWN)
            said.append(f"nothing is reused of {unusable}: it goes on, or cannot be read")
        return [f"{self._manifest.path.name}: {one}" for one in said]


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
