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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.analysis.records import ENOUGH
from pytest_manifest.bindings import Binding, binding_of
from pytest_manifest.console import begin_line, quiet_console
from pytest_manifest.errors import DispatchError, ManifestError, ManifestToolError
from pytest_manifest.plugin import run_history, run_options
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.manifest_store import report_unselected, select
from pytest_manifest.plugin.option_conflicts import refuse_unwritable
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.session import ManifestSession, manifest_session, nothing_thrown_away
from pytest_manifest.plugin.stack_choice import put_root_on_path
from pytest_manifest.plugin.stacks import find_stack, nothing_to_resume, show_stack, stack_for_audit
from pytest_manifest.plugin.synthetic import do_nothing, log_failure, set_up, synthetic_item
from pytest_manifest.reporting.github_runner import stop_commands
from pytest_manifest.text import middle, plural, printable, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.manifest_store import Selection
    from pytest_manifest.reporting.run_report import Notices
    from pytest_manifest.run import Run


class SessionDispatch:
    """Hold this session's runs; the ``dispatch`` fixture yields it.

    It is empty in an xdist worker, as the controller dispatches.
    """

    def __init__(self, state: ManifestSession) -> None:
        self._state = state
        self._context = state.context
        self._options = state.context.options
        self._manifests = state.manifests
        self._selection = state.selection
        self._session_runs = state.session_runs
        self._notices = state.report.notices

    @property
    def runs(self) -> Sequence[Run]:
        return self._session_runs.runs

    def begin(self) -> None:
        """Start a run for every manifest with selected entries."""
        context, options = self._context, self._options
        if context.role == "worker":
            return
        self._session_runs.dispatch_begun = True
        refuse_unwritable(context.config, options)
        put_root_on_path(options)
        quiet_console(context.config)
        with user_errors(), nothing_thrown_away(owns_process=context.owns_process):
            if options.audit:
                self._audit()
            elif nothing_to_resume(self._manifests):
                self._state.resume_lines.append("nothing is sent: every entry has passed")
                self._audit()
            elif options.resume:
                self._resume()
            else:
                self._dispatch()
            warn_of_weak_evidence(self._selection, self.runs)

    def end(self) -> None:
        """Tell the runs that still go on to stop, without waiting for them."""
        # The session's end waits for them: here the time would count as the last test's.
        if self._context.role != "worker":
            self._session_runs.begin_stop()

    def _work(self) -> list[tuple[Manifest, Sequence[str]]]:
        """Return the manifests with selected entries, each with the ids of these.

        Raises DispatchError under --manifest-dispatch-only where one of them waits for others, and
        under --manifest-strict where evidence is weak.
        """
        selection = self._selection
        work = [(self._manifests.load(path), selection.entries(path)) for path in selection.files]
        for manifest, entries in work if self._options.dispatch_only else ():
            _refuse_dependencies(manifest, entries)
        if self._options.strict:
            refuse_weak_evidence(selection)
        return work

    def _ask_hooks(self, work: Iterable[tuple[Manifest, Sequence[str]]]) -> None:
        """Let projects refuse what would be sent. Raises the ManifestToolError that they raise."""
        config = self._context.config
        for manifest, entries in work:
            config.hook.pytest_manifest_sending(
                config=config, manifest=manifest, entries=entries, budget=self._options.budget
            )

    def _dispatch(self) -> None:
        """Make and prepare every run before any of them sends; where one is refused none starts."""
        from pytest_manifest.run import dispatch_run

        options = self._options
        work = self._work()
        manifests = [manifest for manifest, _ in work]
        run_history.refuse_copies(options, manifests)
        run_options.refuse_unknown_keys(options, manifests, self._notices)
        for manifest, entries in work:
            if options.reuse is None:  # else it depends on what is reused
                _refuse_beyond_budget(options, manifest, entries)
        if options.reuse is None:
            self._ask_hooks(work)
        address, expected = find_stack(self._session_runs, self._manifests)
        settings = run_options.run_settings(options, self._session_runs.own_key)
        with run_history.one_at_a_time(options, manifests):
            for manifest, entries in work:
                run_history.guard_against_repetition(options, manifest, entries, self._notices)
            made: list[Run] = []
            with _none_but_all(made):
                for manifest, entries in work:
                    shard = options.shard
                    made.append(dispatch_run(manifest, entries, address, settings, shard=shard))
        self._start(made, expected, instead_of=manifests, is_dispatch=True)

    def _resume(self) -> None:
        """Resume the newest run of every manifest, once each of them is known to be resumable."""
        from pytest_manifest.run import describe_decisions, resume_run

        options = self._options
        work = self._work()
        ledgers = [run_history.ledger_to_resume(options, manifest) for manifest, _ in work]
        manifests = [manifest for manifest, _ in work]
        run_history.refuse_one_run_twice(options, manifests, ledgers)
        run_options.refuse_unknown_keys(options, manifests, self._notices)
        self._ask_hooks(work)
        address, expected = find_stack(self._session_runs, self._manifests)
        with run_history.one_at_a_time(options, manifests):
            for manifest, path in zip(manifests, ledgers, strict=True):
                run_history.refuse_overtaken(options, manifest, path)
            settings = run_options.run_settings(options, self._session_runs.own_key)
            made = [
                resume_run(
                    *(manifest, path, entries, address, settings),
                    unsafe=options.resume == "unsafe",
                )
                for (manifest, entries), path in zip(work, ledgers, strict=True)
            ]
            # Start within the lock: a dispatch learns only from the ledger that the run goes on.
            self._start(made, expected)
        for run in made:
            self._state.resume_lines += describe_decisions(
                run.state.decisions, every=self._context.config.option.verbose > 0
            )

    def _start(
        self,
        runs: Sequence[Run],
        expected_workers: int | None,
        instead_of: Sequence[Manifest] = (),
        *,
        is_dispatch: bool = False,
    ) -> None:
        """Prepare and start these runs.

        With --manifest-rerun, gives up unfinished earlier runs of the manifests ``instead_of``.
        """
        self._prepare(runs, expected_workers, instead_of, is_dispatch=is_dispatch)
        if self._session_runs.stack_data is not None:
            run_history.forget_stack_data(self._options)
        for run in runs:
            run.start()
            self._notices += run.notices

    def _prepare(
        self,
        runs: Sequence[Run],
        expected_workers: int | None,
        instead_of: Sequence[Manifest] = (),
        *,
        is_dispatch: bool = False,
    ) -> None:
        """Prepare every run, then let all take effect; where one is refused none does."""
        session_runs, options = self._session_runs, self._options
        with _none_but_all(runs, session_runs.forget_runs):
            for run in runs:
                session_runs.add(run)
                run.prepare(expected_workers=expected_workers)
                if run.strategy.sends and session_runs.stack_data is not None:
                    # For --manifest-resume, in case this pytest is killed.
                    run.set_meta(run_history.STACK_DATA, str(session_runs.stack_data))
            if is_dispatch and options.reuse is not None:
                # What is reused is known by now, and is not sent.
                self._ask_hooks((run.manifest, run.to_send) for run in runs if run.to_send)
            for manifest in instead_of if options.rerun else ():
                run_history.give_up_unfinished(options, manifest)
            for run in runs:
                run.take_effect()

    def _audit(self) -> None:
        from pytest_manifest.run import audit_run
        from pytest_manifest.urls import StackAddress

        options = self._options
        no_stack = StackAddress("", "", None, is_private=False)
        manifests = [self._manifests.load(path) for path in self._selection.files]
        sources = [self._audit_source(manifest) for manifest in manifests]
        run_history.refuse_one_run_twice(options, manifests, [source.ledger for source in sources])
        address: StackAddress | None = None
        if any(source.is_open for source in sources):
            address = stack_for_audit(self._session_runs, self._manifests)
            if address is None:
                self._report_missing_stack()
        made = [
            audit_run(
                manifest,
                source.ledger,
                address if address is not None and source.is_open else no_stack,
                run_options.run_settings(options, self._session_runs.own_key),
                wait=options.wait,
                scratch=source.scratch,
                already_evaluated=source.evaluated,
            )
            for manifest, source in zip(manifests, sources, strict=True)
        ]
        self._prepare(made, None)
        for run in made:
            run.start()

    def _report_missing_stack(self) -> None:
        """Add a notice that the ledger alone is judged.

        Raises DispatchError where --manifest-audit=wait needs the stack.
        """
        if self._options.wait:
            raise DispatchError(
                "the run is unfinished, and --manifest-audit=wait needs the stack that works on "
                "it: name it with --manifest-broker=URL, or start it with 'manifest stack up'"
            )
        self._notices.append(
            "the run is unfinished and there is no stack to ask, so it is judged by its ledger "
            "alone; --manifest-broker=URL asks that stack as well"
        )

    def _audit_source(self, manifest: Manifest) -> run_history.AuditSource:
        """Return the ledger to audit for this manifest, and where its verdicts are written.

        With --manifest-receipts that is a ledger made of the receipts, in a scratch folder.
        """
        if (file := self._options.receipts) is not None:
            from pytest_manifest.run import ledger_of_receipts

            scratch = self._session_runs.scratch_folder()
            keys = run_options.receipt_keys(self._options, self._session_runs.own_key)
            path, warnings = ledger_of_receipts(manifest, file, scratch, keys)
            self._notices += warnings
            return run_history.AuditSource(path, is_open=False, scratch=None, evaluated=True)
        return run_history.audit_source(self._session_runs, manifest)


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


