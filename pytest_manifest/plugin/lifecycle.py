"""Drive one pytest session from its configuration to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import Binding, binding_of
from pytest_manifest.compat.pytest import fixtures_of_definition
from pytest_manifest.plugin.collection import beside_groups, collection_arguments
from pytest_manifest.plugin.coordination import Collection, Row
from pytest_manifest.plugin.interrupts import take_signals
from pytest_manifest.plugin.placeholder import placeholder
from pytest_manifest.plugin.plans import fixture_name
from pytest_manifest.plugin.session import ManifestSession
from pytest_manifest.plugin.synthetic import do_nothing, synthetic_item
from pytest_manifest.plugin.work import begin_dispatch, file_order_wanted, report_unselected

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run


def configure_active(config: pytest.Config, state: ManifestSession) -> None:
    """Collect just the manifests' tests, unless the user named paths."""
    options = state.options
    if options.plan:
        state.plans.target = options.files[0] if options.files else None
        return
    if state.role != "worker":
        _start_early(state)
    _collect_only_ours(config, state)


def _collect_only_ours(config: pytest.Config, state: ManifestSession) -> None:
    arguments = collection_arguments(state, state.files)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = arguments


def _start_early(state: ManifestSession) -> None:
    """Start the embedded stack, so that it comes up while pytest collects tests.

    First raises pytest.UsageError for a report that cannot be written.
    """
    take_signals(state.config, state)
    if state.options.may_dispatch and not state.shard_is_empty:
        from pytest_manifest.plugin.artifacts import refuse_unwritable
        from pytest_manifest.plugin.stacks import start_stack_early

        refuse_unwritable(state.config, state.options)
        start_stack_early(state)


def collect_plan(session: pytest.Session, state: ManifestSession) -> bool | None:
    """Collect the item of ``--manifest-plan``; with ``--manifest-plan-run`` plan first.

    Returns None where pytest has to collect the tests of the manifest that was planned.
    """
    options = state.options
    assert options.plan is not None
    if not options.plan_run or not options.may_dispatch:
        _collect_plan_item(session, state, options.plan)
        return True
    if state.role == "worker":
        assert state.coordination is not None
        path = state.coordination.wait_for_plan(options.plan)
        manifest = None if path is None else state.load(path)
    else:
        manifest = _plan_to_run(session, state, options.plan)
    if manifest is None:
        state.empty_plan = True
        session.perform_collect([])
        return True
    state.add_file(manifest.path.resolve())
    _collect_only_ours(session.config, state)
    return None


def _plan_to_run(session: pytest.Session, state: ManifestSession, name: str) -> Manifest | None:
    """Plan in the process that dispatches, and tell the xdist workers, also when planning fails."""
    take_signals(session.config, state)  # so that a planner's fixtures are torn down on a signal
    told = False
    coordination, state.coordination = state.coordination, None
    try:
        manifest = state.plan(session, name, state.options.plan_options)
        if coordination is not None:
            coordination.publish_plan(name, None if manifest is None else manifest.path)
            told = True
        if manifest is not None:
            state.add_file(manifest.path.resolve())
            _start_early(state)
        return manifest
    finally:
        state.coordination = coordination
        if coordination is not None and not told:
            coordination.publish_plan(name, None)


def _collect_plan_item(session: pytest.Session, state: ManifestSession, name: str) -> None:
    take_signals(session.config, state)
    spec = state.find_plan(name, state.options.plan_options)
    fixture = fixture_name(spec)

    def body(**values: Manifest | None) -> None:
        manifest = values[fixture]
        if manifest is None:
            state.empty_plan = True
        else:
            state.record_plan(manifest)

    session.items = [synthetic_item(session, f"plan[{spec.name}]", body, fixture)]
    session.testscollected = 1
    session.config.hook.pytest_collection_finish(session=session)


def record_collection(session: pytest.Session, state: ManifestSession) -> None:
    """Check the collected tests; in an xdist worker, tell the controller about them.

    Raises pytest.UsageError for a problem, which an xdist worker leaves to the controller.
    """
    problem = _unseen_override(session) or beside_groups(session)
    if state.role == "worker" and state.coordination is not None:
        rows = [_row(binding_of(item)) for item in session.items]
        worker = str(session.config.workerinput["workerid"])  # type: ignore[attr-defined]  # set by xdist in its workers
        state.coordination.publish_collection(worker, Collection(rows, problem))
    elif problem is not None:
        raise pytest.UsageError(problem)
    if state.options.resumes and session.config.option.collectonly:
        from pytest_manifest.plugin.dispatching import preview_resume

        preview_resume(session, state)


