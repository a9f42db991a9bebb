"""Listen in place of allure-pytest, and spare it the tests in which it would find nothing.

The built-in test of an entry has no body and no fixtures of the project's. What Allure shows of it
is in the run's ledger, and allure-pytest's hooks around each phase would cost more than the test
itself. Whatever another plugin adds to such a test (an attachment, a label, a step) is added to its
result as with any other test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, Binding, binding_of, is_builtin
from pytest_manifest.compat.allure import close_result, container_of, open_result
from pytest_manifest.compat.pytest import fixture_table, fixtures_of_definition
from pytest_manifest.reporting.allure.told import Raw, Told

Wrapping = Generator[None, Any, None]
"""An old-style hook wrapper, as allure-pytest's are: pluggy sends it the call's result."""

_PLAIN = frozenset({BUILTIN_ENTRY, "request"})


class EntryListener:
    """Listen in place of ``theirs``, allure-pytest's listener, and forward every other test to it.

    ``take`` is called with each test of an entry when it is over.
    """

    follows_short_protocol = True
    """Under the short protocol ``pytest_runtest_protocol`` and the reports are enough."""

    def __init__(self, theirs: Any, take: Callable[[Told], None]) -> None:  # it has no types
        self._theirs = theirs
        self._take = take
        self._shared = _SharedFixtures(theirs)
        self._told: Told | None = None
        self._item: pytest.Item | None = None
        self._binding: Binding | None = None
        self._turn = 0
        # All other hooks go to allure-pytest's listener itself.
        for name in dir(theirs):
            if name.startswith("pytest_") and not hasattr(type(self), name):
                setattr(self, name, getattr(theirs, name))

    def __getattr__(self, name: str) -> object:
        """Return an attribute of allure-pytest's listener, for plugins that look it up by name."""
        return getattr(self._theirs, name)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Wrapping:
        binding = binding_of(item)
        if binding is None or not self._is_plain(item, binding):
            self._item, self._binding, self._turn = item, binding, 0
            yield from self._theirs.pytest_runtest_protocol(item=item, nextitem=nextitem)
            self._item = self._binding = None
            return
        self._told = told = self._begin(item, binding)
        yield
        self._told = None
        self._end(told)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Wrapping:
        if self._told is None:
            yield from self._theirs.pytest_runtest_setup(item=item)
        else:
            yield
            self._shared.note(item, self._told.raw)  # now: the last teardown ends them

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Wrapping:
        if self._told is None:
            yield from self._theirs.pytest_runtest_call(item=item)
        else:
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Wrapping:
        if self._told is None:
            yield from self._theirs.pytest_runtest_teardown(item=item)
        else:
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Wrapping:
        if self._told is None:
            yield from self._theirs.pytest_runtest_makereport(item=item, call=call)
            return
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        if call.excinfo is not None or not report.passed or report.sections:
            asked = self._theirs.pytest_runtest_makereport(item=item, call=call)
            next(asked)
            _end(asked, outcome)
        elif report.when == "setup":
            self._told.raw.status = "passed"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Under the short protocol only reports come. A failed test may have its status by now:
        # pytest-rerunfailures reports all phases at their end.
        told = self._told
        if told is not None and report.passed and told.raw.status is None:
            told.raw.status = "passed"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_logfinish(
        self, nodeid: str, location: tuple[str, int | None, str]
    ) -> Wrapping:
        if self._told is None:
            yield from self._theirs.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        else:
            yield

    @property
    def group(self) -> tuple[pytest.Item, Binding] | None:
        """Return the running test and its binding if it is of a group of entries, else None."""
        if self._item is None or self._binding is None or self._binding.group is None:
            return None
        return self._item, self._binding

    def take(self, raw: Raw) -> bool:
        """Take a result of allure-pytest's if it is of an entry's test; return whether it is."""
        item, binding = self._item, self._binding
        if item is None or binding is None or binding.entry is None:
            return False
        self._take(Told(item, binding, raw, self._turn))
        self._turn += 1
        return True

    def complete(self, told: Told) -> None:
        """Have allure-pytest fill in its own result of a test that the ledger could not provide."""
        reporter = self._theirs.allure_logger
        reporter.schedule_test(open_result(self._theirs, told.item.nodeid), told.raw)
        for phase in (self._theirs.pytest_runtest_setup, self._theirs.pytest_runtest_teardown):
            asked = phase(item=told.item)
            next(asked)
            _end(asked, None)
        reporter.drop_test(close_result(self._theirs, told.item.nodeid))

    def _begin(self, item: pytest.Item, binding: Binding) -> Told:
        from allure_commons.model2 import TestResult
        from allure_commons.utils import now

        uuid = open_result(self._theirs, item.nodeid)
        raw = TestResult(name=item.name, uuid=uuid, start=now(), stop=0)
        self._theirs.allure_logger.schedule_test(uuid, raw)
        return Told(item, binding, raw, plain=True)

    def _end(self, told: Told) -> None:
        from allure_commons.utils import now

        raw = told.raw
        self._theirs.allure_logger.drop_test(close_result(self._theirs, told.item.nodeid))
        raw.stop = now()
        if raw.status is None:
            raw.status = "skipped"
        self._take(told)

    def _is_plain(self, item: pytest.Item, binding: Binding) -> bool:
        """Return whether a test is built-in, without a marker, parameter or fixture of its own."""
        if binding.entry is None or not isinstance(item, pytest.Function):
            return False
        callspec = item.callspec
        return (
            is_builtin(item)
            and len(callspec.params) == 1
            and not item.own_markers
            and not self._shared.marked(item.parent)
            and self._shared.only(item)
        )


class _SharedFixtures:
    """Find fixtures that were set up for many tests, and the containers that list these tests."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self._marked: dict[pytest.Collector, bool] = {}
        self._last: tuple[object, Sequence[object] | None] = (None, None)

    def marked(self, parent: object) -> bool:
        """Return whether the collector of a test, or one around it, has a marker of its own."""
        assert isinstance(parent, pytest.Collector)
        if parent not in self._marked:
            self._marked[parent] = any(node.own_markers for node in parent.listchain())
        return self._marked[parent]

    def only(self, item: pytest.Function) -> bool:
        """Return whether all fixtures of the test but ours have a wider scope than the test."""
        return self._of(item) is not None

    def note(self, item: pytest.Item, raw: Raw) -> None:
        """Add the test to the containers of its shared fixtures, so that Allure shows them."""
        assert isinstance(item, pytest.Function)
        for definition in self._of(item) or ():
            container = container_of(self._theirs, definition)
            if container is not None:
                container.children.append(raw.uuid)

    def _of(self, item: pytest.Function) -> Sequence[object] | None:
        table = fixture_table(item)
        if self._last[0] is not table:
            self._last = table, _shared(item)
        return self._last[1]


def _shared(item: pytest.Function) -> Sequence[object] | None:
    """Return the definitions of the test's fixtures but ours; None if one has function scope."""
    found: list[object] = []
    for name in set(item.fixturenames) - _PLAIN:
        for definition in fixtures_of_definition(item, name):
            if definition.scope == "function":
                return None
            found.append(definition)
    return found


def _end(asked: Generator[None, object, None], outcome: object) -> None:
    """Send a hook wrapper the result that it waits for; raise AssertionError if it yields again."""
    try:
        asked.send(outcome)
    except StopIteration:
        return
    raise AssertionError("a hook wrapper yields once")