def _refuse_dependencies(manifest: Manifest, entries: Sequence[str]) -> None:
    chosen = set(entries)
    waiting = next((e.id for e in manifest if e.after and e.id in chosen), None)
    if waiting is not None:
        raise DispatchError(
            f"nothing was sent: entry {waiting!r} waits for others ('after'), and with "
            "--manifest-dispatch-only pytest does not stay to send it when they have passed; leave "
            "--manifest-dispatch-only out"
        )


def _refuse_beyond_budget(options: Options, manifest: Manifest, entries: Sequence[str]) -> None:
    from pytest_manifest.run import refuse_beyond

    name = short_path(manifest.path, options.root)
    refuse_beyond(options.budget, manifest.some(entries), name)


def preview_resume(session: pytest.Session, state: ManifestSession) -> None:
    """Collect, for the summary, what ``--manifest-resume`` would do with each selected entry."""
    from pytest_manifest.run import describe_decisions, preview

    bindings = [binding for item in session.items if (binding := binding_of(item)) is not None]
    options = state.context.options
    with user_errors():
        selection = select(state.manifests, bindings)
        for path in selection.files:
            manifest = state.manifests.load(path)
            ledger = run_history.ledger_to_resume(options, manifest)
            decided = preview(
                ledger,
                manifest,
                selection.entries(path),
                unsafe=options.resume == "unsafe",
                stack_is_gone=run_history.stack_is_gone(ledger),
            )
            lines = describe_decisions(decided, every=True)
            state.resume_lines += lines or ["there is nothing to be sent: every entry has passed"]


