"""Dispatch what was selected: find a stack, refuse repeated sending, start the runs.

Not named ``dispatch``: the package has the fixture of that name.

Say of how many entries a green report tells no more than that their jobs ended well.

Such an entry has no ``expect``, and no test of the user's is given its receipt: the job may have
returned anything. A test that is given it counts, whatever it asserts, and so does one of the whole
run, which is given all receipts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.analysis.records import ENOUGH
from pytest_manifest.bindings import Binding, bindings_of
from pytest_manifest.console import begin_line, quiet_console
from pytest_manifest.errors import DispatchError, ManifestError, ManifestToolError
from pytest_manifest.plugin import run_history, run_options, stacks
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.coordination import KnownRuns
from pytest_manifest.plugin.manifest_store import report_unselected, select
from pytest_manifest.plugin.option_kinds import naming_sources
from pytest_manifest.plugin.plans import do_nothing, log_failure, set_up, synthetic_item
from pytest_manifest.plugin.run_options import refuse_unwritable
from pytest_manifest.plugin.session import ManifestSession, manifest_session, nothing_thrown_away
from pytest_manifest.reporting.github_runner import stop_commands
from pytest_manifest.text import many, middle, plural, printable, short, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.manifest_store import Selection
    from pytest_manifest.reporting.run_report import Notices
    from pytest_manifest.run.run import Run
    from pytest_manifest.run.settings import RunSettings


class SessionDispatch:
    """Hold this session's runs; the ``dispatch`` fixture yields it.

    It is empty in an xdist worker, as the controller dispatches.
    """

    def __init__(self, state: ManifestSession, health: Callable[[], object]) -> None:
        self._state, self._find_health = state, health
        self._options = state.options
        self._manifests = state.manifests
        self._session_runs = state.session_runs
        self._notices = state.report.notices

    @property
    def runs(self) -> Sequence[Run]:
        return self._session_runs.runs

    def begin(self) -> None:
        """Start a run for every manifest with selected entries."""
        state, context = self._state, self._state.context
        if context.role == "worker":
            return
        self._session_runs.dispatch_begun = True
        refuse_unwritable(context.config, self._options)
        stacks.put_root_on_path(self._options)
        quiet_console(context.config)
        with (
            naming_sources(context.config),
            user_errors(),
            nothing_thrown_away(owns_process=context.owns_process),
        ):
            if self._options.audit:
                self._audit()
            elif stacks.nothing_to_resume(self._manifests):
                state.resume_lines.append("nothing is sent: every entry has passed")
                self._answer_kept()
                self._audit()
            elif self._options.resume:
                self._resume()
            else:
                self._dispatch()
            for run in self.runs:
                run.warnings += findings(state.selection, run.manifest.path.resolve())

    def _answer_kept(self) -> None:
        """Answer what operators had kept for a resume that has nothing to do."""
        from pytest_manifest.plugin import run_history
        from pytest_manifest.run.kept_commands import answer_passed

        for manifest in self._manifests.with_work:
            run = run_history.run_to_resume(self._options, manifest)
            if number := answer_passed(run.path):
                self._state.resume_lines.append(
                    f"{many(number, 'command')} of operators: nothing is left that could be done"
                )

    def end(self) -> None:
        """Tell the runs that still go on to stop, without waiting for them."""
        # The session's end waits for them: here the time would count as the last test's.
        if self._state.role != "worker":
            self._session_runs.begin_stop()

    def _work(self) -> list[tuple[Manifest, Sequence[str]]]:
        """Return the manifests with selected entries, each with the ids of these.

        Raises DispatchError under --manifest-dispatch-only where one of them waits for others,
        under --manifest-strict where evidence is weak, and where no entry has a limited key.
        """
        selection = self._state.selection
        work = [
            (self._manifests.load(path), selection.entries(path)) for path in selection.subjects
        ]
        for manifest, entries in work if self._options.dispatch_only else ():
            waiting = next((entry.id for entry in manifest.some(entries) if entry.after), None)
            if waiting is not None:
                raise DispatchError(
                    f"nothing was sent: entry {waiting!r} waits for others ('after'), and pytest "
                    "would not stay to send it; leave out --manifest-dispatch-only"
                )
        if self._options.strict:
            refuse_weak_evidence(selection)
        manifests = [manifest for manifest, _ in work]
        run_options.refuse_unknown_keys(self._options, manifests, self._notices)
        return work

    def _ask_hooks(self, work: Iterable[tuple[Manifest, Sequence[str]]]) -> None:
        """Let projects refuse what would be sent. Raises the ManifestToolError that they raise."""
        config = self._state.config
        for manifest, entries in work:
            config.hook.pytest_manifest_sending(
                config=config, manifest=manifest, entries=entries, budget=self._options.budget
            )

    def _health(self) -> Callable[[], object] | None:
        """Return what the project's fixture manifest_health gives. Raises DispatchError."""
        found = self._find_health()
        if found is None or callable(found):
            return found
        raise DispatchError(
            f"nothing was sent: the fixture manifest_health gave {short(found)}; have it return a "
            "function without arguments, which says 'ok', 'slow' or 'stop'"
        )

    def _settings(self) -> RunSettings:
        files = self._state.selection.subjects
        return run_options.run_settings(self._options, self._session_runs.own_key, files)

    def _dispatch(self) -> None:
        """Make and prepare every run before any of them sends; where one is refused none starts."""
        from pytest_manifest.run.dispatch import dispatch_run
        from pytest_manifest.run.send_queue import refuse_beyond

        options, work = self._options, self._work()
        manifests = [manifest for manifest, _ in work]
        run_history.refuse_copies(options, manifests)
        if options.reuse is None:  # else it depends on what is reused
            for manifest, entries in work:
                name = short_path(manifest.path, options.root)
                refuse_beyond(options.budget, manifest.some(entries), name)
            self._ask_hooks(work)
        address, expected = stacks.find_stack(self._session_runs)
        settings = self._settings()
        made: list[Run] = []
        with run_history.one_at_a_time(options, manifests):
            for manifest, entries in work:
                run_history.guard_against_repetition(options, manifest, entries, self._notices)
            with _none_but_all(made):
                for manifest, entries in work:
                    made.append(
                        dispatch_run(manifest, entries, address, settings, shard=options.shard)
                    )
        self._start(made, expected, instead_of=manifests)

    def _resume(self) -> None:
        """Resume the newest run of every manifest, once each of them is known to be resumable."""
        from pytest_manifest.run.resume import resume_run
        from pytest_manifest.run.resume_rules import describe_decisions

        options, work = self._options, self._work()
        manifests = [manifest for manifest, _ in work]
        earlier = [run_history.run_to_resume(options, manifest) for manifest in manifests]
        run_history.refuse_one_run_twice(options, manifests, [run.path for run in earlier])
        self._ask_hooks(work)
        address, expected = stacks.find_stack(self._session_runs)
        with run_history.one_at_a_time(options, manifests):
            for manifest, run in zip(manifests, earlier, strict=True):
                run_history.refuse_overtaken(options, manifest, run)
            settings = self._settings()
            made = [
                resume_run(manifest, run.path, entries, address, settings)
                for (manifest, entries), run in zip(work, earlier, strict=True)
            ]
            # Start within the lock: a dispatch learns only from the ledger that the run goes on.
            self._start(made, expected)
        every = self._state.config.option.verbose > 0
        for resumed in made:
            self._state.resume_lines += describe_decisions(resumed.state.decisions, every=every)

    def _start(
        self, runs: Sequence[Run], expected_workers: int | None, instead_of: Sequence[Manifest] = ()
    ) -> None:
        """Prepare every run, then let all take effect and start; where one is refused none does.

        ``instead_of``: the manifests of a dispatch. With --manifest-rerun, gives up their
        unfinished earlier runs.
        """
        session_runs, options = self._session_runs, self._options
        with _none_but_all(runs, session_runs.forget_runs):
            health = None if options.audit else self._health()
            for run in runs:
                session_runs.add(run)
                run.prepare(expected_workers=expected_workers)
                if run.strategy.sends and session_runs.stack_data is not None:
                    # For --manifest-resume, in case this pytest is killed.
                    run.set_meta(run_history.STACK_DATA, str(session_runs.stack_data))
            if instead_of and options.reuse is not None:
                # What is reused is known by now, and is not sent.
                self._ask_hooks((run.manifest, run.to_send) for run in runs if run.to_send)
            for manifest in instead_of if options.rerun else ():
                run_history.give_up_unfinished(options, manifest)
            for run in runs:
                run.watch_health(health)
                run.take_effect()
        if session_runs.stack_data is not None:
            run_history.forget_stack_data(options)
        for run in runs:
            run.start()
            self._notices += run.notices

    def _audit(self) -> None:
        """Audit a run of each manifest.

        Raises DispatchError where --manifest-audit=wait needs a stack, and there is none.
        """
        from pytest_manifest.run.audit import audit_run
        from pytest_manifest.urls import StackAddress

        options, waits = self._options, self._options.audit == "wait"
        manifests = [self._manifests.load(path) for path in self._state.selection.subjects]
        sources = [run_history.audit_source(self._session_runs, one) for one in manifests]
        run_history.refuse_one_run_twice(options, manifests, [source.ledger for source in sources])
        stack = no_stack = StackAddress("", "", None, is_private=False)
        if any(source.is_open for source in sources):
            stack = stacks.stack_for_audit(self._session_runs) or no_stack
            if stack is no_stack and waits:
                raise DispatchError(
                    "the run is unfinished; --manifest-audit=wait needs its stack: name it with "
                    "--manifest-broker=URL, or start it with 'manifest stack up'"
                )
            if stack is no_stack:
                self._notices.append(
                    "the run is unfinished and there is no stack to ask, so its ledger alone "
                    "is judged; --manifest-broker=URL asks that stack as well"
                )
        made = [
            audit_run(
                manifest,
                source.ledger,
                stack if source.is_open else no_stack,
                self._settings(),
                wait=waits,
                scratch=source.scratch,
                already_evaluated=source.evaluated,
            )
            for manifest, source in zip(manifests, sources, strict=True)
        ]
        self._start(made, None)


