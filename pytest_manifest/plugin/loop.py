"""Run tests as completed: an entry's test as soon as its verdict is there.

Run the built-in test of a passed entry without those steps in which nothing happens.

pytest sets a test up, calls it and tears it down by some forty hooks, which do nothing for a test
that has no fixtures and no output. Here such a test gets its reports, and the hooks that report it,
and no more. Whatever may have something to do in those steps (a hook of a plugin or conftest.py, an
autouse fixture, a marker, an option) brings the usual protocol back, as does any verdict but
"passed".
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, Binding, binding_of
from pytest_manifest.compat.pytest import let_go_of_arguments
from pytest_manifest.plugin.collection import EntryItem
from pytest_manifest.plugin.context import ending_session
from pytest_manifest.plugin.dispatching import begin_dispatch
from pytest_manifest.plugin.manifest_store import report_unselected
from pytest_manifest.plugin.outcome import FailedOnce, properties_of, record_properties
from pytest_manifest.plugin.runtest import SHORT, Verifying
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.verdict_reader import VerdictReader
from pytest_manifest.reporting.junit import take_time_of_job

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run import Run


_HOOKS: Final = (
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_runtest_call",
    "pytest_pyfunc_call",
    "pytest_runtest_teardown",
    "pytest_runtest_makereport",
)
"""The hooks that are left out: only pytest's and known plugins may implement them."""
_REPORTING: Final = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
)
"""The hooks that are always called."""
_KNOWN: Final = frozenset(
    {
        Verifying.__module__,
        FailedOnce.__module__,  # marks reports of tests that were skipped
        __name__,
        # These act on tests of their own kind alone: coroutines, and property-based tests.
        "anyio.pytest_plugin",
        "pytest_asyncio.plugin",
        "_hypothesis_pytestplugin",
        # A passed test is not run again, and the hook around a test still measures its time.
        "pytest_rerunfailures",
        "pytest_timeout",
    }
)
_FOLLOWERS: Final = frozenset({"pytest_timeout"})
"""Plugins for which ``pytest_runtest_protocol`` is still called around a test."""
_MARKERS: Final = frozenset(
    {"skip", "skipif", "xfail", "usefixtures", "filterwarnings", "asyncio", "flaky"}
)
"""Markers that change how a test is run."""
_OPTIONS: Final = ("setuponly", "setupshow", "setupplan", "trace", "reruns", "force_reruns")
_CURRENT: Final = "PYTEST_CURRENT_TEST"
_PHASES: Final[tuple[Literal["setup", "call", "teardown"], ...]] = ("setup", "call", "teardown")


class ShortProtocol:
    """Run tests by the short protocol; a plugin for one session."""

    def __init__(self) -> None:
        self._alone: bool | None = None
        self._followed: bool | None = None
        self._unmarked: dict[pytest.Collector, bool] = {}

    @classmethod
    def of(cls, config: pytest.Config) -> Self | None:
        """Return the session's short protocol, None where no test of the session is of an entry."""
        found = config.pluginmanager.get_plugin(SHORT)
        return found if isinstance(found, cls) else None

    def pytest_plugin_registered(self) -> None:
        """Check again who hooks into tests, as the new plugin may."""
        self._alone = self._followed = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        return self._run(item, nextitem) or None

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run a test without the hook for its protocol; return False where it needs the hook."""
        if self._followed is None:
            self._followed = _is_followed(item.config)
        return not self._followed and self._run(item, nextitem)

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run the test by the short protocol; return False where it needs the usual one.

        It does where something else belongs to the test, or its verdict is missing or not "passed".
        """
        if not isinstance(item, EntryItem) or not self._may_be_short(item, nextitem):
            return False
        binding, reader = binding_of(item), manifest_session(item.config).verdicts
        if binding is None or binding.entry is None or reader is None:
            return False
        began = time.time(), time.perf_counter()
        stored = reader.verdict(binding)
        if stored is None or stored.status != "passed":
            return False
        rows = properties_of(binding.entry, stored, reader.run_of(binding))
        _report_test(item, rows, began)
        let_go_of_arguments(item)
        return True

    def _may_be_short(self, item: pytest.Function, nextitem: pytest.Item | None) -> bool:
        """Check that nothing but the built-in verification belongs to this test."""
        parent = item.parent
        # The last test of a file tears down the file's fixtures in the usual way.
        if parent is None or nextitem is None or nextitem.parent is not parent:
            return False
        if item.fixturenames != [BUILTIN_ENTRY] or _MARKERS.intersection(_names(item)):
            return False
        if self._alone is None:
            self._alone = _are_alone(item.config)
        if parent not in self._unmarked:
            self._unmarked[parent] = all(
                _does_nothing(node)
                for node in parent.listchain()
                if isinstance(node, pytest.Collector)
            )
        return self._alone and self._unmarked[parent]