def begin_dispatch(session: pytest.Session, bindings: Sequence[Binding]) -> None:
    """Evaluate the ``dispatch`` fixture for what was selected, and open the ledgers' verdicts.

    Raises pytest.UsageError where the stack or the manifest forbids it, and session.Failed where an
    overriding fixture of the user's raises.
    """
    state = manifest_session(session.config)
    stop_commands(session.config)  # not done yet where only a test's marker names a manifest
    state.selection = select(state.manifests, bindings)
    state.session_runs.take_signals()
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    show_stack(reporter, state.session_runs, state.manifests)
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
    _open_verdicts(state)
    report_unselected(state.selection, state.report.notices)
    if reporter is None or reporter.verbosity < 0:
        return
    for line in state.resume_lines:
        begin_line(reporter)
        reporter.write_line(f"resume: {line}")
    for notice in state.report.notices.take_new():
        begin_line(reporter)
        reporter.write_line(f"note: {notice}", yellow=True)


def _open_verdicts(state: ManifestSession) -> None:
    """Open the runs' verdicts, and name the ledgers to the xdist workers."""
    from pytest_manifest.plugin.verdict_reader import VerdictReader

    context, session_runs = state.context, state.session_runs
    ledgers, runs = session_runs.ledgers(), session_runs.runs
    workers = runs[0].state.workers if runs else None
    owned = session_runs.stack is not None
    state.verdicts = VerdictReader(
        ledgers,
        workers,
        owned=owned,
        groups=None if context.options.aggregate is None else state.manifests.groups,
        over=session_runs.all_ended,
    )
    if context.coordination is not None:
        context.coordination.publish_runs(ledgers, {"workers": workers, "owned": owned})


