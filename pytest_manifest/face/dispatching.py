"""What the dispatch fixture does: find a stack, refuse what must not run twice, start the runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_manifest.errors import DispatchError
from pytest_manifest.face.console import quiet_console
from pytest_manifest.face.earlier_runs import guard_against_repetition, is_complete, ledger_of
from pytest_manifest.face.options import Options
from pytest_manifest.face.session import ManifestSession, user_errors

if TYPE_CHECKING:
    from pytest_manifest.run import Run, RunSettings, WorkerLoss
    from pytest_manifest.stack.address import StackAddress

EMBEDDED_START = 60.0
"""Seconds that the embedded stack may take to start on a slow machine."""


def wants_embedded_stack(options: Options) -> bool:
    """Whether the options leave the choice of a stack to us."""
    outlives = options.dispatch_only or options.audit or options.use_running_stack
    return options.broker is None and not outlives


def start_stack_early(state: ManifestSession) -> None:
    """Begin to start the embedded stack, so that it comes up while tests are being collected."""
    quiet_console()
    if state.stack is not None or not wants_embedded_stack(state.options):
        return
    from pytest_manifest.stack.embedded import EmbeddedStack

    options = state.options
    if not options.app:
        raise pytest.UsageError(
            "the embedded stack needs your Celery application: add --manifest-app=module:app, or "
            "the ini option manifest_app; for an existing stack add --manifest-broker=URL"
        )
    with user_errors():
        state.stack = EmbeddedStack(
            app=options.app,
            workers=options.workers,
            cwd=options.root,
            log_format=options.log_format,
            log_level=options.log_level,
        )
        state.stack.start()


class Dispatch:
    """The runs of this session: what the ``dispatch`` fixture yields.

    In an xdist worker it is empty: there the controller has dispatched.
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
        root = str(state.options.root)
        if root not in sys.path:  # where the configuration is, its application is, as for workers
            sys.path.insert(0, root)
        quiet_console()
        with user_errors():
            if state.options.audit:
                self._attach()
            else:
                self._dispatch()

    def end(self) -> None:
        """Stop what still runs, and write down what there is."""
        # The waiting is left to the session's end: here it would count as the last test's time.
        for run in self._state.runs if self._state.role != "worker" else ():
            run.begin_stop()

    def _dispatch(self) -> None:
        """Make and prepare every run before any of them sends: one that is refused stops all."""
        from pytest_manifest.run import Run
        from pytest_manifest.run.locks import one_dispatch_at_a_time

        state = self._state
        work = [(state.load(path), entries) for path, entries in state.selected.items() if entries]
        address, expected = self._find_stack()
        settings = run_settings(state.options)
        with contextlib.ExitStack() as locks:
            for digest in sorted({manifest.sha256 for manifest, _ in work}):
                locks.enter_context(one_dispatch_at_a_time(state.options.ledgers, digest))
            for manifest, _ in work:
                guard_against_repetition(state.options, manifest, state.notices)
            made = [
                Run.dispatch(manifest, entries, address, settings) for manifest, entries in work
            ]
        self._prepare(made, expected)
        for run in made:
            run.start()
            state.notices += run.notices

    def _prepare(self, runs: Sequence[Run], expected_workers: int | None) -> None:
        try:
            for run in runs:
                self._adopt(run)
                run.prepare(expected_workers=expected_workers)
        except BaseException:
            for run in runs:
                run.abandon()
            raise

    def _attach(self) -> None:
        state = self._state
        from pytest_manifest.run import Run
        from pytest_manifest.stack.address import StackAddress

        ledgers = [ledger_of(state.options, state.load(path)) for path in state.selected]
        complete = all(map(is_complete, ledgers))
        # What has all its verdicts can be looked at without any stack.
        address = StackAddress("", "", None, owned=False) if complete else self._find_stack()[0]
        made = [
            Run.attach(
                state.load(path),
                ledger_of(state.options, state.load(path)),
                address,
                run_settings(state.options),
                wait=state.options.wait,
            )
            for path in state.selected
        ]
        if complete:
            for run in made:
                self._adopt(run)
                run.all_sent.set()
                run.ended.set()
            return
        self._prepare(made, None)
        for run in made:
            run.start()

    def _adopt(self, run: Run) -> None:
        state = self._state
        run.on_settled(lambda _entries: self._state.changed.set())
        run.watch_stack(self._lost_workers, self._stack_failure)
        log_to_file(state, run)
        state.runs.append(run)

    def _lost_workers(self) -> Sequence[WorkerLoss]:
        from pytest_manifest.run import WorkerLoss

        stack = self._state.stack
        return [] if stack is None else [WorkerLoss(e.name, e.returncode) for e in stack.exits]

    def _stack_failure(self) -> str | None:
        stack = self._state.stack
        return None if stack is None else stack.failure

    def _find_stack(self) -> tuple[StackAddress, int | None]:
        """The stack to use, once it answers, and its number of workers where that is known."""
        state = self._state
        options = state.options
        if wants_embedded_stack(options):
            start_stack_early(state)
            assert state.stack is not None
            address = state.stack.wait_broker(EMBEDDED_START)
            state.stack.wait_workers(EMBEDDED_START)
            return address, options.workers
        address = external_address(options)
        from pytest_manifest.gather.backend_results import needs_this_process
        from pytest_manifest.stack.reach import reach

        if needs_this_process(address) and (options.audit or options.dispatch_only):
            raise DispatchError(
                "results of rpc:// come back only to the process that sent the jobs, so nobody "
                "can look at them later; name a Redis or a database with --manifest-backend=URL"
            )
        reach(address)
        return address, None


def external_address(options: Options) -> StackAddress:
    """The existing stack that the options name, or the running ``manifest-stack``."""
    from pytest_manifest.gather.stream import has_stream
    from pytest_manifest.stack.address import StackAddress

    if options.broker is None or options.use_running_stack:
        from pytest_manifest.stack.state import running_stack

        running = running_stack()
        if running is None:
            raise DispatchError(
                "this needs a stack that outlives pytest: start one with 'manifest-stack up', "
                "or name yours with --manifest-broker=URL"
            )
        return running
    backend = options.backend
    if backend is None and has_stream(options.broker):
        backend = options.broker
    if options.broker.startswith("memory:") or (backend or "").startswith("cache+memory:"):
        raise DispatchError(
            "a broker or result store in memory lives in one process, and workers are others; "
            "leave the URLs out for the embedded stack"
        )
    if backend is None:
        raise DispatchError(
            "the broker is not a Redis that could keep results as well; "
            "name the result store with --manifest-backend=URL"
        )
    return StackAddress(options.broker, backend, options.app, owned=False)


def run_settings(options: Options) -> RunSettings:
    from pytest_manifest.run import RunSettings

    return RunSettings(
        folder=options.ledgers,
        window=options.window,
        deadline=options.deadline,
        strict=options.strict,
        send_only=options.dispatch_only,
    )


def log_to_file(state: ManifestSession, run: Run) -> None:
    """Keep a log beside the run's ledger."""
    from pytest_manifest.log import add_run_log

    form: Literal["text", "json"] = "json" if state.options.log_format == "json" else "text"
    handler = add_run_log(run.log_path, format=form)
    state.log_handlers.append(handler)


def ledgers_by_manifest(runs: Sequence[Run]) -> Mapping[Path, Path]:
    return {run.manifest.path.resolve(): run.ledger_path for run in runs}
