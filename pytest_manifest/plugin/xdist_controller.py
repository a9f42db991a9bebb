"""Coordinate the workers of an xdist session: dispatch once, repeat a crashed worker's test.

Hand a test out to an xdist worker when the verdict of its entry is there.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from xdist.scheduler import LoadScheduling

from pytest_manifest.bindings import Binding
from pytest_manifest.compat.xdist import events_of, tick_while_waiting
from pytest_manifest.plugin.context import ending_session
from pytest_manifest.plugin.coordination import Coordination
from pytest_manifest.plugin.manifest_store import Waiting, report_unselected
from pytest_manifest.plugin.session import ACCEPTED, ACCEPTED_KEY, SALT, ManifestSession
from pytest_manifest.redaction.names import current_salt
from pytest_manifest.reporting.run_report import UNWRITTEN

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController


CHUNK = 20
"""Ready tests handed to an xdist worker at once, and twice as many quick ones: enough to hide a
round trip, few enough to leave tests for the other workers."""
QUICK = 0.01
"""Seconds below which a test is so quick that it does not matter which xdist worker runs it."""


class AsCompletedScheduling:
    """Schedule as xdist's own load scheduling until there is a :class:`Handout`, then by that.

    Implements xdist's ``Scheduling``. Where no test is of an entry there is none.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        self.config = config
        """What schedulers of xdist's own have as well; plugins read it (pytest-rerunfailures)."""
        self.load = LoadScheduling(config, log)
        self.handout: Handout | None = None

    def __getattr__(self, name: str) -> object:
        """Return what xdist asks for, of the scheduling in force."""
        of_ours = self.handout is not None and hasattr(Handout, name)
        return getattr(self.handout if of_ours else self.load, name)


