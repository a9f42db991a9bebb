"""Stand in for allure-pytest's listener, and for the file logger of allure-commons.

The built-in test of an entry has no body and no fixtures of the project's. What Allure shows of it
is in the run's ledger, and allure-pytest's hooks around each phase would cost more than the test
itself, so that it is spared them. Whatever another plugin adds to such a test (an attachment, a
label, a step) is added to its result as with any other test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import pytest
from pluggy import HookimplMarker

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, Binding, binding_of, is_builtin
from pytest_manifest.compat.allure import close_result, container_of, open_result
from pytest_manifest.compat.pytest import fixture_table, fixtures_of_definition
from pytest_manifest.reporting.allure.content import unwritten_message
from pytest_manifest.reporting.allure.finished_test import AllureResult, FinishedTest

HookWrapper = Generator[None, Any, None]
"""An old-style hook wrapper, as allure-pytest's are: pluggy sends it the call's result."""

_BUILTIN_FIXTURES = frozenset({BUILTIN_ENTRY, "request"})


class EntryListener:
    """Listen in place of allure-pytest's ``listener``, and forward every other test to it.

    ``take`` is called with each test of an entry when it is over.
    """

    follows_short_protocol = True
    """Under the short protocol ``pytest_runtest_protocol`` and the reports are enough."""

    def __init__(
        self, listener: Any, take: Callable[[FinishedTest], None]
    ) -> None:  # it has no types
        self._listener = listener
        self._take = take
        self._shared = _SharedFixtures(listener)
        self._test: FinishedTest | None = None
        self._item: pytest.Item | None = None
        self._binding: Binding | None = None
        self._repetition = 0
        # All other hooks go to allure-pytest's listener itself.
        for name in dir(listener):
            if name.startswith("pytest_") and not hasattr(type(self), name):
                setattr(self, name, getattr(listener, name))

    def __getattr__(self, name: str) -> object:
        """Return an attribute of allure-pytest's listener, for plugins that look it up by name."""
        return getattr(self._listener, name)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> HookWrapper:
        binding = binding_of(item)
        if binding is None or not self._is_unmarked(item, binding):
            self._item, self._binding, self._repetition = item, binding, 0
            yield from self._listener.pytest_runtest_protocol(item=item, nextitem=nextitem)
            self._item = self._binding = None
            return
        self._test = test = self._begin(item, binding)
        yield
        self._test = None
        self._end(test)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> HookWrapper:
        if self._test is None:
            yield from self._listener.pytest_runtest_setup(item=item)
        else:
            yield
            self._shared.note(item, self._test.result)  # now: the last teardown ends them

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> HookWrapper:
        if self._test is None:
            yield from self._listener.pytest_runtest_call(item=item)
        else:
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> HookWrapper:
        if self._test is None:
            yield from self._listener.pytest_runtest_teardown(item=item)
        else:
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> HookWrapper:
        if self._test is None:
            yield from self._listener.pytest_runtest_makereport(item=item, call=call)
            return
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        if call.excinfo is not None or not report.passed or report.sections:
            wrapper = self._listener.pytest_runtest_makereport(item=item, call=call)
            next(wrapper)
            _end(wrapper, outcome)
        elif report.when == "setup":
            self._test.result.status = "passed"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Under the short protocol only reports come. A failed test may have its status by now:
        # pytest-rerunfailures reports all phases at their end.
        test = self._test
        if test is not None and report.passed and test.result.status is None:
            test.result.status = "passed"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_logfinish(
        self, nodeid: str, location: tuple[str, int | None, str]
    ) -> HookWrapper:
        if self._test is None:
            yield from self._listener.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        else:
            yield

    @property
    def group(self) -> tuple[pytest.Item, Binding] | None:
        """Return the running test and its binding if it is of a group of entries, else None."""
        if self._item is None or self._binding is None or self._binding.group is None:
            return None
        return self._item, self._binding

    def take(self, result: AllureResult) -> bool:
        """Take a result of allure-pytest's if it is of an entry's test; return whether it is."""
        item, binding = self._item, self._binding
        if item is None or binding is None or binding.entry is None:
            return False
        self._take(FinishedTest(item, binding, result, self._repetition))
        self._repetition += 1
        return True

    def complete(self, test: FinishedTest) -> None:
        """Have allure-pytest fill in its own result of a test that the ledger could not provide."""
        reporter = self._listener.allure_logger
        reporter.schedule_test(open_result(self._listener, test.item.nodeid), test.result)
        for phase in (self._listener.pytest_runtest_setup, self._listener.pytest_runtest_teardown):
            wrapper = phase(item=test.item)
            next(wrapper)
            _end(wrapper, None)
        reporter.drop_test(close_result(self._listener, test.item.nodeid))

    def _begin(self, item: pytest.Item, binding: Binding) -> FinishedTest:
        from allure_commons.model2 import TestResult
        from allure_commons.utils import now

        uuid = open_result(self._listener, item.nodeid)
        result = TestResult(name=item.name, uuid=uuid, start=now(), stop=0)
        self._listener.allure_logger.schedule_test(uuid, result)
        return FinishedTest(item, binding, result, unfilled=True)

    def _end(self, test: FinishedTest) -> None:
        from allure_commons.utils import now

        result = test.result
        self._listener.allure_logger.drop_test(close_result(self._listener, test.item.nodeid))
        result.stop = now()
        if result.status is None:
            result.status = "skipped"
        self._take(test)

    def _is_unmarked(self, item: pytest.Item, binding: Binding) -> bool:
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

    def __init__(self, listener: Any) -> None:
        self._listener = listener
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

    def note(self, item: pytest.Item, result: AllureResult) -> None:
        """Add the test to the containers of its shared fixtures, so that Allure shows them."""
        assert isinstance(item, pytest.Function)
        for definition in self._of(item) or ():
            container = container_of(self._listener, definition)
            if container is not None:
                container.children.append(result.uuid)

    def _of(self, item: pytest.Function) -> Sequence[object] | None:
        table = fixture_table(item)
        if self._last[0] is not table:
            self._last = table, _shared(item)
        return self._last[1]


