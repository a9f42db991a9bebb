"""Report, after Ctrl-C, the tests of entries that the run has judged though pytest had stopped.

What was taken back is skipped with its reason, and what has ended meanwhile is reported as ever, so
that pytest's count and the run's are the same.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pytest_manifest.bindings import Binding, binding_of
from pytest_manifest.plugin.outcome import properties_of
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.text import many

if TYPE_CHECKING:
    from pytest_manifest.ledger import StoredVerdict

SECONDS: Final = 10.0
"""Seconds that are spent on it at most: a person waits for the prompt."""
_END: Final = 60.0
"""Seconds, beyond the time that running jobs are given, in which a run has ended."""


class AfterInterrupt:
    """Report the rest when the test loop was interrupted; a plugin for one session."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        try:
            return (yield)
        except KeyboardInterrupt:
            interrupts = manifest_session(session.config).session_runs.interrupts
            if interrupts is not None:
                interrupts.notice()
                _complete(session)
            raise


def _complete(session: pytest.Session) -> None:
    """Wait until the runs have ended, then report the tests that pytest has not reached.

    Tests of a project's own are not run any more: only the built-in ones, and what is skipped.
    """
    state = manifest_session(session.config)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not state.report.runs or state.verdicts is None:
        return
    until = time.monotonic() + state.context.options.grace + _END
    for run in state.report.runs:
        while not run.ended.wait(0.05) and time.monotonic() < until:
            state.report.poll()
    state.verdicts.refresh()
    state.verdicts.forget()
    reported = {
        one.nodeid
        for category, reports in reporter.stats.items()
        for one in reports
        if category and hasattr(one, "nodeid")  # without a name: parts of tests that passed
    }
    if state.context.role == "controller":
        left = _report_rest(
            session, state, (one for one in _tests(session) if one[0] not in reported)
        )
    else:
        items = [one for one in session.items if one.nodeid not in reported]
        left = _run_rest(session, state, items)
    if left:
        state.report.notices.append(
            f"{many(left, 'test')} of jobs with a verdict did not run any more; --manifest-audit "
            "runs them, and sends nothing"
        )


def _run_rest(session: pytest.Session, state: ManifestSession, items: Sequence[pytest.Item]) -> int:
    """Run the tests that need no more than the verdict; return how many others there are."""
    from pytest_manifest.plugin.runtest import NAME, Verifying

    verifying = session.config.pluginmanager.get_plugin(NAME)
    if isinstance(verifying, Verifying) and verifying.was_broken_off:
        # What that test has set up is still there, so that no other one can be run.
        return _report_rest(session, state, ((one.nodeid, known) for one, known in _bound(items)))
    judged = [(item, binding) for item, binding in _bound(items) if _verdict(state, binding)]
    due = [item for item, binding in judged if _is_short(state, binding)]
    until = time.monotonic() + SECONDS
    for number, item in enumerate(due):
        if time.monotonic() > until or _is_forced(state):
            return len(judged) - number
        following = due[number + 1] if number + 1 < len(due) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return len(judged) - len(due)


def _tests(session: pytest.Session) -> Iterator[tuple[str, Binding]]:
    """Yield the tests of xdist's workers, and what they verify."""
    from pytest_manifest.plugin.xdist_controller import ControllerHooks

    hooks = session.config.pluginmanager.get_plugin("manifest-controller")
    return hooks.tests() if isinstance(hooks, ControllerHooks) else iter(())


def _report_rest(
    session: pytest.Session, state: ManifestSession, tests: Iterable[tuple[str, Binding]]
) -> int:
    """Report what needs no test of a project's own, without running it; return how many do."""
    left = 0
    until = time.monotonic() + SECONDS
    for nodeid, binding in tests:
        stored = _verdict(state, binding)
        if stored is None:
            continue
        if _is_short(state, binding) and time.monotonic() <= until and not _is_forced(state):
            for report in _reports(state, nodeid, binding, stored):
                session.config.hook.pytest_runtest_logreport(report=report)
        else:
            left += 1
    return left


def _bound(items: Iterable[pytest.Item]) -> Iterator[tuple[pytest.Item, Binding]]:
    return ((item, binding) for item in items if (binding := binding_of(item)) is not None)


def _verdict(state: ManifestSession, binding: Binding) -> StoredVerdict | None:
    return None if state.verdicts is None else state.verdicts.verdict(binding)


def _is_short(state: ManifestSession, binding: Binding) -> bool:
    """Return whether a test with this verdict runs nothing of the project's."""
    from pytest_manifest.verdict import outcome

    stored = _verdict(state, binding)
    return stored is not None and (binding.builtin or outcome(stored.status) == "skipped")


def _is_forced(state: ManifestSession) -> bool:
    return any(run.is_forced_to_stop for run in state.report.runs)


def _reports(
    state: ManifestSession, nodeid: str, binding: Binding, stored: StoredVerdict
) -> Iterator[pytest.TestReport]:
    """Yield the reports of a test that nobody runs."""
    from pytest_manifest.verdict import outcome

    assert state.verdicts is not None
    sentence = stored.parse().verdict.sentence
    found = outcome(stored.status)
    file, _, name = nodeid.partition("::")
    rows = properties_of(binding.entry or "", stored, state.verdicts.run_of(binding))
    bad = "call" if found == "failed" else "setup"
    phases: Sequence[Literal["setup", "call", "teardown"]] = ("setup", "call", "teardown")
    for phase in phases:
        if phase == "call" and bad == "setup" and found != "passed":
            continue
        ended: Literal["passed", "failed", "skipped"] = "passed"
        reason: str | tuple[str, int, str] | None = None
        if phase == bad and found == "skipped":
            line = state.manifests.load(binding.manifest).line_of(binding.entry or "")
            ended, reason = "skipped", (str(binding.manifest), line, sentence)
        elif phase == bad and found != "passed":
            ended, reason = "failed", sentence
        yield pytest.TestReport(
            nodeid=nodeid,
            location=(file, None, name),
            keywords={"skip": 1} if found == "skipped" else {},
            outcome=ended,
            longrepr=reason,
            when=phase,
            user_properties=list(rows),
        )
