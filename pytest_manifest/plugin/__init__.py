"""Implement pytest's hooks: each calls the module that does its work.

Nothing heavy is imported here: an idle plugin must cost nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import OUR_ARGUMENTS, binding_of
from pytest_manifest.plugin.context import role_of
from pytest_manifest.plugin.fixtures import (  # fixtures are found by their names here
    _builtin_entry,
    _builtin_group,
    dispatch,
    entry,
    manifest,
    manifest_run,
    receipt,
    secret_registry,
)
from pytest_manifest.plugin.options import add_options, any_given
from pytest_manifest.plugin.runtest import NAME, SHORT, Verifying, stop_verifying
from pytest_manifest.plugin.session import known_session, manifest_session, own_process_state

if TYPE_CHECKING:
    from pytest_manifest.plugin.collection import ManifestFile
    from pytest_manifest.plugin.session import ManifestSession
    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run import Run

__all__ = [
    "_builtin_entry",
    "_builtin_group",
    "dispatch",
    "entry",
    "manifest",
    "manifest_run",
    "receipt",
    "secret_registry",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config,
) -> Generator[None, object, object]:
    own_process_state(early_config)  # before a conftest registers secrets
    result = yield  # conftests register options, too
    known = early_config.known_args_namespace
    if not known.help and (known.manifest_check):
        from pytest_manifest.plugin.stack_check import CheckCommand

        early_config.pluginmanager.register(CheckCommand(), "manifest-check")
    return result


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_manifest.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)
    pluginmanager.register(Verifying(), NAME)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    # A wrapper, to run before xdist reads these options.
    option = config.option
    if option.manifest_dispatch_only or (option.manifest_plan and not option.manifest_plan_run):
        option.numprocesses = None
        option.dist = "no"
    if hasattr(config, "workerinput") and getattr(option, "clean_alluredir", False):
        # The controller has cleaned the folder. An xdist worker, above all one that replaces a
        # crashed worker, would remove the results that other workers have written.
        option.clean_alluredir = False
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    own_process_state(config)  # where a conftest has brought the plugin
    config.addinivalue_line(
        "markers",
        "manifest(plan, **options): plan WORKFLOW:MODE (or take FILE.jsonl), dispatch it, and "
        "parametrize this module's tests by its entries",
    )
    config.addinivalue_line(
        "markers",
        "entries(task=, mode=, tag=): verify only the entries that match these patterns",
    )
    if any_given(config.option) or role_of(config) != "main" or _wants_allure(config):
        _configure(config)


def _configure(config: pytest.Config) -> None:
    from pytest_manifest.console import note_terminal

    note_terminal(config)
    state = manifest_session(config)
    context = state.context
    # Look for xdist's hooks: its name is another one where it was loaded as ``-p xdist.plugin``.
    if context.role == "controller" and hasattr(config.hook, "pytest_xdist_make_scheduler"):
        from pytest_manifest.plugin.xdist_controller import ControllerHooks

        config.pluginmanager.register(ControllerHooks(config, state), "manifest-controller")
    if _wants_allure(config):
        from pytest_manifest.reporting.allure import register

        register(config, state.report)
    if context.options.active:
        from pytest_manifest.plugin.outcome import FAILED_ONCE, FailedOnce
        from pytest_manifest.plugin.session import nothing_thrown_away

        config.pluginmanager.register(FailedOnce(), FAILED_ONCE)
        if context.role != "worker":
            from pytest_manifest.plugin.lifecycle import AfterInterrupt

            config.pluginmanager.register(AfterInterrupt())
        with nothing_thrown_away(owns_process=context.owns_process):
            from pytest_manifest.plugin.lifecycle import configure_active

            configure_active(config, state)
        if context.role != "worker":
            _register_junit(config, state.report)  # also where the dispatch will be refused


def _register_junit(config: pytest.Config, report: RunReport) -> None:
    if config.getoption("xmlpath", None) and not config.pluginmanager.hasplugin("manifest-junit"):
        from pytest_manifest.reporting.junit import JUnitFaults

        config.pluginmanager.register(JUnitFaults(config, report), "manifest-junit")


def _wants_allure(config: pytest.Config) -> bool:
    return bool(getattr(config.option, "allure_report_dir", None))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    state = known_session(session.config)
    if state is None or not state.context.options.active:
        return
    if state.context.role != "worker":
        from pytest_manifest.reporting.github_runner import stop_commands

        stop_commands(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> bool | None:
    state = known_session(session.config)
    if state is None or not state.context.options.plan:
        return None
    from pytest_manifest.plugin.lifecycle import collect_plan

    return collect_plan(session, state)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ManifestFile | None:
    # Only files that the command line names; others are the user's data.
    if file_path.suffix != ".jsonl" or not parent.session.isinitpath(file_path):
        return None
    from pytest_manifest.plugin.collection import collect_file

    return collect_file(file_path, parent)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if OUR_ARGUMENTS.isdisjoint(metafunc.fixturenames):
        return
    from pytest_manifest.plugin.parametrize import generate_tests

    generate_tests(metafunc)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if known_session(collector.config) is not None:
        from pytest_manifest.plugin.collection import drop_unneeded

        drop_unneeded(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    state = known_session(config)
    if state is None or not state.manifests.tags:
        return (yield)
    from pytest_manifest.plugin.parametrize import shown_to_selection

    with shown_to_selection(items):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    state = known_session(session.config)
    if state is not None:
        from pytest_manifest.plugin.collection import record_collection

        record_collection(session, state)
    manager = session.config.pluginmanager
    # Where the state was never made no test can be of an entry.
    if state is None or all(binding_of(item) is None for item in session.items):
        if state is None or not state.context.options.plan:  # a planner's report hides secrets, too
            stop_verifying(manager)
    elif not manager.hasplugin(SHORT):
        from pytest_manifest.plugin.loop import ShortProtocol

        manager.register(ShortProtocol(), SHORT)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    state = known_session(session.config)
    if state is None or state.context.role != "main" or not state.context.options.may_dispatch:
        return None
    from pytest_manifest.plugin.loop import run_tests

    return run_tests(session, state)


def pytest_report_header(config: pytest.Config) -> list[str]:
    state = known_session(config)
    if state is None or not state.context.options.active:
        return list(_typed_manifests(config))
    from pytest_manifest.plugin.lifecycle import manifest_lines, stack_line
    from pytest_manifest.reporting.terminal import header_lines

    return header_lines(manifest_lines(state.manifests), stack_line(state))


def _typed_manifests(config: pytest.Config) -> Iterator[str]:
    """Yield a line on each manifest that the command line names among its paths."""
    names = {arg.partition("::")[0] for arg in config.args if ".jsonl" in arg}
    looks_only = getattr(config.option, "collectonly", False)
    for name in sorted(names):
        if name.endswith(".jsonl") and (config.invocation_params.dir / name).is_file():
            does = "would be sent" if looks_only else "are sent"
            yield f"manifest: {name} is a manifest: its jobs {does}, as with --manifest={name}"


@pytest.hookimpl(trylast=True)
def pytest_manifest_dispatched(config: pytest.Config) -> None:
    from pytest_manifest.reporting.progress import begin_progress

    report = manifest_session(config).report
    begin_progress(config, report)
    _register_junit(config, report)


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    state = known_session(config)
    if state is not None and state.context.role != "worker":
        from pytest_manifest.plugin.lifecycle import plan_report
        from pytest_manifest.reporting.terminal import write_summary

        write_summary(terminalreporter, state.report, plan_report(state))


@pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
def pytest_manifest_around_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    # Outermost: pytest writes its failures before all others' parts, and its list of them after.
    state = known_session(config)
    if state is None or state.context.role == "worker" or not state.report.runs:
        return (yield)
    from pytest_manifest.reporting.terminal import hide_repeated, show_repeated, write_closing

    hide_repeated(terminalreporter, state.report)
    try:
        return (yield)
    finally:
        show_repeated(terminalreporter, state.report)
        write_closing(terminalreporter, state.report)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(
    session: pytest.Session,
) -> Generator[None, object, object]:
    state = known_session(session.config)
    if state is None:
        return (yield)
    interrupts = state.session_runs.interrupts
    if interrupts is not None:
        interrupts.begin_end()  # also while other plugins write their reports
    try:
        return (yield)
    finally:  # also where another plugin's report has failed
        from pytest_manifest.plugin.lifecycle import finish

        finish(session, state)


def pytest_manifest_finished(config: pytest.Config, run: Run) -> None:
    from pytest_manifest.reporting.summary_files import complete
    from pytest_manifest.reporting.terminal import check_record

    report = manifest_session(config).report
    check_record(report, run)
    complete(report, run)
    if report.options.report is not None:
        from pytest_manifest.reporting.run_page.page import write_run_page

        write_run_page(report, run)
    _write_reports_of_others(report, run)


def _write_reports_of_others(report: RunReport, run: Run) -> None:
    """Have projects and other plugins make their own reports of the run."""
    from pytest_manifest.reporting.run_statistics import RunEntries, summary_of

    hook = report.config.hook.pytest_manifest_report
    if hook.get_hookimpls():
        with report.writing("a report of the project's own was not written", run):
            summary = summary_of(run, report.config)
            hook(config=report.config, run=run, summary=summary, entries=RunEntries(run))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        state = known_session(config)
        if state is not None:
            _end(config, state)


def _end(config: pytest.Config, state: ManifestSession) -> None:
    """Write the summary that is not written yet, and end the session's stack whatever fails."""
    with ExitStack() as ends:
        if state.session_runs.interrupts is not None:
            ends.callback(state.session_runs.interrupts.remove)
        ends.callback(_resume_commands, config)
        ends.callback(state.close)
        if not config.pluginmanager.hasplugin("terminalreporter"):
            _write_summary_alone(config, state)


def _write_summary_alone(config: pytest.Config, state: ManifestSession) -> None:
    """Write the summary below the output of a reporter that asks no plugin for one."""
    if state.context.role == "worker" or config.pluginmanager.is_blocked("terminal"):
        return
    if not hasattr(pytest, "TerminalReporter"):  # older versions of pytest keep it to themselves
        return
    reporter = pytest.TerminalReporter(config)
    config.pluginmanager.register(reporter, "terminalreporter")  # where others ask for its width
    pytest_terminal_summary(reporter, config)
    if state.report.runs:
        from pytest_manifest.reporting.terminal import write_closing

        write_closing(reporter, state.report)


def _resume_commands(config: pytest.Config) -> None:
    from pytest_manifest.reporting.github_runner import are_stopped, resume_commands

    if are_stopped(config):
        from pytest_manifest.reporting.github_runner import annotation_lines

        resume_commands(config, annotation_lines(config))
