"""Follow the tasks that jobs start: an attempt is judged when its whole tree has ended.

A tree is an attempt with its descendants. Workers tell of each of these before its message is sent,
and announce in a task's end what Celery sends only after it. So whether a tree is complete is a
question of what was told: all of it has come to an end, and all that was announced has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from uuid import NAMESPACE_OID, uuid5

from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.casebook import Casebook, is_no_news
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.inflight import (
    PendingAttempt,
    PendingAttempts,
    entry_of_descendant,
    pending_descendant,
)
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import Announced, ChildElsewhere, ChildUnsent, Closed, FactSource
from pytest_manifest.schema.stream_records import HOW_AFTER
from pytest_manifest.verdict.reasons import verdict_by
from pytest_manifest.verdict.tree import Descendant as Judged
from pytest_manifest.verdict.tree import is_ignored


@dataclass(slots=True)
class _Expected:
    """Hold what is announced under one key of a tree, and whether it is looked for already."""

    how: str
    task: str
    number: int
    task_ids: set[str] = field(default_factory=set)
    announcers: set[str] = field(default_factory=set)
    is_off: bool = False
    is_awaited: bool = False


@dataclass(slots=True)
class _Tree:
    """Hold an attempt's descendants without an end, and what is announced of more.

    ``came``: how many of the announced ones were told of, by the announcement's key.
    """

    attempt: PendingAttempt
    is_ignored: bool
    open: set[str] = field(default_factory=set)
    expected: dict[str, _Expected] = field(default_factory=dict)
    came: Counter[str] = field(default_factory=Counter)
    failed: bool = False
    by_others: set[str] = field(default_factory=set)
    """Those whose end follows from others': split off, or the body of a chord."""
    searched: list[PendingAttempt] = field(default_factory=list)
    """Those that were handed on to tasks which have all ended."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """What is awaited of a descendant, by its task."""

    def key_of(self, task_id: str) -> str | None:
        """Return the key under which a task was announced; None: it was not."""
        found = (key for key, one in self.expected.items() if task_id in one.task_ids)
        return next(found, None)

    def unfulfilled(self) -> list[tuple[str, _Expected]]:
        """Return what was announced, has not come, and is not off."""
        return [
            (key, one)
            for key, one in self.expected.items()
            if not one.is_off and self.came[key] < one.number
        ]


@dataclass(eq=False)
class Trees:
    """Keep the trees of the attempts in flight. Use it from the run's thread, in transactions."""

    _ledger: Ledger
    _manifest: Manifest
    _cases: Casebook
    _facts: FactLog
    _pending: PendingAttempts
    _on_new: Callable[[Descendant, bool], None] = lambda _one, _is_awaited: None
    """Called with each new descendant, and whether it is awaited."""

    def __post_init__(self) -> None:
        self.wants_search = False
        """Whether there is a job that is sure to be nowhere."""
        self._trees: dict[str, _Tree] = {}
        self._touched: set[str] = set(self._pending.held)
        self._tracked: dict[str, set[str]] = {}
        """Descendants that an earlier part of the run has given up, by root: they may go on."""
        for job in self._pending.by_task_id.values():
            if job.child is not None:
                self._tracked.setdefault(job.root, set()).add(job.task_id)
        # An earlier part of the run may have written down trees that are not complete.
        self._stored = self._ledger.descendants.any()

    # What workers tell

    def add(self, descendants: Sequence[Descendant]) -> None:
        """Track the descendants that are new; those of no attempt of this run are left out."""
        if not descendants:
            return
        ids = [one.task_id for one in descendants]
        # The id of an attempt is nobody's descendant, whatever a record says.
        known = self._ledger.descendants.known(ids) | self._ledger.attempts.known(ids)
        new: list[Descendant] = []
        for one in descendants:
            tree = None if one.task_id in known else self._tree(one.root)
            if tree is None:
                continue
            known.add(one.task_id)
            new.append(one)
            self._pending.forget_facts(one.root)
            self._on_new(one, not tree.is_ignored)
            if tree.is_ignored:
                continue  # it is written down, and nobody waits for it
            self._touched.add(one.root)
            for job in tree.searched:  # there is more that may carry them
                job.parts = None
            tree.searched.clear()
            key = one.fulfils or tree.key_of(one.task_id)
            if key is not None:
                tree.came[key] += 1
                self._drop_placeholders(tree, key)
            tree.open.add(one.task_id)
            self._pending.track_descendant(pending_descendant(one, tree.attempt, tree.entries))
        self._ledger.descendants.add(new)
        self._cases.has_trees = self._cases.has_trees or bool(new)

    def announce(self, announced: Sequence[Announced]) -> None:
        """Note what is to come of trees of this run."""
        kept: list[Announced] = []
        for one in announced:
            tree = self._tree(one.job)
            if tree is not None and not tree.is_ignored:
                kept.append(one)
                self._touched.add(one.job)
                self._pending.forget_facts(one.job)
                _expect(tree, one)
        self._ledger.events.add(kept)
        self._cases.has_trees = self._cases.has_trees or bool(kept)

    def close(self, closed: Iterable[tuple[str, str]]) -> None:
        """Note announcements, by root and key, of which nothing more comes."""
        for root, key in closed:
            tree = self._tree(root)
            if tree is not None and not tree.is_ignored:
                fact = Closed(**stamp(root), source=FactSource.WORKER, key=key)
                self._facts.add(tree.attempt.entry.id, fact)
                tree.came[key] += 1
                self._touched.add(root)
                self._drop_placeholders(tree, key)

    def mark_unsent(self, task_ids: Iterable[str]) -> None:
        """Note descendants whose message no broker took, as far as their parent could tell."""
        for task_id in task_ids:
            job = self._pending.by_task_id.get(task_id)
            if job is not None:
                self._facts.of(job, ChildUnsent(**stamp(task_id), source=FactSource.WORKER))

    def mark_elsewhere(self, brokers: Mapping[str, str]) -> None:
        """Note descendants whose message went to another broker, by task id."""
        for task_id, broker in brokers.items():
            job = self._pending.by_task_id.get(task_id)
            if job is not None and job.child is not None:
                fact = ChildElsewhere(**stamp(task_id), source=FactSource.WORKER, broker=broker)
                self._facts.of(job, fact)
                job.child = replace(job.child, broker=broker)
        self._ledger.descendants.mark_elsewhere(brokers)

    # Ends

    def judge(self, task_ids: Iterable[str]) -> tuple[list[str], set[str]]:
        """Judge descendants by what was recorded of them; those that have ended are awaited no
        more.

        Returns those that kill their workers; and the attempts that had their verdict before this
        was known of their trees.
        """
        deadly: list[str] = []
        late: set[str] = set()
        for root, some in self._by_root(task_ids).items():
            attempt = self._attempt(root)
            if attempt is None:
                continue
            for found in self._cases.descendants(attempt, some):
                if found.is_open:
                    continue
                name = found.job.task_id
                job = self._pending.complete(name)
                if job is not None:
                    self._end(attempt, found, job)
                elif self._correct(attempt, found):
                    late.add(root)
                if found.finding.status == "quarantined":
                    deadly.append(name)
        return deadly, late

    def _by_root(self, task_ids: Iterable[str]) -> dict[str, list[str]]:
        """Sort descendants by the attempts that they are of; others are left out."""
        found: dict[str, list[str]] = {}
        for task_id in task_ids:
            job = self._pending.by_task_id.get(task_id)
            if job is not None and job.child is not None:
                found.setdefault(job.root, []).append(task_id)
            elif job is None and (one := self._ledger.descendants.get(task_id)) is not None:
                found.setdefault(one.root, []).append(task_id)
        return found

    def _end(self, attempt: PendingAttempt, found: Judged, job: PendingAttempt) -> None:
        """Record what became of a descendant."""
        child = job.child
        if job.announcers and child and child.how != HOW_AFTER:  # nobody reported that it was sent
            self._ledger.descendants.add([child])
        whole = self._cases.tree(attempt)
        whole.add(found)
        tree = self._tree(attempt.task_id)
        if tree is not None:
            tree.open.discard(job.task_id)
            tree.failed = tree.failed or found.finding.status != "passed"
            if found.was_split or (child and child.how == "chord_body"):
                tree.by_others.add(job.task_id)
        self._record(attempt, [found])
        self._touched.add(attempt.task_id)

    def _correct(self, attempt: PendingAttempt, found: Judged) -> bool:
        """Record what is known of a descendant that had ended; return whether its attempt is to be
        judged again for it."""
        one = self._ledger.descendants.get(found.job.task_id)
        before = None if one is None else one.verdict
        status, reason = found.finding.status, found.finding.reason
        if before is not None and (
            before.reason == reason.document()
            if before.verdict == status
            else is_no_news(before.verdict, status)
        ):
            return False
        self._record(attempt, [found])
        if not self._pending.awaits(attempt.task_id):
            return before is not None
        self._cases.tree(attempt).add(found)
        return False

    def _record(self, attempt: PendingAttempt, ends: Iterable[Judged]) -> None:
        entry, number = attempt.entry.id, attempt.number
        self._ledger.descendants.end(
            {one.job.task_id: verdict_by(entry, number, one.finding) for one in ends}
        )

    def holds(self, job: PendingAttempt) -> bool:
        """Keep an attempt that has ended until its descendants have; False: they have."""
        tree = self._tree(job.task_id, only_known=True)
        if tree is None or not (tree.open or tree.unfulfilled()):
            self._forget(job)
            return False
        self._pending.held[job.task_id] = job
        self._touched.add(job.task_id)
        return True

    def _forget(self, attempt: PendingAttempt) -> None:
        """Forget the tree of an attempt, of which all has ended.

        What follows for some from others is recorded: which were split off, and which were never
        sent as their chord was not complete.
        """
        tree = self._trees.pop(attempt.task_id, None)
        if tree is not None and tree.by_others:
            ends = self._cases.tree(attempt).ends()
            self._record(attempt, (one for one in ends if one.job.task_id in tree.by_others))

    def completed(self) -> list[PendingAttempt | str]:
        """Return the attempts whose trees are complete now, once each.

        By task id alone those that had their verdict before more was known of their trees.
        """
        found: list[PendingAttempt | str] = []
        touched, self._touched = self._touched, set()
        for root in touched:
            tree = self._tree(root, only_known=True)
            if tree is not None:
                self._search_split(root, tree)
            if root in self._pending.by_task_id:
                continue  # the job itself has not ended
            if tree is not None and (tree.open or self._awaits(root, tree)):
                continue
            if root in self._pending.held:
                job = self._pending.held.pop(root)
                self._forget(job)
                found.append(job)
            elif tree is not None:
                del self._trees[root]
                self._cases.forget(root)
                found.append(root)
        return found

    # Trees

    def _tree(self, root: str, *, only_known: bool = False) -> _Tree | None:
        """Return an attempt's tree; None for no attempt of this run, or where it has none yet."""
        tree = self._trees.get(root)
        if tree is not None:
            return tree
        if only_known and not self._stored:
            return None
        is_new = root in self._pending.by_task_id and not self._stored
        attempt = self._attempt(root)
        if attempt is None:
            return None
        tree = _Tree(attempt, is_ignored(attempt.entry))
        if not is_new:
            self._load(root, tree)
            if only_known and not (tree.open or tree.expected):
                return None
        self._trees[root] = tree
        return tree

    def _load(self, root: str, tree: _Tree) -> None:
        part = self._ledger.descendants
        if tree.is_ignored:
            return
        tree.open = {one.task_id for one in part.of_root(root, open_only=True)}
        tree.open |= self._tracked.pop(root, set()) & self._pending.by_task_id.keys()
        for one in self._ledger.events.of(Announced, root):
            _expect(tree, one)
        tree.came.update(part.fulfilled(root))
        for key, expected in tree.expected.items():
            told = part.known(sorted(expected.task_ids))
            tree.came[key] = max(tree.came[key], len(told))

    def _attempt(self, root: str) -> PendingAttempt | None:
        held = self._pending.held.get(root) or self._pending.by_task_id.get(root)
        return held or self._attempt_of_ledger(root)

    def _attempt_of_ledger(self, task_id: str) -> PendingAttempt | None:
        """Return the run's attempt with this task id; None where it has none."""
        row = self._ledger.attempts.get(task_id)
        try:
            if row is None or row.entry not in self._manifest:
                return None
            entry = self._manifest[row.entry]
        except ManifestError:
            return None
        run = self._ledger.info.read().run
        return PendingAttempt(run, entry, row.attempt, task_id, 0.0, row.sent_at)

    # What does not come

    def _search_split(self, root: str, tree: _Tree) -> None:
        """Have jobs looked for that were handed on to other tasks, where all those have ended.

        The last of these sends a job's own message; where one has failed there will be none.
        """
        pending = self._pending.by_task_id
        if tree.searched or not (tree.open or root in pending):
            return
        open_ends = filter(pending.__contains__, chain((root,), tree.open))
        if not all(pending[name].was_split for name in open_ends):
            return
        before = len(tree.open)
        self._awaits(root, tree)
        if len(tree.open) > before:
            return
        told = self._ledger.descendants.of_root(root)
        parts = frozenset(one.task_id for one in told if one.status == "passed")
        tree.searched = [pending[i] for i in chain((root,), tree.open) if i in pending]
        for job in tree.searched:
            job.parts = parts
        self.wants_search = self.wants_search or tree.failed

    def _awaits(self, root: str, tree: _Tree) -> bool:
        """Return whether something announced is still to come; have it looked for, if so."""
        for key, one in tree.unfulfilled():
            if one.is_awaited:
                continue
            one.is_awaited = True
            for job in _placeholders(root, tree, key, one):
                tree.open.add(job.task_id)
                self._pending.track_descendant(job)
        return bool(tree.open)

    def _drop_placeholders(self, tree: _Tree, key: str) -> None:
        expected = tree.expected.get(key)
        if expected is None or not expected.is_awaited or tree.came[key] < expected.number:
            return
        for task_id in list(tree.open):
            job = self._pending.by_task_id.get(task_id)
            if job is not None and job.announcement == key:
                self._pending.complete(task_id)
                tree.open.discard(task_id)


def _expect(tree: _Tree, one: Announced) -> None:
    expected = tree.expected.setdefault(one.key, _Expected(one.how, one.task, one.number))
    expected.number = max(expected.number, one.number)
    expected.task_ids.update(one.task_ids)
    expected.announcers.add(one.announcer)
    expected.is_off = expected.is_off or one.is_off


def _placeholders(root: str, tree: _Tree, key: str, one: _Expected) -> Iterator[PendingAttempt]:
    """Yield what is awaited of an announcement: under the ids that it names, or one of our own."""
    announcers = frozenset(one.announcers)
    parent = min(announcers)
    for task_id in sorted(one.task_ids) or [str(uuid5(NAMESPACE_OID, f"{key}:{one.how}"))]:
        yield PendingAttempt(
            tree.attempt.run,
            entry_of_descendant(one.task, tree.attempt),
            tree.attempt.number,
            task_id,
            tree.attempt.sent,
            child=Descendant(task_id, root, parent, one.task, one.how),
            announcers=announcers,
            announcement=key,
        )
