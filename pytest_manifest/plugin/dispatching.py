"""Do the dispatch fixture's work: find a stack, refuse repeated sending, start the runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_manifest.bindings import binding_of
from pytest_manifest.console import quiet_console
from pytest_manifest.errors import DispatchError
from pytest_manifest.plugin.artifacts import refuse_unwritable
from pytest_manifest.plugin.earlier_runs import (
    STACK_DATA,
    AuditSource,
    audit_source,
    forget_stack_data,
    give_up_unfinished,
    guard_against_repetition,
    ledger_to_resume,
    stack_is_gone,
)
from pytest_manifest.plugin.gc_tuning import nothing_thrown_away
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.repetition import (
    one_at_a_time,
    refuse_copies,
    refuse_one_run_twice,
    refuse_overtaken,
)
from pytest_manifest.plugin.session import ManifestSession, user_errors
from pytest_manifest.plugin.stacks import find_stack, nothing_to_resume, stack_for_audit
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import FailureLimit, ResumeRules, Run, RunSettings, WorkerLoss


class Dispatch:
    """Hold this session's runs; the ``dispatch`` fixture yields it.

    It is empty in an xdist worker, as the controller dispatches.
    """

    def __init__(self, state: ManifestSession) -> None:
        self._state = state

    @property
    def runs(self) -> Sequence[Run]:
        return self._state.runs

    def begin(self) -> None:
        """Start a run for every manifest with selected entries."""
        state = self._state
        if state.role == "worker":
            return
        state.dispatch_begun = True
        refuse_unwritable(state.config, state.options)
        root = str(state.options.root)
        if root not in sys.path:  # workers import the Celery application from here, too
            sys.path.insert(0, root)
        quiet_console()
        with user_errors(), nothing_thrown_away(owns_process=state.owns_process):
            if state.options.audit:
                self._audit()
            elif nothing_to_resume(state):
                state.resume_lines.append("nothing is sent: every entry has passed")
                self._audit()
            elif state.options.resumes:
                self._resume()
            else:
                self._dispatch()

    def end(self) -> None:
        """Tell the runs that still go on to stop, without waiting for them."""
        # The session's end waits for them: here the time would count as the last test's.
        for run in self._state.runs if self._state.role != "worker" else ():
            run.begin_stop(interrupted=self._state.interrupted)

    def _work(self) -> list[tuple[Manifest, Sequence[str]]]:
        """Return the manifests with selected entries, each with the ids of these.

        Raises DispatchError under --manifest-dispatch-only where one of them waits for others.
        """
        state = self._state
        work = [(state.load(path), chosen.entries) for path, chosen in state.selected.items()]
        for manifest, entries in work if state.options.dispatch_only else ():
            _refuse_dependencies(manifest, entries)
        return work

    def _dispatch(self) -> None:
        """Make and prepare every run before any of them sends; where one is refused none starts."""
        from pytest_manifest.run import dispatch_run

        state = self._state
        work = self._work()
        refuse_copies(state.options, [manifest for manifest, _ in work])
        for manifest, entries in work:
            _refuse_beyond_budget(state, manifest, entries)
        address, expected = find_stack(state)
        settings = run_settings(state.options)
        with one_at_a_time(state.options, [manifest for manifest, _ in work]):
            for manifest, _ in work:
                guard_against_repetition(state.options, manifest, state.notices)
            made: list[Run] = []
            with _none_but_all(made):
                for manifest, entries in work:
                    shard = state.options.shard
                    made.append(dispatch_run(manifest, entries, address, settings, shard=shard))
        self._start(made, expected, instead_of=[manifest for manifest, _ in work])

    def _resume(self) -> None:
        """Resume the newest run of every manifest, once each of them is known to be resumable."""
        from pytest_manifest.run import describe_decisions, resume_run

        state = self._state
        options = state.options
        work = self._work()
        ledgers = [ledger_to_resume(options, manifest) for manifest, _ in work]
        refuse_one_run_twice(options, [manifest for manifest, _ in work], ledgers)
        address, expected = find_stack(state)
        with one_at_a_time(options, [manifest for manifest, _ in work]):
            for (manifest, _), path in zip(work, ledgers, strict=True):
                refuse_overtaken(options, manifest, path)
            made = [
                resume_run(
                    manifest, path, entries, address, run_settings(options), resume_rules(options)
                )
                for (manifest, entries), path in zip(work, ledgers, strict=True)
            ]
            # Start within the lock: a dispatch learns only from the ledger that the run goes on.
            self._start(made, expected)
        for run in made:
            state.resume_lines += describe_decisions(
                run.decisions, every=state.config.option.verbose > 0
            )

    def _start(
        self,
        runs: Sequence[Run],
        expected_workers: int | None,
        instead_of: Sequence[Manifest] = (),
    ) -> None:
        """Prepare and start these runs.

        With --manifest-rerun, gives up unfinished earlier runs of the manifests ``instead_of``.
        """
        state = self._state
        self._prepare(runs, expected_workers, instead_of)
        if state.stack_data is not None:
            forget_stack_data(state.options)
        for run in runs:
            run.start()
            state.notices += run.notices

    def _prepare(
        self,
        runs: Sequence[Run],
        expected_workers: int | None,
        instead_of: Sequence[Manifest] = (),
    ) -> None:
        """Prepare every run, then let all take effect; where one is refused none does."""
        state = self._state
        with _none_but_all(runs, state.forget_runs):
            for run in runs:
                self._adopt(run)
                run.prepare(expected_workers=expected_workers)
                if run.sends and state.stack_data is not None:
                    # For --manifest-resume, in case this pytest is killed.
                    run.set_meta(STACK_DATA, str(state.stack_data))
            for manifest in instead_of if state.options.rerun else ():
                give_up_unfinished(state.options, manifest)
            for run in runs:
                run.take_effect()

    def _audit(self) -> None:
        from pytest_manifest.run import audit_run
        from pytest_manifest.urls import StackAddress

        state = self._state
        options = state.options
        nowhere = StackAddress("", "", None, is_private=False)
        sources = [self._audited(state.load(path)) for path in state.selected]
        ledgers = [source.ledger for source in sources]
        refuse_one_run_twice(options, [state.load(path) for path in state.selected], ledgers)
        made: list[Run] = []
        address: StackAddress | None = None
        ask = any(source.can_be_asked for source in sources)
        if ask:
            address = stack_for_audit(state)
            if address is None:
                self._no_stack_to_ask()
        for path, source in zip(state.selected, sources, strict=True):
            made.append(
                audit_run(
                    state.load(path),
                    source.ledger,
                    address if address is not None and source.can_be_asked else nowhere,
                    run_settings(options),
                    wait=options.wait,
                    scratch=source.scratch,
                    already_evaluated=source.judged,
                )
            )
        self._prepare(made, None)
        for run in made:
            run.start()

    def _no_stack_to_ask(self) -> None:
        if self._state.options.wait:
            raise DispatchError(
                "the run is unfinished, and --manifest-wait needs the stack that works on it: "
                "name it with --manifest-broker=URL, or start it with 'manifest-stack up'"
            )
        self._state.notices.append(
            "the run is unfinished and no stack was named, so it is judged by its ledger alone; "
            "--manifest-broker=URL asks the stack as well"
        )

    def _audited(self, manifest: Manifest) -> AuditSource:
        """Return the ledger to audit for this manifest, and where its verdicts are written.

        With --manifest-receipts that is a ledger made of the receipts, in a scratch folder.
        """
        state = self._state
        if state.options.receipts is not None:
            from pytest_manifest.run import ledger_of_receipts

            scratch = state.scratch_folder()
            path, notes = ledger_of_receipts(manifest, state.options.receipts, scratch)
            state.notices += notes
            return AuditSource(path, can_be_asked=False, scratch=None, judged=True)
        return audit_source(state, manifest)

    def _adopt(self, run: Run) -> None:
        state = self._state
        run.on_verdicts(lambda _entries: self._state.changed.set())
        run.watch_stack(self._lost_workers, self._stack_failure)
        log_to_file(state, run)
        state.runs.append(run)

    def _lost_workers(self) -> Sequence[WorkerLoss]:
        from pytest_manifest.run import WorkerLoss

        stack = self._state.stack
        exits = [] if stack is None else stack.exits
        return [WorkerLoss(e.name, e.returncode, tuple(e.tail)) for e in exits]

    def _stack_failure(self) -> str | None:
        stack = self._state.stack or self._state.memory_stack
        return None if stack is None else stack.failure


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
            "--manifest-dispatch-only nobody stays to send it when they have passed; leave "
            "--manifest-dispatch-only out"
        )


def _refuse_beyond_budget(
    state: ManifestSession, manifest: Manifest, entries: Sequence[str]
) -> None:
    from pytest_manifest.run import refuse_beyond

    chosen = set(entries)
    name = short_path(manifest.path, state.options.root)
    refuse_beyond(state.options.budget, (e for e in manifest if e.id in chosen), name)


def run_settings(options: Options) -> RunSettings:
    from pytest_manifest.run import RunSettings

    return RunSettings(
        folder=options.ledgers,
        window=options.window,
        deadline=options.deadline,
        strict=options.strict,
        send_only=options.dispatch_only,
        canary=options.canary,
        max_failed=_failure_limit(options.max_failed),
        budget=options.budget,
        revoke_on_max_failed=options.revoke_on_max_failed,
        kills=options.kills,
        grace=options.grace,
        on_stop=options.on_interrupt,
        repair=options.repair,
        low_memory=options.aggregate is not None,
    )


def _failure_limit(value: int | float | None) -> FailureLimit | None:
    from pytest_manifest.run import FailureLimit

    if value is None:
        return None
    return FailureLimit(number=value) if isinstance(value, int) else FailureLimit(share=value)


def resume_rules(options: Options) -> ResumeRules:
    from pytest_manifest.run import ResumeRules

    return ResumeRules(unsafe=options.resume_unsafe, unfinished=options.resume)


def log_to_file(state: ManifestSession, run: Run) -> None:
    """Write a log beside the run's ledger until the session closes."""
    from pytest_manifest.log import add_run_log

    form: Literal["text", "json"] = "json" if state.options.log_format == "json" else "text"
    handler = add_run_log(run.files.log, format=form)
    state.log_handlers.append(handler)


def ledgers_by_manifest(runs: Sequence[Run]) -> Mapping[Path, Path]:
    return {run.manifest.path.resolve(): run.ledger_path for run in runs}


def preview_resume(session: pytest.Session, state: ManifestSession) -> None:
    """Collect, for the summary, what ``--manifest-resume`` would do with each selected entry."""
    from pytest_manifest.plugin.dispatching import resume_rules
    from pytest_manifest.run import describe_decisions, preview

    bindings = [binding for item in session.items if (binding := binding_of(item)) is not None]
    with user_errors():
        state.select(bindings)
        for path, chosen in state.selected.items():
            manifest = state.load(path)
            ledger = ledger_to_resume(state.options, manifest)
            decided = preview(
                ledger,
                manifest,
                chosen.entries,
                resume_rules(state.options),
                stack_is_gone=stack_is_gone(ledger),
            )
            lines = describe_decisions(decided, every=True)
            state.resume_lines += lines or ["there is nothing to be sent: every entry has passed"]
