"""Run the two sides of an xdist session: the controller decides, the xdist workers run tests."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScheduling

from pytest_manifest.bindings import Binding
from pytest_manifest.compat.xdist import events_of, tick_while_waiting
from pytest_manifest.plugin.coordination import Coordination, Row
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.shared_reports import SharedReports
from pytest_manifest.plugin.work import begin_dispatch, file_order_wanted, report_unselected

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

MAX_REPEATS = 3
"""Repeats of one test at most, each after a crash of the xdist worker that ran it."""
CHUNK = 20
"""Ready tests handed to an xdist worker at once, and twice as many quick ones: enough to hide a
round trip, few enough to leave tests for the other workers."""
QUICK = 0.01
"""Seconds below which a test is so quick that it does not matter which xdist worker runs it."""


class AsCompletedScheduling:
    """Hand out an entry's test to an xdist worker only when its verdict is there.

    Implements xdist's ``Scheduling``. An xdist worker runs a test only when it holds another one or
    was told to finish, so one ready test can be parked in it until the next is ready: new tests go
    first to a worker with a parked one. Where no test is of an entry this is xdist's own load
    scheduling, which keeps the list of workers in any case.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        self.config = config
        """What schedulers of xdist's own have as well; plugins read it (pytest-rerunfailures)."""
        self._load = LoadScheduling(config, log)
        self._state = manifest_session(config)
        self._ready: deque[int] = deque()
        self._by_subject: dict[tuple[Path, str], list[int]] = {}
        self._by_run: dict[Path, list[int]] = {}
        self._pending: dict[WorkerController, list[int]] = {}
        self._collection: list[str] = []
        self._bound = self._begun = False
        self._quick = False

    def bind(self, rows: Sequence[Row | None], collection: Sequence[str]) -> None:
        """Set what each test waits for; all xdist workers have the same collection."""
        self._bound = True
        self._collection = list(collection)
        for index, row in enumerate(rows):
            binding = None if row is None else _binding(row)
            if binding is not None and binding.subject is not None:
                self._by_subject.setdefault((binding.manifest, binding.subject), []).append(index)
            elif binding is not None and binding.whole_run:
                self._by_run.setdefault(binding.manifest, []).append(index)
            else:
                self._ready.append(index)

    @property
    def nodes(self) -> list[WorkerController]:
        workers: list[WorkerController] = self._load.nodes
        return workers

    @property
    def collection_is_completed(self) -> bool:
        return bool(self._load.collection_is_completed)

    @property
    def tests_finished(self) -> bool:
        if not self._bound:
            return bool(self._load.tests_finished)
        if not self.collection_is_completed or self._left:
            return False
        return all(len(pending) < 2 for pending in self._pending.values())

    @property
    def has_pending(self) -> bool:
        # Nothing is pending before the first test is handed out: xdist then ends its status line.
        if not self._bound:
            return bool(self._load.has_pending)
        return self._begun and (self._left or any(self._pending.values()))

    def add_node(self, node: WorkerController) -> None:
        self._load.add_node(node)
        self._pending[node] = []

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        if not self._begun:
            self._load.add_node_collection(node, collection)
        elif list(collection) != self._collection:
            # It replaces a crashed worker, and would run other tests by the same indices.
            self._state.notices.append(f"xdist worker {node.gateway.id} has collected other tests")

    @property
    def _left(self) -> bool:
        return bool(self._ready or self._by_subject or self._by_run)

    @property
    def unassigned(self) -> int:
        """Count the tests that no xdist worker has been given."""
        if not self._bound:
            return 0
        waiting = [*self._by_subject.values(), *self._by_run.values()]
        return len(self._ready) + sum(map(len, waiting))

    def schedule(self) -> None:
        if not self._bound:
            self._load.schedule()
            return
        self._begun = True
        self.pump()

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        if not self._bound:
            self._load.mark_test_complete(node, item_index, duration)
            return
        self._pending[node].remove(item_index)
        self._quick = duration < QUICK
        self.pump()

    def mark_test_pending(self, item: str) -> None:
        if not self._bound:
            self._load.mark_test_pending(item)
            return
        self._ready.appendleft(self._collection.index(item))
        self.pump()

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        self._load.remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        pending = self._pending.pop(node)
        crashed: str | None = self._load.remove_node(node)
        if not self._bound or not pending:
            return crashed
        self._ready.extend(pending[1:])
        self.pump()
        return self._collection[pending[0]]

    def pump(self) -> None:
        """Hand out the ready tests; when no test is left, let the xdist workers finish."""
        if not self._begun:
            return
        self._absorb()
        nodes = [node for node in self.nodes if not node.shutting_down]
        if self._ready and nodes:
            # Slow tests: hand the last ones out singly, to the worker that is done first.
            parts, most = (1, 2 * CHUNK) if self._quick else (2, CHUNK)
            share = max(1, min(most, len(self._ready) // (parts * len(nodes))))
            # Workers with one parked test first: it does not run before another one arrives.
            nodes.sort(key=lambda n: (len(self._pending[n]) != 1, len(self._pending[n])))
            for node in nodes:
                held = len(self._pending[node])
                if held < 2 or 2 * held <= share:
                    self._give(node, share + 1 - held)
        if not self._left:
            for node in nodes:
                node.shutdown()

    def _give(self, node: WorkerController, number: int) -> None:
        tests = [self._ready.popleft() for _ in range(min(number, len(self._ready)))]
        if tests:
            self._pending[node].extend(tests)
            node.send_runtest_some(tests)

    def _absorb(self) -> None:
        book = self._state.verdicts
        if book is None:
            return
        for subject in book.refresh():
            self._ready.extend(self._by_subject.pop(subject, ()))
        for manifest in list(self._by_run):
            if book.is_ready(Binding(manifest, None, whole_run=True)):
                self._ready.extend(self._by_run.pop(manifest))
        if all(run.ended.is_set() for run in self._state.runs):
            # No further verdict will come; each test that is left reports that it has none.
            for subject in book.refresh():
                self._ready.extend(self._by_subject.pop(subject, ()))
            for waiting in (self._by_subject, self._by_run):
                for indices in waiting.values():
                    self._ready.extend(indices)
                waiting.clear()


def _binding(row: Row) -> Binding:
    manifest, entry, whole_run, group = row
    return Binding(Path(manifest), entry, whole_run, group)


class ControllerHooks:
    """Implement xdist's hooks in the controller; registered only where xdist distributes tests."""

    def __init__(self, config: pytest.Config, state: ManifestSession) -> None:
        self._config = config
        self._state = state
        self._session: pytest.Session | None = None
        self._coordination = Coordination.create()
        self._collected: dict[str, list[str]] = {}
        self._workers = 0
        self._failed = False
        self._dispatched = False
        self._repeats: dict[str, int] = {}
        self._crashes = 0
        self._scheduler: AsCompletedScheduling | None = None
        self._wake_loop: Callable[[], None] = lambda: None
        state.coordination = self._coordination

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        self._config.pluginmanager.register(SharedReports())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        self._workers = node.workerinput["workercount"]
        told = {"folder": str(self._coordination.folder)}
        node.workerinput["manifest"] = json.dumps(told)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> AsCompletedScheduling | None:
        if config.getvalue("dist") != "load" or file_order_wanted(config):
            return None
        if events_of(config) is None:
            return None  # an unknown version of xdist: tests wait in its workers for their verdicts
        self._scheduler = AsCompletedScheduling(config, log)
        return self._scheduler

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._failed = self._failed or report.failed

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        """Dispatch the selected entries once the last xdist worker has collected.

        No test has started by then. Raises UsageError for a problem that the collection has
        reported.
        """
        self._collected[node.gateway.id] = list(ids)
        if self._dispatched or len(self._collected) < self._workers:
            return
        lists = list(self._collected.values())
        collection = self._coordination.collection(node.gateway.id)
        if collection.problem is not None:
            raise pytest.UsageError(collection.problem)
        if not any(collection.rows):
            report_unselected(self._state)
            return
        if any(other != lists[0] for other in lists):
            return  # xdist ends the session and shows the difference; nothing is sent
        assert self._session is not None
        if self._failed and not self._config.option.continue_on_collection_errors:
            raise self._session.Interrupted("errors during collection; nothing was dispatched")
        self._dispatched = True
        self._dispatch(self._session, collection.rows, lists[0])

    def _dispatch(
        self, session: pytest.Session, rows: Sequence[Row | None], collection: Sequence[str]
    ) -> None:
        if not self._state.options.may_dispatch:
            return
        begin_dispatch(session, [_binding(row) for row in rows if row])
        for run in self._state.runs:
            self._config.hook.pytest_manifest_dispatched(config=self._config, run=run)
        if self._scheduler is not None:
            self._scheduler.bind(rows, collection)
        if (events := events_of(self._config)) is not None:
            self._wake_loop = tick_while_waiting(
                events, lambda: self._state.report.poll(), self._pump
            )
        for run in self._state.runs:
            run.on_verdicts(lambda _entries: self._wake())
        self._wake()

    def _wake(self) -> None:
        """Wake the controller's loop, which has no tick of its own, to see the new verdicts."""
        if all(run.ended.is_set() for run in self._state.runs):
            self._coordination.publish_end_of_runs()
        self._wake_loop()

    def _pump(self) -> None:
        if self._scheduler is not None:
            self._scheduler.pump()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        self._crashes += bool(error)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(
        self, crashitem: str, report: pytest.TestReport, sched: Scheduling
    ) -> None:
        """Run a test again, up to MAX_REPEATS times, when the xdist worker that ran it has crashed.

        The crash says nothing about the entry that the test verifies.
        """
        times = self._repeats.get(crashitem, 0)
        if not self._dispatched or times >= MAX_REPEATS or self._given_up:
            return
        try:
            sched.mark_test_pending(crashitem)
        except NotImplementedError:
            return  # this distribution mode cannot take a test back, so it stays failed
        self._repeats[crashitem] = times + 1
        report.outcome = "rerun"  # type: ignore[assignment]  # pytest-rerunfailures' word

    @property
    def _given_up(self) -> bool:
        """Check whether so many xdist workers have crashed that xdist ends the session."""
        limit = self._config.getoption("maxworkerrestart", None)
        allowed = self._workers * 4 if limit is None else int(limit)
        return self._crashes > allowed

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session where tests were not run because too many xdist workers crashed."""
        left = 0 if self._scheduler is None else self._scheduler.unassigned
        if not left or not self._given_up:
            return
        self._state.notices.append(f"{left} tests were not run: too many xdist workers crashed")
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, str] | None:
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # see pytest_handlecrashitem
            return "rerun", "R", "RERUN"
        return None

    def pytest_unconfigure(self) -> None:
        self._coordination.remove()
