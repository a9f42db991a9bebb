"""Make the stack of a session: the embedded one, one in memory, or an existing one by its URL."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.console import begin_line, quiet_console
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.files import git_ignored_folder
from pytest_manifest.plugin import run_history
from pytest_manifest.plugin import stack_choice as choices
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.report_texts import JobsWarnings
from pytest_manifest.plugin.run_options import key_for_own_workers
from pytest_manifest.plugin.runtest import OthersLogs
from pytest_manifest.plugin.session_runs import SessionRuns
from pytest_manifest.redaction.texts import redact_url

if TYPE_CHECKING:
    from pytest_manifest.ledger import RunInfo
    from pytest_manifest.urls import StackAddress

EMBEDDED_START: Final = 60.0
"""Seconds that the embedded stack may take to start on a slow machine."""
NO_STACK: Final = (
    "this needs a stack that outlives pytest: start one with 'manifest stack up', "
    "or name yours with --manifest-broker=URL"
)


def stack_choice(session_runs: SessionRuns, manifests: ManifestStore) -> choices.StackChoice:
    """Return where the session's jobs go, decided at the first call."""
    if session_runs.stack_choice is None:
        earlier = partial(earlier_stacks, manifests)
        session_runs.stack_choice = choices.choose_stack(manifests.options, earlier)
    return session_runs.stack_choice


def earlier_stacks(manifests: ManifestStore) -> choices.EarlierStacks:
    """Return the stacks that the runs to resume or audit were sent to."""
    infos = _earlier_runs(manifests)
    return choices.EarlierStacks(
        private=any(info.is_private for info in infos),
        brokers=frozenset(info.broker for info in infos),
    )


def _earlier_runs(manifests: ManifestStore) -> list[RunInfo]:
    from pytest_manifest.ledger import Ledger

    options, found = manifests.options, []
    find = run_history.newest_run if options.audit else run_history.ledger_to_resume
    for path in manifests.files_with_work:
        with Ledger.open(find(options, manifests.load(path))) as ledger:
            found.append(ledger.info.read())
    return found


def _refuse_another_broker(manifests: ManifestStore, address: StackAddress) -> None:
    """Raise DispatchError where a run to resume was sent elsewhere, and nobody named this broker.

    Its entries would be sent to a stack that they were not meant for.
    """
    from pytest_manifest.run.strategy import is_other_broker

    options = manifests.options
    asked = options.broker_named or options.stack_word or options.use_running_stack
    if asked or not options.resume:
        return
    for info in _earlier_runs(manifests):
        if is_other_broker(info, address):
            was = "a private stack" if info.is_private else info.broker
            raise DispatchError(
                f"nothing was sent: run {info.run} was sent to {was}, and without "
                f"--manifest-broker it would go on at {redact_url(address.broker_url)}; name the "
                "one that you mean with --manifest-broker=URL (the app's own: =app)"
            )


def show_stack(
    reporter: pytest.TerminalReporter | None, session_runs: SessionRuns, manifests: ManifestStore
) -> None:
    """Write where the jobs go before any goes, where pytest's header has not said it.

    An audit sends none, and mostly asks no stack.
    """
    if session_runs.stack_shown or manifests.options.audit:
        return
    with user_errors():
        choice = stack_choice(session_runs, manifests)
    session_runs.stack_shown = True
    if reporter is not None:
        begin_line(reporter)
        reporter.write_line(f"manifest: {choice.words}")


def start_stack_early(session_runs: SessionRuns, manifests: ManifestStore) -> None:
    """Begin to start the embedded stack, so that it comes up while tests are being collected.

    Raises pytest.UsageError where no Celery application is named, or the stack cannot start.
    """
    quiet_console(session_runs.context.config)
    options = session_runs.context.options
    if session_runs.stack is not None:
        return
    with user_errors():
        if stack_choice(session_runs, manifests).kind != "private":
            return
    from pytest_manifest.stack.embedded import EmbeddedStack

    if not options.app:
        raise pytest.UsageError(
            "the private stack needs your Celery application: add --manifest-app=module:app, or "
            "the ini option manifest_app; for an existing stack add --manifest-broker=URL"
        )
    if options.backend:
        raise pytest.UsageError(
            f"a result store was given without a broker, as {options.app} names none; "
            "add --manifest-broker=URL"
        )
    if nothing_to_resume(manifests):
        return
    choices.put_root_on_path(options)
    with user_errors():
        session_runs.stack_data = _stack_data(session_runs, manifests)
        session_runs.own_key, key = key_for_own_workers(options)
        session_runs.stack = EmbeddedStack(
            app=options.app,
            workers=options.workers,
            cwd=options.root,
            log_format=options.log_format,
            log_level=options.log_level,
            data=session_runs.stack_data,
            signing_key=key,
        )
        session_runs.stack.start()


def nothing_to_resume(manifests: ManifestStore) -> bool:
    """Check whether a resume finds that every entry has passed, so that no stack is needed."""
    options = manifests.options
    if not options.resume:
        return False
    with user_errors():
        own = map(manifests.load, manifests.files_with_work)
        return all(run_history.is_finished(options, one, manifests.share(one)) for one in own)


def _stack_data(session_runs: SessionRuns, manifests: ManifestStore) -> Path:
    """Return the data folder of the embedded broker: a new one, or the one that a resumed run left.

    Raises DispatchError where several runs have left one.
    """
    options = manifests.options
    kept: set[Path] = set()
    if options.resume:
        own = map(manifests.load, manifests.files_with_work)
        found = [run_history.kept_stack_data(options, one) for one in own]
        kept = {path for path in found if path is not None}
    if len(kept) > 1:
        raise DispatchError(
            "the runs to go on with have left jobs behind in brokers of their own, and one stack "
            "can take up only one of them; resume these manifests one by one"
        )
    if kept:
        session_runs.stack_data_is_old = True
        return kept.pop()
    git_ignored_folder(options.folder)
    return options.stacks / secrets.token_hex(8)