_NAMED: Final = 3
_ID_LIMIT: Final = 60


@dataclass(frozen=True, slots=True)
class WeakEvidence:
    """The number of a manifest's selected entries that expect nothing, unseen by any test.

    ``first``: the ids of the first of them.
    """

    selected: int
    weak: int
    first: Sequence[str]

    @property
    def message(self) -> str:
        """Return the sentence that says what is weak, and what to do."""
        expect, receipts, them = (
            ("expects", "its receipt", "it")
            if self.weak == 1
            else ("expect", "their receipts", "them")
        )
        return (
            f"{self.weak} of {plural(self.selected, 'entry')} {expect} no more than that the "
            f"job ends, and no test looks at {receipts} ({self._examples}): give {them} 'expect', "
            f"or a test that verifies {them}"
        )

    @property
    def _examples(self) -> str:
        shown = [repr(middle(printable(entry), _ID_LIMIT)) for entry in self.first]
        return ", ".join(shown) + (", ..." if self.weak > len(shown) else "")


def find_weak_evidence(selection: Selection, path: Path) -> WeakEvidence:
    """Look through a manifest's selected entries. Raises ManifestError where its file has changed.

    Reads the file once, unless tests of the user's see all of them: 0.1 s for 100,000 entries.
    """
    manifests, subjects = selection.manifests, selection.subjects[path]
    verified: Set[str] = selection.verified.get(path, frozenset())
    manifest = manifests.load(path)
    selected = len(subjects)
    unseen: Set[str] | None = None
    if path in selection.verified_whole or len(verified) == selected:
        return WeakEvidence(selected, 0, ())
    if manifests.options.aggregate is not None:
        every = manifests.options.shard is None and selected == len(manifests.groups(path))
        unseen = None if every else frozenset(selection.entries(path))
        selected = len(manifest) if unseen is None else len(unseen)
    elif verified or selected < len(manifest):
        unseen = subjects - verified
    weak, first = manifest.expecting_nothing(unseen, most=_NAMED)
    return WeakEvidence(selected, weak, first)


def refuse_weak_evidence(selection: Selection) -> None:
    """Raise DispatchError where a selected entry has weak evidence, as --manifest-strict wants it.

    One is enough, however few entries there are.
    """
    root = selection.manifests.options.root
    found = {path: find_weak_evidence(selection, path) for path in selection.files}
    weak = [f"{short_path(path, root)}: {one.message}" for path, one in found.items() if one.weak]
    if weak:
        raise DispatchError(
            f"nothing was sent: {'; '.join(weak)}; without --manifest-strict (manifest_strict) "
            "they are sent as they are"
        )


def warn_of_weak_evidence(selection: Selection, runs: Iterable[Run]) -> None:
    """Add to each run's warnings what is weak in it, where there are entries enough."""
    for run in runs:
        run.warnings += _findings(selection, run.manifest.path.resolve())


def preview_weak_evidence(selection: Selection, notices: Notices) -> None:
    """Add a notice for each manifest whose run would get such a warning."""
    for path in selection.files:
        name = short_path(path, selection.manifests.options.root)
        notices += [f"{name}: {finding}" for finding in _findings(selection, path)]


def _findings(selection: Selection, path: Path) -> Sequence[str]:
    """Return what is weak in a manifest, if anything.

    A few entries that somebody tries out are seen one by one, so nothing is said of them.
    """
    with contextlib.suppress(ManifestError):  # of a file that was changed meanwhile others tell
        found = find_weak_evidence(selection, path)
        return [found.message] if found.weak and found.selected >= ENOUGH else []
    return []
