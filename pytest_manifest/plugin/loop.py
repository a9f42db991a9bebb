"""Run tests as completed: an entry's test as soon as its verdict is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import Binding, binding_of
from pytest_manifest.plugin.context import ending_session
from pytest_manifest.plugin.dispatching import begin_dispatch
from pytest_manifest.plugin.manifest_store import report_unselected
from pytest_manifest.plugin.session import ManifestSession
from pytest_manifest.plugin.short_protocol import ShortProtocol
from pytest_manifest.plugin.verdict_reader import VerdictReader

if TYPE_CHECKING:
    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run import Run

WAIT = 0.5
"""Seconds after which a waiting loop reads the ledgers although no run has woken it."""


def run_tests(session: pytest.Session, state: ManifestSession) -> bool | None:
    """Dispatch what was selected, then run each test when its verdict is there, without xdist.

    Returns None where pytest's own loop has to run the tests. Raises pytest.UsageError where the
    dispatch is refused, and session.Failed where a ledger cannot be read any more.
    """
    with ending_session(session):
        return _run_tests(session, state)


def _run_tests(session: pytest.Session, state: ManifestSession) -> bool | None:
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None  # pytest's own loop reports the errors; nothing is sent
    bindings = [binding for item in session.items if (binding := binding_of(item)) is not None]
    if not bindings:
        report_unselected(state.selection, state.report.notices)
        return None
    begin_dispatch(session, bindings)
    session_runs, report = state.session_runs, state.report
    for run in session_runs.runs:
        session.config.hook.pytest_manifest_dispatched(config=session.config, run=run)
    if state.context.options.dispatch_only:
        _wait_until_sent(report)
        return True
    if state.context.wants_file_order:
        return None

    def wait(seconds: float) -> None:
        if session_runs.changed.wait(min(seconds, report.poll())):
            report.poll()
        session_runs.changed.clear()

    def has_news() -> bool:
        changed = session_runs.changed.is_set()
        session_runs.changed.clear()
        return changed

    assert state.verdicts is not None
    _run_as_completed(session, state.verdicts, wait, has_news, session_runs.all_ended)
    return True


def _wait_until_sent(report: RunReport) -> None:
    for run in report.runs:
        while not run.all_sent.wait(0.2):
            report.poll()
    errors = [str(run.error) for run in report.runs if run.error is not None]
    if errors and not any(map(_has_sent, report.runs)):
        raise pytest.UsageError("; ".join(errors))  # nothing was sent: refused, like a wrong option


def _has_sent(run: Run) -> bool:
    """Check whether some message may have been sent; then the summary reports about the others."""
    with run.read() as ledger:
        states = ledger.attempts.send_states()
    return any(states.get(state) for state in ("intent", "sent", "uncertain"))


class StandIn(pytest.Item):
    """Take the place of a next item that is not known yet, so that shared fixtures stay set up."""

    def runtest(self) -> None:
        raise AssertionError("a stand-in is never run")


class Agenda:
    """Choose which item runs next.

    Items that verify no entry may run at once. Pending items are kept by the verdict they wait for
    and counted by parent, so that no step looks at all of them.
    """

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        self._ready: dict[pytest.Collector, deque[pytest.Item]] = {}
        self._by_subject: dict[Path, dict[str, pytest.Item | list[pytest.Item]]] = {}
        self._by_run: dict[Path, list[pytest.Item]] = {}
        self._left: dict[pytest.Collector, int] = {}
        self._stand_ins: dict[pytest.Collector, StandIn] = {}
        for item in items:
            self._file(item, binding_of(item))

    def _file(self, item: pytest.Item, binding: Binding | None) -> None:
        parent = _parent(item)
        self._left[parent] = self._left.get(parent, 0) + 1
        if binding is not None and binding.subject is not None:
            self._await(self._by_subject.setdefault(binding.manifest, {}), binding.subject, item)
        elif binding is not None and binding.whole_run:
            self._by_run.setdefault(binding.manifest, []).append(item)
        else:
            self._make_ready([item])

    def _await(
        self, waiting: dict[str, pytest.Item | list[pytest.Item]], subject: str, item: pytest.Item
    ) -> None:
        # Mostly one test per entry: a list for each would cost more than the rest of this class.
        first = waiting.setdefault(subject, item)
        if isinstance(first, list):
            first.append(item)
        elif first is not item:
            waiting[subject] = [first, item]

    @property
    def empty(self) -> bool:
        return not self._left

    def verdict_recorded(self, manifest: Path, subject: str) -> None:
        """Make the tests ready that wait for ``subject``, an entry or a group of entries."""
        found = self._by_subject.get(manifest, {}).pop(subject, ())
        self._make_ready([found] if isinstance(found, pytest.Item) else found)

    def run_recorded(self, manifest: Path) -> None:
        self._make_ready(self._by_run.pop(manifest, ()))

    def waiting_for_run(self) -> list[Path]:
        return list(self._by_run)

    def give_up_waiting(self) -> None:
        """Make all tests ready, as no further verdict will come; those without one report it."""
        for waiting in self._by_subject.values():
            for found in waiting.values():
                self._make_ready([found] if isinstance(found, pytest.Item) else found)
        for items in self._by_run.values():
            self._make_ready(items)
        self._by_subject.clear()
        self._by_run.clear()

    def take(self, after: pytest.Item | None) -> pytest.Item | None:
        """Take a ready item, if possible with the parent of ``after``; None where none is ready."""
        parent = None if after is None else _parent(after)
        if parent not in self._ready:
            parent = next(iter(self._ready), None)
        if parent is None:
            return None
        queue = self._ready[parent]
        item = queue.popleft()
        if not queue:
            del self._ready[parent]
        self._left[parent] -= 1
        if not self._left[parent]:
            del self._left[parent]
        return item

    def stand_in(self, item: pytest.Item) -> pytest.Item | None:
        """Return a next item for ``item``, in the deepest collector shared with all that is left.

        Returns None where nothing is left.
        """
        if self.empty:
            return None
        shared = _parent(item).listchain()
        for parent in self._left:
            chain = set(parent.listchain())
            shared = [node for node in shared if node in chain]
        node = shared[-1]
        assert isinstance(node, pytest.Collector)
        if node not in self._stand_ins:
            self._stand_ins[node] = StandIn.from_parent(node, name="next")
        return self._stand_ins[node]

    def _make_ready(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            self._ready.setdefault(_parent(item), deque()).append(item)


def _parent(item: pytest.Item) -> pytest.Collector:
    assert isinstance(item.parent, pytest.Collector)
    return item.parent


def _run_as_completed(
    session: pytest.Session,
    reader: VerdictReader,
    wait: Callable[[float], object],
    has_news: Callable[[], bool],
    over: Callable[[], bool],
) -> None:
    """Run the session's items, each when its verdict is there.

    ``wait`` sleeps up to so many seconds, less where a new verdict may have come. ``has_news``
    returns whether one may have come since its last call. ``over`` returns whether no further one
    will come. Raises session.Failed and session.Interrupted as pytest's own loop does.
    """
    agenda = Agenda(session.items)
    short = ShortProtocol.of(session.config)
    previous: pytest.Item | None = None
    item: pytest.Item | None = None
    while not (item is None and agenda.empty):
        if item is None:
            item = _next_ready(agenda, reader, previous, wait, over)
        elif has_news():
            _absorb(agenda, reader)
        following = agenda.take(after=item)
        nextitem = following if following is not None else agenda.stand_in(item)
        # The short protocol, where it may be used, saves the call of the hook.
        if short is None or not short.run(item, nextitem):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        previous, item = item, following


def _next_ready(
    agenda: Agenda,
    reader: VerdictReader,
    previous: pytest.Item | None,
    wait: Callable[[float], object],
    over: Callable[[], bool],
) -> pytest.Item:
    while True:
        ended = over()
        _absorb(agenda, reader)
        if ended:
            agenda.give_up_waiting()
        item = agenda.take(after=previous)
        if item is not None:
            return item
        wait(WAIT)


def _absorb(agenda: Agenda, reader: VerdictReader) -> None:
    for manifest, subject in reader.refresh():
        agenda.verdict_recorded(manifest, subject)
    for manifest in agenda.waiting_for_run():
        if reader.is_ready(Binding(manifest, None, whole_run=True)):
            agenda.run_recorded(manifest)
