"""Begin and end a session that has a manifest or a plan: from its options to its exit status.

Have pytest-cov find what it measured in the workers of a private stack.

Name what a project's settings for its tests do to a batch, which is no test.

Report, after Ctrl-C, the tests of entries that the run has judged though pytest had stopped.

What was taken back is skipped with its reason, and what has ended meanwhile is reported as ever, so
that pytest's count and the run's are the same.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pytest_manifest.bindings import Binding, binding_of
from pytest_manifest.ini import BATCH_INI
from pytest_manifest.plugin.collection import collection_arguments
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.outcome import properties_of
from pytest_manifest.plugin.plans import fixture_name
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.synthetic import synthetic_item
from pytest_manifest.text import listed, many, short_path

if TYPE_CHECKING:
    from pytest_manifest.ledger import StoredVerdict
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.reporting.run_report import ManifestLine, PlanReport
    from pytest_manifest.run import Run


_SHOWN: Final = 5
"""Variables that are named."""
_COUNTED: Final = {"--cov": "pytest-cov", "-n": "pytest-xdist", "--numprocesses": "pytest-xdist"}
"""Options that start a plugin, where pytest's settings have them in ``addopts``."""


def settings_notice(config: pytest.Config) -> str | None:
    """Return a notice of the plugins that are active in this session by settings for tests.

    What the command line itself asks for is meant; so is a file that it names with ``-c``, but for
    the variables that pytest-env finds in pyproject.toml nevertheless. None where there is none.
    """
    found = [*_variables(config)]
    if not config.option.inifilename:
        found += [*_database(config), *_by_addopts(config)]
    if not found:
        return None
    return (
        f"settings for tests act on this batch, too: {', '.join(found)}; 'manifest init' writes a "
        f"{BATCH_INI} without them, for pytest -c {BATCH_INI}"
    )


def _variables(config: pytest.Config) -> Iterator[str]:
    """Yield pytest-env, with the variables that it sets by settings that pytest has read."""
    if not config.pluginmanager.hasplugin("env"):
        return
    names: list[str] = []
    with suppress(ValueError, KeyError):  # it has no such setting
        for line in config.getini("env"):
            name, equals, _ = str(line).partition("=")
            names += [name.rpartition(":")[2].strip()] if equals else []
    toml = config.rootpath / "pyproject.toml"
    with suppress(OSError):
        if not names and b"[tool.pytest_env" in toml.read_bytes():
            names.append("those of [tool.pytest_env]")
    if names:
        yield f"pytest-env (sets {listed(names, _SHOWN)})"


def _database(config: pytest.Config) -> Iterator[str]:
    if config.pluginmanager.hasplugin("django") and os.environ.get("DJANGO_SETTINGS_MODULE"):
        yield "pytest-django (blocks the database to plans)"


def _by_addopts(config: pytest.Config) -> Iterator[str]:
    """Yield the plugins that ``addopts`` starts."""
    given = [str(one) for one in config.getini("addopts")]
    for option, plugin in _COUNTED.items():
        if any(one.startswith(option) for one in given):
            yield f"{plugin} ({option} in addopts)"


NAME = "manifest-coverage"


class EndOfStack:
    """End the session's runs and stack within the loop of tests, at whose end pytest-cov reports.

    A worker's processes write what was measured in them when they end.
    """

    def __init__(self, state: ManifestSession) -> None:
        self._state = state

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        result = yield
        self._state.session_runs.stop_everything()
        return result


def end_before_coverage(state: ManifestSession) -> None:
    """Register :class:`EndOfStack`, once, where pytest-cov measures this session."""
    config = state.context.config
    manager = config.pluginmanager
    if config.getoption("cov_source", None) and not manager.hasplugin(NAME):  # --cov
        manager.register(EndOfStack(state), NAME)


def configure_active(config: pytest.Config, state: ManifestSession) -> None:
    """Collect just the manifests' tests, unless the user named paths."""
    options = state.context.options
    if "django.conf" in sys.modules:
        from pytest_manifest.results.django_results import remember_databases

        remember_databases()
    if options.plan:
        state.plans.known.target = options.files[0] if options.files else None
        return
    if state.context.role != "worker":
        _start_early(state)
    _collect_only_ours(config, state.manifests)


def _collect_only_ours(config: pytest.Config, manifests: ManifestStore) -> None:
    arguments = collection_arguments(manifests)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = arguments


def _start_early(state: ManifestSession) -> None:
    """Start the embedded stack, so that it comes up while pytest collects tests.

    First raises pytest.UsageError for a report that cannot be written.
    """
    state.session_runs.take_signals()
    end_before_coverage(state)
    options = state.context.options
    if options.may_dispatch and not state.manifests.shard_is_empty:
        from pytest_manifest.plugin.option_conflicts import refuse_unwritable
        from pytest_manifest.plugin.stacks import start_stack_early

        refuse_unwritable(state.context.config, options)
        notice = None if options.audit else settings_notice(state.context.config)
        if notice is not None:
            state.report.notices.append(notice)
        start_stack_early(state.session_runs, state.manifests)


