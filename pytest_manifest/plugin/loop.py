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
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import pytest
from pluggy import HookRelay

from pytest_manifest.bindings import BUILTIN_ENTRY, binding_of, bindings_of, tests_of
from pytest_manifest.compat.pytest import let_go_of_arguments
from pytest_manifest.plugin import outcome, run_history
from pytest_manifest.plugin.collection import BuiltinItem
from pytest_manifest.plugin.context import ending_session
from pytest_manifest.plugin.dispatching import begin_dispatch
from pytest_manifest.plugin.manifest_store import Waiting, report_unselected
from pytest_manifest.plugin.runtest import SHORT, Verifying
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.verdict_reader import VerdictReader
from pytest_manifest.reporting.junit import take_time_of_job

if TYPE_CHECKING:
    from pytest_manifest.reporting.run_report import RunReport


_HOOKS: Final = (
    "pyfunc_call",
    *map("runtest_{}".format, outcome.PHASES),
    "runtest_protocol",
    "runtest_makereport",
)
"""The hooks that are left out: only pytest's and known plugins may implement them."""
_REPORTING: Final = "runtest_logstart", "runtest_logreport", "runtest_logfinish"
"""The hooks that are always called."""
_KNOWN: Final = frozenset(
    {
        Verifying.__module__,
        outcome.__name__,  # marks skipped tests, and keeps apart the logs of others
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


class ShortProtocol:
    """Run tests by the short protocol; a plugin for one session."""

    def __init__(self) -> None:
        self._alone: bool | None = None
        self._followed: bool | None = None
        self._unmarked: dict[pytest.Collector, bool] = {}

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
        if not isinstance(item, BuiltinItem) or not self._may_be_short(item, nextitem):
            return False
        binding, reader = binding_of(item), manifest_session(item.config).verdicts
        if binding is None or binding.entry is None or reader is None:
            return False
        began = time.time(), time.perf_counter()
        stored = reader.verdict(binding)
        if stored is None or stored.status != "passed":
            return False
        rows = outcome.properties_of(binding.entry, stored, reader.runs[binding.manifest].id)
        os.environ[_CURRENT] = f"{item.nodeid} (call)".replace("\0", "(null)")
        hook = item.ihook  # once: each time pytest looks up which conftest files are there
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        outcome.record_properties(item, rows)
        _report(item, hook, *began)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        let_go_of_arguments(item)
        return True

    def _may_be_short(self, item: pytest.Function, nextitem: pytest.Item | None) -> bool:
        """Check that nothing but the built-in verification belongs to this test."""
        parent = item.parent
        # The last test of a file tears down the file's fixtures in the usual way.
        if parent is None or nextitem is None or nextitem.parent is not parent:
            return False
        if item.fixturenames != [BUILTIN_ENTRY] or _is_marked(item):
            return False
        if self._alone is None:
            self._alone = _is_alone(item.config)
        if parent not in self._unmarked:
            above = [node for node in parent.listchain() if isinstance(node, pytest.Collector)]
            self._unmarked[parent] = all(
                type(node).setup is pytest.Collector.setup and not _is_marked(node)
                for node in above
            )
        return self._alone and self._unmarked[parent]


def _report(item: pytest.Item, hook: HookRelay, start: float, clock: float) -> None:
    """Report the three phases; the time of the first is that of looking the verdict up."""
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    name = item.id if hasattr(item, "id") else item.nodeid  # before pytest 9.1 a text alone
    reports: list[pytest.TestReport] = []
    passed = partial(pytest.TestReport, name, item.location, keywords, "passed", None)
    rows = item.user_properties
    for phase in outcome.PHASES:
        if phase == "teardown":
            os.environ.pop(_CURRENT, None)
        took = time.perf_counter() - clock
        report = passed(phase, duration=took, start=start, stop=time.time(), user_properties=rows)
        take_time_of_job(report)
        hook.pytest_runtest_logreport(report=report)
        start, clock = time.time(), time.perf_counter()
        reports.append(report)
    for report in reports:  # pytest keeps all reports: let them share one list
        if report.user_properties == rows:
            report.user_properties = rows


def _is_alone(config: pytest.Config) -> bool:
    """Check that no unknown plugin implements the hooks that are left out.

    Nor does pytest.ini have tests run again, which all reports then count.
    """
    reruns = False
    with suppress(ValueError):  # no plugin declares such an option
        reruns = bool(config.getini("reruns"))
    if reruns or any(config.getoption(name, False) for name in _OPTIONS):
        return False
    return _plugins(config, *_HOOKS) <= _KNOWN | _FOLLOWERS


def _is_followed(config: pytest.Config) -> bool:
    """Check whether a plugin needs the call of ``pytest_runtest_protocol`` around each test.

    A plugin does that follows tests by this hook. So does an unknown plugin with a reporting hook:
    it may warn there, and pytest catches warnings around ``pytest_runtest_protocol``.
    """
    return bool(_FOLLOWERS & _plugins(config, "runtest_protocol")) or not all(
        name.startswith("pytest_manifest.") for name in _plugins(config, *_REPORTING)
    )


def _plugins(config: pytest.Config, *hooks: str) -> set[str]:
    """Return the modules of the plugins that implement one of these hooks, pytest's own aside."""
    callers = [getattr(config.hook, f"pytest_{name}") for name in hooks]
    plugins = [one.plugin for caller in callers for one in caller.get_hookimpls()]
    names = {str(getattr(one, "__name__", "") or type(one).__module__) for one in plugins}
    return {name for name in names if not name.startswith("_pytest.")}


def _is_marked(node: pytest.Item | pytest.Collector) -> bool:
    return bool(node.own_markers) and any(mark.name in _MARKERS for mark in node.own_markers)


def run_tests(session: pytest.Session, state: ManifestSession) -> bool | None:
    """Dispatch what was selected, then run each test when its verdict is there, without xdist.

    Returns None where pytest's own loop has to run the tests. Raises pytest.UsageError where the
    dispatch is refused, and session.Failed where a ledger cannot be read any more.
    """
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None  # pytest's own loop reports the errors; nothing is sent
    if not bindings_of(session.items):
        report_unselected(state.selection, state.report.notices)
        return None
    with ending_session(session):
        begin_dispatch(session, lambda: tests_of(session.items))
        if state.options.dispatch_only:
            _wait_until_sent(state.report)
        elif state.context.wants_file_order:
            return None
        else:
            _run_as_completed(session, state)
    return True


def _wait_until_sent(report: RunReport) -> None:
    """Wait for the last message. Raises pytest.UsageError where none of any run may be sent."""
    for run in report.runs:
        while not run.all_sent.wait(0.2):
            report.poll()
    errors = [str(run.error) for run in report.runs if run.error is not None]
    if errors and not any(map(run_history.sent, (run.ledger_path for run in report.runs))):
        raise pytest.UsageError("; ".join(errors))


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
        self._waiting = Waiting[pytest.Item]()
        self._left = Counter(map(_parent, items))
        self._stand_ins: dict[pytest.Collector, StandIn] = {}
        for item in items:
            if not self._waiting.add(item, binding_of(item)):
                self._make_ready([item])

    @property
    def empty(self) -> bool:
        return not self._left

    def absorb(self, reader: VerdictReader, *, over: bool = False) -> None:
        """Make the tests ready that new verdicts are of; all where no further one will come."""
        for items in self._waiting.due(reader, over=over):
            self._make_ready(items)

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


def _run_as_completed(session: pytest.Session, state: ManifestSession) -> None:
    """Run the session's items, each when its verdict is there.

    Raises session.Failed and session.Interrupted as pytest's own loop does.
    """
    reader, changed = state.verdicts, state.session_runs.changed
    assert reader is not None
    agenda, short = Agenda(session.items), session.config.pluginmanager.get_plugin(SHORT)
    previous: pytest.Item | None = None
    item: pytest.Item | None = None
    while not (item is None and agenda.empty):
        if item is None:
            item = _next_ready(agenda, reader, previous, state)
        elif changed.is_set():
            changed.clear()
            agenda.absorb(reader)
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
    agenda: Agenda, reader: VerdictReader, previous: pytest.Item | None, state: ManifestSession
) -> pytest.Item:
    """Wait for an item that may run; one without a verdict at the run's end reports that."""
    session_runs = state.session_runs
    while True:
        agenda.absorb(reader, over=session_runs.all_ended())
        item = agenda.take(after=previous)
        if item is not None:
            return item
        session_runs.wait_for_change()