def _report_test(
    item: pytest.Function, rows: Sequence[tuple[str, object]], began: tuple[float, float]
) -> None:
    """Report the test from its start to its end."""
    os.environ[_CURRENT] = f"{item.nodeid} (call)".replace("\0", "(null)")
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    record_properties(item, rows)
    _report(item, began)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _report(item: pytest.Item, began: tuple[float, float]) -> None:
    """Report the three phases; the time of the first is that of looking the verdict up."""
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    start, clock = began
    reports: list[pytest.TestReport] = []
    for phase in _PHASES:
        if phase == "teardown":
            os.environ.pop(_CURRENT, None)
        stop, taken = time.time(), time.perf_counter() - clock
        report = pytest.TestReport(
            item.id if hasattr(item, "id") else item.nodeid,
            item.location,
            keywords,
            "passed",
            None,
            phase,
            duration=taken,
            start=start,
            stop=stop,
            user_properties=item.user_properties,
        )
        take_time_of_job(report)
        item.ihook.pytest_runtest_logreport(report=report)
        start, clock = time.time(), time.perf_counter()
        reports.append(report)
    for report in reports:  # pytest keeps all reports: let them share one list
        if report.user_properties == item.user_properties:
            report.user_properties = item.user_properties


def _are_alone(config: pytest.Config) -> bool:
    """Check that no unknown plugin implements the hooks that are left out."""
    if any(config.getoption(name, False) for name in _OPTIONS) or _reruns(config):
        return False
    return all(
        _is_known(implementation.plugin)
        for name in _HOOKS
        for implementation in getattr(config.hook, name).get_hookimpls()
    )


def _reruns(config: pytest.Config) -> bool:
    """Check whether pytest.ini has tests run again, which all reports then count."""
    try:
        return bool(config.getini("reruns"))
    except ValueError:  # no plugin declares such an option
        return False


def _is_followed(config: pytest.Config) -> bool:
    """Check whether a plugin needs the call of ``pytest_runtest_protocol`` around each test.

    A plugin does that follows tests by this hook. So does an unknown plugin with a reporting hook:
    it may warn there, and pytest catches warnings around ``pytest_runtest_protocol``.
    """
    hook = config.hook
    if any(_follows(one.plugin) for one in hook.pytest_runtest_protocol.get_hookimpls()):
        return True
    return not all(
        _module(one.plugin).startswith(("_pytest.", "pytest_manifest."))
        for name in _REPORTING
        for one in getattr(hook, name).get_hookimpls()
    )


def _follows(plugin: object) -> bool:
    return _module(plugin) in _FOLLOWERS


def _is_known(plugin: object) -> bool:
    module = _module(plugin)
    return _follows(plugin) or module.startswith("_pytest.") or module in _KNOWN


def _module(plugin: object) -> str:
    return str(getattr(plugin, "__name__", "") or type(plugin).__module__)


def _does_nothing(node: pytest.Collector) -> bool:
    """Check that a collector sets nothing up, and has no mark that changes how tests run."""
    return type(node).setup is pytest.Collector.setup and not _MARKERS.intersection(_names(node))


def _names(node: pytest.Item | pytest.Collector) -> Iterator[str]:
    return (mark.name for mark in node.own_markers)


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
