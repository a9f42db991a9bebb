"""Run the built-in test of a passed entry without those steps in which nothing happens.

pytest sets a test up, calls it and tears it down by some forty hooks, which do nothing for a test
that has no fixtures and no output. Here such a test gets its reports, and the hooks that report it,
and no more. Whatever may have something to do in those steps (a hook of a plugin or conftest.py, an
autouse fixture, a marker, an option) brings the usual protocol back, as does any verdict but
"passed".
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, binding_of
from pytest_manifest.compat.pytest import let_go_of_arguments
from pytest_manifest.plugin.collection import EntryItem
from pytest_manifest.plugin.outcome import FailedOnce, properties_of, record_properties
from pytest_manifest.plugin.runtest import SHORT, Verifying
from pytest_manifest.plugin.session import manifest_session

if TYPE_CHECKING:
    from typing_extensions import Self

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
    return getattr(plugin, "follows_short_protocol", False) is True or _module(plugin) in _FOLLOWERS


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
