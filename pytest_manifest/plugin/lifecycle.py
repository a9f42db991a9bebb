"""Implement the hooks of a session that has a manifest, a plan or a mark: from its options to its
exit status.

Name what a project's settings for its tests do to a batch, which is no test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.ini import BATCH_INI
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.reporting import github_runner
from pytest_manifest.text import listed, plural, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.session import ManifestSession
    from pytest_manifest.run.run import Run


_TOML: Final = "pyproject.toml"
_SHOWN: Final = 5
"""Variables that are named."""
_COUNTED: Final = {"--cov": "pytest-cov", "-n": "pytest-xdist", "--numprocesses": "pytest-xdist"}
"""Options that start a plugin, where pytest's settings have them in ``addopts``."""


def settings_notice(config: pytest.Config) -> str | None:
    """Return a notice of the plugins that are active in this session by settings for tests.

    What the command line itself asks for is meant; so is a file that it names with ``-c``, but for
    the variables that pytest-env finds in pyproject.toml nevertheless. None where there is none.
    """
    found, manager = list[str](), config.pluginmanager
    if manager.hasplugin("env"):
        with suppress(ValueError, KeyError, OSError):  # no such setting, no such file
            lines = [str(line).partition("=") for line in config.getini("env")]
            names = [name.rpartition(":")[2].strip() for name, equals, _ in lines if equals]
            if not names and b"[tool.pytest_env" in (config.rootpath / _TOML).read_bytes():
                names = ["those of [tool.pytest_env]"]
            found += [f"pytest-env (sets {listed(names, _SHOWN)})"] if names else []
    if not config.option.inifilename:
        if manager.hasplugin("django") and os.environ.get("DJANGO_SETTINGS_MODULE"):
            found.append("pytest-django (blocks the database to plans)")
        given = [str(one) for one in config.getini("addopts")]
        for option, plugin in _COUNTED.items():
            if any(one.startswith(option) for one in given):
                found.append(f"{plugin} ({option} in addopts)")
    if not found:
        return None
    return (
        f"settings for tests act on this batch, too: {', '.join(found)}; 'manifest init' writes a "
        f"{BATCH_INI} without them, for pytest -c {BATCH_INI}"
    )