def collect_plan(session: pytest.Session, state: ManifestSession) -> bool | None:
    """Collect the item of ``--manifest-plan``; with ``--manifest-plan-run`` plan first.

    Returns None where pytest has to collect the tests of the manifest that was planned.
    """
    options, coordination = state.context.options, state.context.coordination
    assert options.plan is not None
    if not options.plan_run or not options.may_dispatch:
        _collect_plan_item(session, state, options.plan)
        return True
    if state.context.role == "worker":
        assert coordination is not None
        path = coordination.wait_for_plan(options.plan)
        manifest = None if path is None else state.manifests.load(path)
    else:
        manifest = _plan_to_run(session, state, options.plan)
    if manifest is None:
        state.plans.is_empty = True
        session.perform_collect([])
        return True
    state.manifests.add_file(manifest.path.resolve())
    _collect_only_ours(session.config, state.manifests)
    return None


def _plan_to_run(session: pytest.Session, state: ManifestSession, name: str) -> Manifest | None:
    """Plan in the process that dispatches; publish that to xdist workers, also if it fails."""
    state.session_runs.take_signals()  # so that a planner's fixtures are torn down on a signal
    published, coordination = False, state.context.coordination
    try:
        manifest = state.plans.plan_alone(session, name, state.context.options.plan_options)
        if coordination is not None:
            coordination.publish_plan(name, None if manifest is None else manifest.path)
            published = True
        if manifest is not None:
            state.manifests.add_file(manifest.path.resolve())
            _start_early(state)
        return manifest
    finally:
        if coordination is not None and not published:
            coordination.publish_plan(name, None)


def _collect_plan_item(session: pytest.Session, state: ManifestSession, name: str) -> None:
    state.session_runs.take_signals()
    plans = state.plans
    spec = plans.find(name, state.context.options.plan_options)
    fixture = fixture_name(spec)

    def body(**values: Manifest | None) -> None:
        manifest = values[fixture]
        if manifest is None:
            plans.is_empty = True
        else:
            plans.record(manifest)

    session.items = [synthetic_item(session, f"plan[{spec.name}]", body, fixture)]
    session.testscollected = 1
    session.config.hook.pytest_collection_finish(session=session)


def finish(session: pytest.Session, state: ManifestSession) -> None:
    """Write what the runs leave behind, and set the exit status.

    pytest has torn down the last fixture by then. An xdist worker does nothing.
    """
    if state.context.role == "worker":
        return
    session_runs, runs = state.session_runs, state.session_runs.runs
    session_runs.stop_everything()
    if session_runs.interrupts is not None:
        session_runs.interrupts.report_status()
    for run in runs:
        session.config.hook.pytest_manifest_finished(config=session.config, run=run)
    code = session.exitstatus
    sent_only = state.context.options.dispatch_only and bool(runs)
    nothing_to_do = state.plans.is_empty or state.manifests.shard_is_empty or sent_only
    if nothing_to_do and code == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
    elif code == pytest.ExitCode.OK and (
        state.report.lacks_artifacts
        or (sent_only and any(run.error is not None for run in runs))
        or any(_is_worse_than_shown(run) or run.is_over_budget() for run in runs)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_worse_than_shown(run: Run) -> bool:
    """Check whether the run has corrected a "passed" that its test may have shown."""
    return any(c.before == "passed" != c.verdict.verdict for c in run.corrections)


# What reporters show of the session


def manifest_lines(manifests: ManifestStore) -> Iterator[ManifestLine]:
    """Yield the line of pytest's header about each manifest of the session."""
    from pytest_manifest.reporting.run_report import ManifestLine

    shard, root = manifests.options.shard, manifests.options.root
    for path in manifests.files:
        manifest = manifests.loaded(path)
        name = short_path(path, root)
        if manifest is None:
            yield ManifestLine(name)
        elif shard is None:
            yield ManifestLine(name, len(manifest))
        else:
            yield ManifestLine(name, len(manifest), shard.words, len(manifests.share(manifest)))


def stack_line(state: ManifestSession) -> str:
    """Return the line of pytest's header about where the jobs go; "" where it is not known yet.

    A plan is not dispatched, and an audit sends nothing.
    """
    from pytest_manifest.plugin.stack_choice import try_to_choose
    from pytest_manifest.plugin.stacks import earlier_stacks, stack_choice

    context, session_runs = state.context, state.session_runs
    options = context.options
    only_plans = options.plan and not options.plan_run
    if context.role == "worker" or options.audit or only_plans or state.manifests.shard_is_empty:
        return ""
    if not options.may_dispatch:
        where = try_to_choose(options, partial(earlier_stacks, state.manifests))
        return f"nothing is sent; would go to: {where}"
    if session_runs.stack_choice is None and options.plan:
        return ""  # decided once there is a plan
    session_runs.stack_shown = True
    with user_errors():
        return stack_choice(session_runs, state.manifests).words


def plan_report(state: ManifestSession) -> PlanReport:
    """Return what the session planned, for its summary."""
    from pytest_manifest.plugin.stack_choice import queues_by_app, try_to_choose
    from pytest_manifest.plugin.stacks import earlier_stacks
    from pytest_manifest.reporting.run_report import PlanReport

    options, plans = state.context.options, state.plans
    return PlanReport(
        options.plan,
        plans.known.find(options.plan or "").name if plans.is_empty else None,
        plans.planned,
        plans.known.notes,
        [] if options.may_dispatch else state.resume_lines,
        partial(try_to_choose, options, partial(earlier_stacks, state.manifests)),
        partial(queues_by_app, options),
    )


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
    return any(run.signals.force_stop.is_set() for run in state.report.runs)


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