def find_stack(
    session_runs: SessionRuns, manifests: ManifestStore
) -> tuple[StackAddress, int | None]:
    """Return the stack to use, once it answers, and its number of workers where that is known.

    Raises DispatchError where its results do not outlive this process and have to, and StackError
    where it does not answer.
    """
    options, choice = manifests.options, stack_choice(session_runs, manifests)
    if choice.kind == "memory" and not (options.dispatch_only or options.audit):
        return _memory_stack(session_runs), 1
    if choice.kind == "private":
        start_stack_early(session_runs, manifests)
        assert session_runs.stack is not None
        address = session_runs.stack.wait_broker(EMBEDDED_START)
        session_runs.stack.wait_workers(EMBEDDED_START)
        return address, 1
    address = external_address(options, choice)
    from pytest_manifest.results.backend_results import needs_this_process

    later = options.audit or options.dispatch_only or options.resume
    if needs_this_process(address) and later:
        raise DispatchError(
            "results of rpc:// come back only to the process that sent the jobs, so nobody "
            "can look at them later; name a Redis or a database with --manifest-backend=URL"
        )
    reach(address, choice)
    _refuse_another_broker(manifests, address)
    return address, None


def reach(address: StackAddress, choice: choices.StackChoice) -> None:
    """Return when the existing stack has answered; raise StackError with the ways out."""
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.stack.health import check_stack

    app = load_app(address) if address.app and not address.is_managed else None
    if choice.kind != "app":
        check_stack(address, app=app)
        return
    check_stack(
        address,
        app=app,
        broker_hint=(
            f"it is what {choice.source} names; start it, or run on a private stack with "
            "--manifest-broker=private, or name another with --manifest-broker=URL"
        ),
        store_hint=(
            "start it, or name another with --manifest-backend=URL, or run on a private stack "
            "with --manifest-broker=private"
        ),
    )


def stack_for_audit(session_runs: SessionRuns, manifests: ManifestStore) -> StackAddress | None:
    """Return the stack that an audit queries; None where none is named and none runs.

    An app's own broker that does not answer is no error if nobody asked for it: the ledger alone is
    judged then, with a notice.
    """
    options = manifests.options
    try:
        if stack_choice(session_runs, manifests).kind == "none":
            return None
        return find_stack(session_runs, manifests)[0]
    except StackError as error:
        if options.broker or options.stack_word or options.use_running_stack or options.wait:
            raise
        session_runs.notices.append(str(error))
        return None


def _memory_stack(session_runs: SessionRuns) -> StackAddress:
    from pytest_manifest.stack.in_memory import MemoryStack

    context = session_runs.context
    if not context.options.app:
        raise pytest.UsageError(
            "the stack in memory needs your Celery application: add --manifest-app=module:app, or "
            "the ini option manifest_app"
        )
    session_runs.own_key, _ = key_for_own_workers(context.options)
    session_runs.memory_stack = MemoryStack(
        app=context.options.app, signing_key=session_runs.own_key
    )
    session_runs.memory_stack.start()
    context.config.pluginmanager.register(OthersLogs())
    context.config.pluginmanager.register(JobsWarnings())
    return session_runs.memory_stack.address


def external_address(options: Options, choice: choices.StackChoice) -> StackAddress:
    """Return the existing stack that was chosen, or the running ``manifest stack``.

    Raises DispatchError where there is none, or it cannot be used from several processes.
    """
    from pytest_manifest.results.stream import has_stream
    from pytest_manifest.stack.state import running_stack
    from pytest_manifest.urls import StackAddress

    running = running_stack()
    if running is not None and choice.broker == running.broker_url and options.backend is None:
        return replace(running, app=options.app) if choice.kind != "running" else running
    if choice.kind in ("running", "none"):
        if running is None:
            raise DispatchError(NO_STACK)
        return running
    if choice.kind == "memory":
        raise DispatchError(
            "a stack in memory ends with this pytest, so nobody can look at it later; leave "
            "--manifest-dispatch-only and --manifest-audit out, or name a stack that outlives "
            "pytest"
        )
    backend = options.backend or _own_store(options, choice)
    if backend is None and has_stream(choice.broker):
        backend = choice.broker
    if (backend or "").startswith("cache+memory:"):
        raise DispatchError(
            "a result store in memory lives in one process, and workers are others; "
            "leave the URLs out for the private stack"
        )
    if backend is None:
        raise DispatchError(_no_store(choice))
    return StackAddress(choice.broker, backend, options.app, is_private=False)


def _no_store(choice: choices.StackChoice) -> str:
    started = "'celery --result-backend=URL'"
    if choice.kind != "app":
        return (
            "the broker is not a Redis that could keep results as well. Name the store of the "
            f"workers with --manifest-backend=URL; one that has none is started with {started}"
        )
    return (
        f"{choice.words} is not a Redis that could keep results as well, and the app names no "
        f"result store. Set result_backend in its settings, or start its workers with {started} "
        "and name the same here with --manifest-backend=URL"
    )


def _own_store(options: Options, choice: choices.StackChoice) -> str | None:
    """Return the result store that the app names, None where it names none.

    It cannot be found out from the broker, which does not know where results are kept.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.broker.stores import own_store
    from pytest_manifest.urls import StackAddress

    if options.app is None:
        return None
    if choice.kind == "app" and (told := os.environ.get("CELERY_RESULT_BACKEND")):
        return told  # as Celery does; beside another broker it may speak of another stack
    app = load_app(StackAddress(choice.broker, "", options.app, is_private=False))
    return own_store(app, choice.broker)