@dataclass(eq=False)
class Handout:
    """Hand out an entry's test to an xdist worker only when its verdict is there.

    An xdist worker runs a test only when it holds another one or was told to finish, so one ready
    test can be parked in it until the next is ready: new tests go first to a worker with a parked
    one. xdist's own load scheduling keeps the list of workers.
    """

    _load: LoadScheduling
    _state: ManifestSession
    _bindings: Sequence[Binding | None]
    _collection: Sequence[str]

    def __post_init__(self) -> None:
        waits = self._waiting = Waiting[int]()
        self._ready = deque(n for n, one in enumerate(self._bindings) if not waits.add(n, one))
        self._with_next: set[int] = set()
        """Tests after which the next one of the same entry has to go to the same worker."""
        self._pending: dict[WorkerController, list[int]] = {node: [] for node in self._load.nodes}
        self._begun = self._quick = False

    @property
    def tests_finished(self) -> bool:
        if not self._load.collection_is_completed or self.unassigned:
            return False
        return all(len(pending) < 2 for pending in self._pending.values())

    @property
    def has_pending(self) -> bool:
        # Nothing is pending before the first test is handed out: xdist then ends its status line.
        return self._begun and (self.unassigned > 0 or any(self._pending.values()))

    def add_node(self, node: WorkerController) -> None:
        self._load.add_node(node)
        self._pending[node] = []

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        if not self._begun:
            self._load.add_node_collection(node, collection)
        elif list(collection) != list(self._collection):
            # It replaces a crashed worker, and would run other tests by the same indices.
            self._state.report.notices.append(
                f"xdist worker {node.gateway.id} has collected other tests"
            )

    @property
    def unassigned(self) -> int:
        """Count the tests that no xdist worker has been given."""
        return len(self._ready) + len(self._waiting)

    def schedule(self) -> None:
        self._begun = True
        self.pump()

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        self._pending[node].remove(item_index)
        self._quick = duration < QUICK
        self.pump()

    def mark_test_pending(self, item: str) -> None:
        self._ready.appendleft(self._collection.index(item))
        self.pump()

    def remove_node(self, node: WorkerController) -> str | None:
        pending = self._pending.pop(node)
        crashed: str | None = self._load.remove_node(node)
        if not pending:
            return crashed
        self._ready.extend(pending[1:])
        self.pump()
        return self._collection[pending[0]]

    def pump(self) -> None:
        """Hand out the ready tests; when no test is left, let the xdist workers finish."""
        if not self._begun:
            return
        if self._state.verdicts is not None:
            over = self._state.session_runs.all_ended()
            for tests in self._waiting.due(self._state.verdicts, over=over):
                # The tests of one entry go to one xdist worker: a failed job fails one of them.
                self._ready.extend(tests)
                self._with_next.update(tests[:-1])
        nodes = [node for node in self._load.nodes if not node.shutting_down]
        if self._ready and nodes:
            # Slow tests: hand the last ones out singly, to the worker that is done first.
            rounds, most = (1, 2 * CHUNK) if self._quick else (2, CHUNK)
            share = max(1, min(most, len(self._ready) // (rounds * len(nodes))))
            # Workers with one parked test first: it does not run before another one arrives.
            nodes.sort(key=lambda n: (len(self._pending[n]) != 1, len(self._pending[n])))
            for node in nodes:
                pending = len(self._pending[node])
                if pending < 2 or 2 * pending <= share:
                    self._give(node, share + 1 - pending)
        if not (self.unassigned or self._state.session_runs.awaits_repeats()):
            for node in nodes:
                node.shutdown()

    def _give(self, node: WorkerController, number: int) -> None:
        tests: list[int] = []
        while self._ready and (len(tests) < number or tests[-1] in self._with_next):
            tests.append(self._ready.popleft())
        if tests:
            self._pending[node].extend(tests)
            node.send_runtest_some(tests)


MAX_REPEATS = 3
"""Repeats of one test at most, each after a crash of the xdist worker that ran it."""
OWN: Final = "manifest_"
"""The prefix of the names of an entry's properties."""


class ControllerHooks:
    """Implement xdist's hooks in the controller; registered only where xdist distributes tests."""

    def __init__(self, config: pytest.Config, state: ManifestSession) -> None:
        self._config = config
        self._state = state
        self._session: pytest.Session | None = None
        self._coordination = Coordination.create()
        self._collected: dict[str, list[str]] = {}
        self._workers = 0
        self._dispatched = False
        self._repeats: dict[str, int] = {}
        self._crashes = 0
        self._scheduler: AsCompletedScheduling | None = None
        self._handout: Handout | None = None
        self._wake_loop: Callable[[], None] = lambda: None
        state.context.coordination = self._coordination
        shard = state.options.shard
        if shard is not None and shard.balance is not None:
            self._coordination.publish_balance(shard.balance)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        self._config.pluginmanager.register(SharedReports())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        self._workers = node.workerinput["workercount"]
        node.workerinput["manifest"] = str(self._coordination.folder)
        node.workerinput[SALT] = current_salt().hex()
        node.workerinput[ACCEPTED] = node.config.stash.get(ACCEPTED_KEY, "")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> AsCompletedScheduling | None:
        if config.getvalue("dist") != "load" or self._state.context.wants_file_order:
            return None
        if events_of(config) is None:
            return None  # an unknown version of xdist: tests wait in its workers for their verdicts
        self._scheduler = AsCompletedScheduling(config, log)
        return self._scheduler

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
        if not any(collection.bindings):
            report_unselected(self._state.selection, self._state.report.notices)
            return
        if any(other != lists[0] for other in lists):
            return  # xdist ends the session and shows the difference; nothing is sent
        assert self._session is not None
        if self._session.testsfailed and not self._config.option.continue_on_collection_errors:
            raise self._session.Interrupted("errors during collection; nothing was dispatched")
        self._dispatched = True
        self._dispatch(self._session, collection.bindings, lists[0])

    def _dispatch(
        self, session: pytest.Session, bindings: Sequence[Binding | None], tests: Sequence[str]
    ) -> None:
        if not self._state.options.may_dispatch:
            return
        from pytest_manifest.plugin.dispatching import begin_dispatch

        with ending_session(session):
            both = partial(zip, tests, bindings, strict=True)
            begin_dispatch(session, lambda: ((name, one) for name, one in both() if one))
        if self._scheduler is not None:
            # All xdist workers have the same collection.
            self._handout = Handout(self._scheduler.load, self._state, bindings, tests)
            self._scheduler.handout = self._handout
        if (events := events_of(self._config)) is not None:
            self._wake_loop = tick_while_waiting(
                events, lambda: self._state.report.poll(), self._pump
            )
        for run in self._state.session_runs.runs:
            run.on_verdicts(lambda _entries: self._wake())
        self._wake()

    def _wake(self) -> None:
        """Wake the controller's loop, which has no tick of its own, to see the new verdicts."""
        if self._state.session_runs.all_ended():
            self._coordination.publish_end_of_runs()
        self._wake_loop()

    def _pump(self) -> None:
        if self._handout is not None and self._session is not None:
            with ending_session(self._session):
                self._handout.pump()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        self._crashes += bool(error)
        # One that has crashed has no output.
        output: Mapping[str, Sequence[str]] = getattr(node, "workeroutput", {})
        for fault in output.get(UNWRITTEN, ()):
            self._state.report.note_unwritten(fault)

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
        left = 0 if self._handout is None else self._handout.unassigned
        if not left or not self._given_up:
            return
        self._state.report.notices.append(
            f"{left} tests were not run: too many xdist workers crashed"
        )
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


class SharedReports:
    """Let the reports of a test share their equal parts; a plugin for one session.

    execnet makes each report from a message: the setup, call and teardown of one test, and the
    tests of one session, bring their own copies of the same texts. Reporters keep all reports until
    the session ends, and copies are most of what an entry then takes.
    """

    def __init__(self) -> None:
        self._first: dict[str, pytest.TestReport] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Share the parts of an entry's report before reporters keep it; values stay the same."""
        first = self._first.get(report.nodeid)
        if first is None:
            try:
                names = {sys.intern(name): value for name, value in report.keywords.items()}
                rows = [
                    (sys.intern(name), sys.intern(value) if type(value) is str else value)
                    for name, value in report.user_properties
                ]
            except (TypeError, ValueError, AttributeError):
                return  # it stays as another plugin has made it
            if not (rows and rows[0][0].startswith(OWN)):
                return
            report.keywords, report.user_properties = names, rows
            first = self._first[report.nodeid] = report
        if report.when == "teardown":
            del self._first[report.nodeid]
        for part in ("location", "keywords", "user_properties"):
            if getattr(report, part) == getattr(first, part):
                setattr(report, part, getattr(first, part))