def _shared(item: pytest.Function) -> Sequence[object] | None:
    """Return the definitions of the test's fixtures but ours; None if one has function scope."""
    found: list[object] = []
    for name in set(item.fixturenames) - _BUILTIN_FIXTURES:
        for definition in fixtures_of_definition(item, name):
            if definition.scope == "function":
                return None
            found.append(definition)
    return found


def _end(wrapper: Generator[None, object, None], outcome: object) -> None:
    """Send a hook wrapper the result that it waits for; raise AssertionError if it yields again."""
    try:
        wrapper.send(outcome)
    except StopIteration:
        return
    raise AssertionError("a hook wrapper yields once")


# The file logger

hookimpl = HookimplMarker("allure")
_LEDGER_FIXTURES: Final = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "receipt", "manifest"})
"""Fixtures that only read the ledger, so that Allure need not show their times."""


class Fixture(Protocol):
    """A fixture of a container of allure-pytest's."""

    name: str
    status: str | None
    steps: list[object]
    attachments: list[object]


class Container(Protocol):
    """Fixtures of some tests, as allure-pytest reports them."""

    children: list[str | None]
    befores: list[Fixture]
    afters: list[Fixture]


class FileLogger(Protocol):
    """allure-commons' own logger, which writes files."""

    def report_result(self, result: AllureResult) -> None: ...
    def report_container(self, container: Container) -> None: ...
    def report_attached_file(self, source: str, file_name: str) -> None: ...
    def report_attached_data(self, body: object, file_name: str) -> None: ...
    def report_globals(self, globals_item: object) -> None: ...


class EntryLogger:
    """Forward everything to ``files`` but the results that ``take`` accepts.

    ``not_written`` takes the message about a file that cannot be written: raised on, that would be
    an error of the test that is running.
    """

    def __init__(
        self,
        files: FileLogger,
        take: Callable[[AllureResult], bool],
        not_written: Callable[[str], None],
    ) -> None:
        self._files = files
        self._take = take
        self._not_written = not_written

    @hookimpl
    def report_result(self, result: AllureResult) -> None:
        if not self._take(result):
            with unwritten_noted(self._not_written):
                self._files.report_result(result)

    @hookimpl
    def report_container(self, container: Container) -> None:
        fixtures = [*container.befores, *container.afters]
        if not all(map(_is_uninformative, fixtures)):
            # The item that dispatches is no test and has no result.
            container.children = [uuid for uuid in container.children if uuid is not None]
            with unwritten_noted(self._not_written):
                self._files.report_container(container)

    @hookimpl
    def report_attached_file(self, source: str, file_name: str) -> None:
        with unwritten_noted(self._not_written):
            self._files.report_attached_file(source, file_name)

    @hookimpl
    def report_attached_data(self, body: object, file_name: str) -> None:
        if isinstance(body, str):  # a log line may hold a lone surrogate
            body = body.encode("utf-8", errors="backslashreplace")
        with unwritten_noted(self._not_written):
            self._files.report_attached_data(body, file_name)

    @hookimpl
    def report_globals(self, globals_item: object) -> None:
        with unwritten_noted(self._not_written):
            self._files.report_globals(globals_item)


@contextmanager
def unwritten_noted(not_written: Callable[[str], None]) -> Iterator[None]:
    """Note an OSError of writing one of Allure's files, and go on."""
    try:
        yield
    except OSError as error:
        not_written(unwritten_message(error))


def _is_uninformative(fixture: Fixture) -> bool:
    name = fixture.name.partition("::")[0]  # a finalizer is called "fixture::finalizer"
    passed = fixture.status == "passed"
    return passed and name in _LEDGER_FIXTURES and not (fixture.steps or fixture.attachments)