class SessionHooks:
    """Implement pytest's hooks for a session; nothing of it is called in an idle one."""

    def __init__(self, state: ManifestSession) -> None:
        self._state = state
        self._config = state.config
        self._options = state.options
        self._is_worker = state.role == "worker"
        self._is_active = self._options.active

    def configure(self) -> None:
        """Register the plugins of an active session, and begin what may begin before collecting.

        Collects just the manifests' tests, unless the user named paths.
        """
        from pytest_manifest.plugin.session import nothing_thrown_away

        with nothing_thrown_away(owns_process=self._state.context.owns_process):
            if "django.conf" in sys.modules:
                from pytest_manifest.results.django_results import remember_databases

                remember_databases()
            if self._options.plan:
                self._state.plans.target = next(iter(self._options.files), None)
            else:
                self._begin()
            # What takes its time to import does so beside the stack, which starts meanwhile.
            from pytest_manifest.plugin.outcome import FAILED_ONCE, FailedOnce

            self._config.pluginmanager.register(FailedOnce(), FAILED_ONCE)
        self._register_junit()  # also where the dispatch will be refused
        if self._options.live and self._options.may_dispatch and not self._is_worker:
            from pytest_manifest.plugin.live import LivePages
            from pytest_manifest.plugin.session import ACCEPTED_KEY

            accepts = self._config.stash.get(ACCEPTED_KEY, None)
            self._config.pluginmanager.register(LivePages(self._options, accepts), "manifest-live")
        if self._options.otlp and self._options.may_dispatch and not self._is_worker:
            from pytest_manifest.plugin.telemetry_process import Telemetry

            self._config.pluginmanager.register(Telemetry(self._options), "manifest-otlp")
        o = self._options
        if (o.notify or o.webhook or o.ping) and not (self._is_worker or o.only_plans or o.check):
            self._notify()

    def _notify(self) -> None:
        if self._options.may_dispatch:
            from pytest_manifest.plugin.notifying import Notifications

            notifications = Notifications(self._config, self._options)
            self._config.pluginmanager.register(notifications, "manifest-notifications")

    def _begin(self) -> None:
        """Begin to start the private stack, so that it comes up while pytest collects tests.

        First raises pytest.UsageError for a report that cannot be written.
        """
        from pytest_manifest.plugin.collection import collection_arguments
        from pytest_manifest.plugin.run_options import refuse_unwritable

        state = self._state
        if not self._is_worker:
            state.session_runs.take_signals()
            if self._options.may_dispatch and not state.manifests.shard_is_empty:
                from pytest_manifest.plugin.stacks import start_stack_early

                refuse_unwritable(self._config, self._options)
                notice = None if self._options.audit else settings_notice(self._config)
                state.report.notices += [notice] if notice else []
                start_stack_early(state.session_runs)
        runs_xfail = self._config.getoption("runxfail", False)
        if self._options.gate and self._options.may_dispatch and not runs_xfail:
            from pytest_manifest.analysis.dispositions import ACCEPTANCE

            with user_errors():
                for path in state.manifests.files:
                    ACCEPTANCE.now.load_baseline(path)
        arguments = collection_arguments(state.manifests)
        if self._config.args_source is not pytest.Config.ArgsSource.ARGS:
            self._config.args = arguments

    def _register_junit(self) -> None:
        manager = self._config.pluginmanager
        wanted = self._config.getoption("xmlpath", None) and not self._is_worker
        if wanted and not manager.hasplugin("manifest-junit"):
            from pytest_manifest.reporting.junit import JUnitFaults

            manager.register(JUnitFaults(self._config, self._state.report), "manifest-junit")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        if self._is_active and not self._is_worker:
            github_runner.stop_commands(self._config)

    def pytest_report_header(self) -> list[str]:
        return list(self._header()) if self._is_active else []

    def _header(self) -> Iterator[str]:
        """Yield the lines of pytest's header: where the jobs go, if known, and each manifest."""
        manifests, shard = self._state.manifests, self._options.shard
        if stack := self._stack():
            yield f"manifest: {stack}"
        for path in manifests.files:
            manifest = manifests.loaded(path)
            line = f"manifest: {short_path(path, self._options.root)}"
            if manifest is None:
                yield line
            elif shard is None:
                yield f"{line} ({plural(len(manifest), 'entry')})"
            else:
                share = len(manifests.share(manifest))
                yield f"{line}, {shard.words}: {share:,} of {len(manifest):,} entries"

    def _stack(self) -> str:
        """Return where the jobs go; "" where it is not known yet.

        A plan is not dispatched, and an audit sends nothing.
        """
        from pytest_manifest.plugin import stacks

        state, options = self._state, self._options
        if self._is_worker or options.audit or options.only_plans or state.manifests.shard_is_empty:
            return ""
        if not options.may_dispatch:
            where = stacks.try_to_choose(state.manifests)
            return f"nothing is sent; would go to: {where}"
        if state.session_runs.stack_choice is None and options.plan:
            return ""  # decided once there is a plan
        state.session_runs.stack_shown = True
        with user_errors():
            return stacks.stack_choice(state.session_runs).words

    # Collecting

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool | None:
        """Collect the item of ``--manifest-plan``; with ``--manifest-plan-run`` plan first.

        Returns None where pytest has to collect tests: those of the manifest that was planned.
        """
        state, options, name = self._state, self._options, self._options.plan
        if not name:
            return None
        if not options.plan_run or not options.may_dispatch:
            self._collect_plan(session, name)
            return True
        if self._is_worker:
            assert state.context.coordination is not None
            path = state.context.coordination.wait_for_plan(name)
        else:
            path = self._plan(session, name)
        if path is None:
            state.plans.is_empty = True
            session.perform_collect([])
            return True
        state.manifests.add_file(path.resolve())
        self._begin()
        return None

    def _plan(self, session: pytest.Session, name: str) -> Path | None:
        """Plan in the process that dispatches; publish that to xdist workers, also if it fails."""
        state, path = self._state, None
        state.session_runs.take_signals()  # so that a planner's fixtures are torn down on a signal
        try:
            spec = state.plans.find(name, self._options.plan_options)
            manifest = state.plans.evaluate(session, spec)
            path = None if manifest is None else manifest.path
            return path
        finally:
            if state.context.coordination is not None:
                state.context.coordination.publish_plan(name, path)

    def _collect_plan(self, session: pytest.Session, name: str) -> None:
        from pytest_manifest.plugin.plans import fixture_name, synthetic_item

        self._state.session_runs.take_signals()
        plans = self._state.plans
        spec = plans.find(name, self._options.plan_options)
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

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        if not self._state.manifests.tags:
            return (yield)
        from pytest_manifest.plugin.collection import shown_to_selection

        with shown_to_selection(items):
            return (yield)

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if self._state.role != "main" or not self._options.may_dispatch:
            return None
        from pytest_manifest.plugin.loop import run_tests

        return run_tests(session, self._state)

    @pytest.hookimpl(specname="pytest_runtestloop", wrapper=True, trylast=True)
    def pytest_manifest_around_loop(
        self, session: pytest.Session
    ) -> Generator[None, object, object]:
        session_runs = self._state.session_runs
        try:
            result = yield
        except KeyboardInterrupt:
            if self._is_active and session_runs.interrupts is not None:
                from pytest_manifest.plugin.outcome import report_rest

                session_runs.interrupts.notice()
                report_rest(session, self._state)
            raise
        session_runs.await_repeats()  # where xdist alone has handed the tests out
        if session_runs.runs and self._config.getoption("cov_source", None):
            # pytest-cov reports next, and a worker's processes write when they end.
            session_runs.stop_everything()
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_manifest_dispatched(self) -> None:
        from pytest_manifest.reporting.progress import begin_progress

        begin_progress(self._config, self._state.report)
        self._register_junit()

    # Reporting

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        interrupts = self._state.session_runs.interrupts
        if interrupts is not None:
            interrupts.begin_end()  # also while other plugins write their reports
        try:
            return (yield)
        finally:  # also where another plugin's report has failed
            if not self._is_worker:
                self._finish(session)

    def _finish(self, session: pytest.Session) -> None:
        """Write what the runs leave behind, and set the exit status.

        pytest has torn down the last fixture by then.
        """
        from pytest_manifest.plugin.outcome import excuses_too_much

        state, runs = self._state, self._state.session_runs.runs
        state.session_runs.stop_everything()
        if state.session_runs.interrupts is not None:
            state.session_runs.interrupts.report_status()
        for run in runs:
            self._config.hook.pytest_manifest_finished(config=self._config, run=run)
        if self._options.history is not None and runs:
            from pytest_manifest.reporting.history_page import write_history_of_session

            write_history_of_session(state.report, self._options.history)
        sent_only = self._options.dispatch_only and bool(runs)
        nothing_to_do = state.plans.is_empty or state.manifests.shard_is_empty or sent_only
        if nothing_to_do and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        elif session.exitstatus == pytest.ExitCode.OK and (
            state.report.lacks_artifacts
            or any(sent_only and run.error is not None for run in runs)
            or any(run.is_over_budget() for run in runs)
            or any(excuses_too_much(run, self._config) for run in runs)
            # What a test has shown is not the last word.
            or any(run.signals.repeats for run in runs)
            or any(c.is_worse for run in runs for c in run.corrections)
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_manifest_finished(self, run: Run) -> None:
        from pytest_manifest.reporting.summary import RunEntries, check_record, complete, summary_of

        config, report = self._config, self._state.report
        check_record(report, run)
        complete(report, run)
        if self._options.report is not None:
            from pytest_manifest.reporting.run_page.page import write_run_page

            write_run_page(report, run)
        if self._options.other_reports:
            from pytest_manifest.reporting.formats import write_reports

            write_reports(report, run)
        if config.hook.pytest_manifest_report.get_hookimpls():
            with report.writing("a report of the project's own was not written", run):
                summary = summary_of(run, config)
                config.hook.pytest_manifest_report(
                    config=config, run=run, summary=summary, entries=RunEntries(run)
                )

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._is_worker:
            return
        from pytest_manifest.plugin import stacks
        from pytest_manifest.reporting.run_report import PlanReport
        from pytest_manifest.reporting.terminal import write_summary

        state, options, plans = self._state, self._options, self._state.plans
        asked = options.plan or ""
        planned = PlanReport(
            options.plan,
            plans.find(asked, options.plan_options).name if plans.is_empty else None,
            plans.planned,
            plans.notes,
            [] if options.may_dispatch else state.resume_lines,
            partial(stacks.try_to_choose, state.manifests),
            partial(stacks.queues_by_app, options),
        )
        write_summary(terminalreporter, state.report, planned)

    @pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
    def pytest_manifest_around_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, object, object]:
        # Outermost: pytest writes its failures before all others' parts, and its list of them
        # after.
        report = self._state.report
        if self._is_worker or not report.runs:
            return (yield)
        from pytest_manifest.reporting.terminal import hide_repeated, show_repeated, write_closing

        hide_repeated(terminalreporter, report)
        try:
            return (yield)
        finally:
            show_repeated(terminalreporter, report)
            write_closing(terminalreporter, report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self) -> Generator[None, object, object]:
        """Write the summary that is not written yet, and end the session's stack whatever fails."""
        try:
            return (yield)
        finally:
            interrupts = self._state.session_runs.interrupts
            with ExitStack() as ends:
                if interrupts is not None:
                    ends.callback(interrupts.remove)
                if github_runner.are_stopped(self._config):
                    lines = github_runner.annotation_lines(self._config)
                    ends.callback(github_runner.resume_commands, self._config, lines)
                ends.callback(self._state.close)
                if not self._config.pluginmanager.hasplugin("terminalreporter"):
                    self._write_summary_alone()

    def _write_summary_alone(self) -> None:
        """Write the summary below the output of a reporter that asks no plugin for one."""
        manager = self._config.pluginmanager
        # Older versions of pytest keep their reporter to themselves.
        if self._is_worker or manager.is_blocked("terminal"):
            return
        if hasattr(pytest, "TerminalReporter"):
            reporter = pytest.TerminalReporter(self._config)
            manager.register(reporter, "terminalreporter")  # where others ask for its width
            self.pytest_terminal_summary(reporter)
            if self._state.report.runs:
                from pytest_manifest.reporting.terminal import write_closing

                write_closing(reporter, self._state.report)