def _row(binding: Binding | None) -> Row | None:
    if binding is None:
        return None
    return str(binding.manifest), binding.entry, binding.whole_run, binding.group


def _unseen_override(session: pytest.Session) -> str | None:
    """Return the error message for an override of ``dispatch`` below the root.

    Such an override would have no effect. Returns None where there is none.
    """
    seen: set[str] = set()
    for item in session.items:
        parent = item.parent
        if parent is None or parent.nodeid in seen or binding_of(item) is None:
            continue
        seen.add(parent.nodeid)
        for definition in fixtures_of_definition(_asking(parent, "dispatch"), "dispatch"):
            if definition.baseid:
                return (
                    f"{definition.baseid} overrides the fixture 'dispatch', but dispatch happens "
                    "once for the whole session; move the override into the root conftest.py"
                )
    return None


def _asking(parent: pytest.Collector, fixture: str) -> pytest.Function:
    """Make a test in the collector that asks for the fixture as its tests do; it is never run."""
    of_class = getattr(parent, "cls", None) is not None
    asked = ("self", fixture) if of_class else (fixture,)
    item: pytest.Function = pytest.Function.from_parent(
        parent, name=fixture, callobj=placeholder(fixture, do_nothing, asked)
    )
    return item


def run_tests(session: pytest.Session, state: ManifestSession) -> bool | None:
    """Dispatch what was selected, then run each test when its verdict is there, without xdist.

    Returns None where pytest's own loop has to run the tests. Raises pytest.UsageError where the
    dispatch is refused.
    """
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None  # pytest's own loop reports the errors; nothing is sent
    bindings = [binding for item in session.items if (binding := binding_of(item)) is not None]
    if not bindings:
        report_unselected(state)
        return None
    begin_dispatch(session, bindings)
    for run in state.runs:
        session.config.hook.pytest_manifest_dispatched(config=session.config, run=run)
    if state.options.dispatch_only:
        _wait_until_sent(state)
        return True
    if file_order_wanted(session.config):
        return None
    from pytest_manifest.plugin.loop import run_as_completed

    def wait(seconds: float) -> None:
        if state.changed.wait(min(seconds, state.report.poll())):
            state.report.poll()
        state.changed.clear()

    def news() -> bool:
        changed = state.changed.is_set()
        state.changed.clear()
        return changed

    assert state.verdicts is not None
    run_as_completed(
        session, state.verdicts, wait, news, lambda: all(run.ended.is_set() for run in state.runs)
    )
    return True


def _wait_until_sent(state: ManifestSession) -> None:
    for run in state.runs:
        while not run.all_sent.wait(0.2):
            state.report.poll()
    errors = [str(run.error) for run in state.runs if run.error is not None]
    if errors and not any(map(_has_sent, state.runs)):
        raise pytest.UsageError("; ".join(errors))  # nothing was sent: refused, like a wrong option


def _has_sent(run: Run) -> bool:
    """Check whether some message may have been sent; then the summary reports about the others."""
    with run.read() as ledger:
        states = ledger.attempts.send_states()
    return any(states.get(state) for state in ("intent", "sent", "uncertain"))


def finish(session: pytest.Session, state: ManifestSession) -> None:
    """Write what the runs leave behind, and set the exit status.

    pytest has torn down the last fixture by then. An xdist worker does nothing.
    """
    if state.role == "worker":
        return
    state.stop_everything()
    if state.interrupts is not None:
        state.interrupts.report_status()
    for run in state.runs:
        session.config.hook.pytest_manifest_finished(config=session.config, run=run)
    code = session.exitstatus
    sent_only = state.options.dispatch_only and bool(state.runs)
    nothing_to_do = state.empty_plan or state.shard_is_empty or sent_only
    if nothing_to_do and code == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
    elif code == pytest.ExitCode.OK and (
        state.report.lacks_artifacts
        or (sent_only and any(run.error is not None for run in state.runs))
        or any(_is_worse_than_shown(run) or run.is_over_budget() for run in state.runs)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_worse_than_shown(run: Run) -> bool:
    """Check whether the run has corrected a "passed" that its test may have shown."""
    return any(c.before == "passed" != c.verdict.verdict for c in run.corrections)