@contextlib.contextmanager
def _none_but_all(runs: Sequence[Run], forget: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Abandon all of these runs, and call ``forget``, where the block raises."""
    try:
        yield
    except BaseException:
        for run in runs:
            run.abandon()
        forget()
        raise


def preview_resume(session: pytest.Session, state: ManifestSession) -> None:
    """Collect, for the summary, what ``--manifest-resume`` would do with each selected entry."""
    from pytest_manifest.run.resume import preview
    from pytest_manifest.run.resume_rules import describe_decisions

    options, selection = state.options, select(state.manifests, bindings_of(session.items))
    with user_errors():
        for path in selection.subjects:
            manifest = state.manifests.load(path)
            run = run_history.run_to_resume(options, manifest)
            decided = preview(
                run.path,
                manifest,
                selection.entries(path),
                unsafe=options.resume == "unsafe",
                stack_is_gone=run.stack_is_gone,
            )
            lines = describe_decisions(decided, every=True)
            state.resume_lines += lines or ["there is nothing to be sent: every entry has passed"]


def begin_dispatch(
    session: pytest.Session, tests: Callable[[], Iterable[tuple[str, Binding]]]
) -> None:
    """Evaluate the ``dispatch`` fixture for what was selected, and open the ledgers' verdicts.

    Then call the hook ``pytest_manifest_dispatched``. ``tests``: returns the ids of the tests that
    verify something, and what each does.

    Raises pytest.UsageError where the stack or the manifest forbids it, and session.Failed where an
    overriding fixture of the user's raises.
    """
    state = manifest_session(session.config)
    stop_commands(session.config)  # not done yet where only a test's marker names a manifest
    state.tests = tests
    state.selection = select(state.manifests, [binding for _, binding in tests()])
    state.session_runs.take_signals()
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    stacks.show_stack(reporter, state.session_runs)
    item = synthetic_item(session, "dispatch", do_nothing, "dispatch")
    report, call = set_up(item)
    if call.excinfo is not None:
        error = call.excinfo.value
        if isinstance(error, ManifestToolError | pytest.UsageError):
            raise pytest.UsageError(str(error))
        log_failure(item, report)
        raise session.Failed("the dispatch fixture failed")
    if not state.session_runs.dispatch_begun:
        raise pytest.UsageError(
            "the fixture 'dispatch' was overridden and the override sent nothing; end it with "
            "return request.getfixturevalue('dispatch')"
        )
    runs, coordination = state.session_runs, state.context.coordination
    workers = runs.runs[0].state.workers if runs.runs else None
    known = KnownRuns(runs.ledgers(), workers, owned=runs.stack is not None)
    state.open_verdicts(known, runs.all_ended)
    if coordination is not None:  # xdist workers read the ledgers, too
        coordination.publish_runs(known)
    report_unselected(state.selection, state.report.notices)
    if reporter is not None and reporter.verbosity >= 0:
        for line in state.resume_lines:
            begin_line(reporter)
            reporter.write_line(f"resume: {line}")
        for notice in state.report.notices.take_new():
            begin_line(reporter)
            reporter.write_line(f"note: {notice}", yellow=True)
    for run in runs.runs:
        session.config.hook.pytest_manifest_dispatched(config=session.config, run=run)


_NAMED: Final = 3
_ID_LIMIT: Final = 60


def find_weak_evidence(selection: Selection, path: Path) -> tuple[int, str]:
    """Count a manifest's selected entries, and say which of them expect nothing, unseen by a test.

    Returns "" where there is none. Raises ManifestError where the file has changed. Reads it once,
    unless tests of the user's see all of them: 0.1 s for 100,000 entries.
    """
    manifest, entries = selection.manifests.load(path), selection.entries(path)
    verified: Set[str] = selection.verified.get(path, frozenset())
    selected = len(entries)
    if path in selection.verified_whole or len(verified) == selected:
        return selected, ""
    is_all = not verified and selected == len(manifest)
    unseen = None if is_all else frozenset(entries) - verified
    weak, first = manifest.expecting_nothing(unseen, most=_NAMED)
    if not weak:
        return selected, ""
    shown = [repr(middle(printable(entry), _ID_LIMIT)) for entry in first]
    examples = ", ".join(shown) + (", ..." if weak > len(shown) else "")
    expect, receipts, them = (
        ("expects", "its receipt", "it") if weak == 1 else ("expect", "their receipts", "them")
    )
    return selected, (
        f"{weak} of {plural(selected, 'entry')} {expect} no more than that the job ends, and no "
        f"test looks at {receipts} ({examples}): give {them} 'expect', or a test that verifies "
        f"{them}"
    )


def refuse_weak_evidence(selection: Selection) -> None:
    """Raise DispatchError where a selected entry has weak evidence, as --manifest-strict wants it.

    One is enough, however few entries there are.
    """
    root = selection.manifests.options.root
    found = {path: find_weak_evidence(selection, path)[1] for path in selection.subjects}
    weak = [f"{short_path(path, root)}: {said}" for path, said in found.items() if said]
    if weak:
        raise DispatchError(
            f"nothing was sent: {'; '.join(weak)}; without --manifest-strict (manifest_strict) "
            "they are sent as they are"
        )


def preview_weak_evidence(selection: Selection, notices: Notices) -> None:
    """Add a notice for each manifest whose run would get such a warning."""
    for path in selection.subjects:
        name = short_path(path, selection.manifests.options.root)
        notices += [f"{name}: {finding}" for finding in findings(selection, path)]


def findings(selection: Selection, path: Path) -> Sequence[str]:
    """Return what is weak in a manifest, if anything.

    A few entries that somebody tries out are seen one by one, so nothing is said of them.
    """
    with contextlib.suppress(ManifestError):  # of a file that was changed meanwhile others tell
        selected, said = find_weak_evidence(selection, path)
        return [said] if said and selected >= ENOUGH else []
    return []
