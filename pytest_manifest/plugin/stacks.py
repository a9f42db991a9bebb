"""Decide where a session's jobs go, say it, and make or reach that stack.

What is named by an option or the configuration file counts first, then ``manifest stack`` where it
is asked for, then what the app itself names. Only an app that names no broker gets a private stack
unasked.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.console import begin_line, quiet_console
from pytest_manifest.errors import DispatchError, ManifestToolError, StackError
from pytest_manifest.files import git_ignored_folder
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.run_options import key_for_own_workers
from pytest_manifest.plugin.session_runs import SessionRuns, StackChoice, StackKind
from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.urls import StackAddress, is_in_process, is_rpc

if TYPE_CHECKING:
    from pytest_manifest.plugin.run_history import EarlierRun
    from pytest_manifest.stack.client import EmbeddedStack

START: Final = 60.0
"""Seconds that the private stack may take to start on a slow machine."""
_OUTLIVES: Final = "it outlives pytest"
_PRIVATE_INSTEAD: Final = "--manifest-broker=private for a private stack"


def choose_stack(manifests: ManifestStore) -> StackChoice:
    """Decide by the options, the environment and the app; the app is imported where it counts.

    Raises DispatchError where ``--manifest-broker=app`` is given and the app names no broker, and
    StackError where the app cannot be imported.
    """
    options = manifests.options
    outlives = options.dispatch_only or bool(options.audit)
    if options.use_running_stack:
        return _running("--manifest-stack")
    if options.broker_named:
        file = "manifest_broker in the configuration"
        by = "--manifest-broker" if options.broker_given else file
        return _at(options.broker or "", "named", by, by)
    if options.stack_word == "private":
        by = "--manifest-broker=private" if options.broker_given else "manifest_broker = private"
        return _running(_OUTLIVES) if outlives else StackChoice("private", by)
    if options.resume and options.stack_word is None:
        before = earlier_runs(manifests)
        if any(run.info.is_private for run in before) and options.app is not None:
            instead = "--manifest-broker=app for the app's own broker"
            return StackChoice("private", f"the run to resume had one; {instead}")
        running = _running("the run to resume was sent there")
        where = redact_url(running.broker)
        if running.broker and {run.info.broker for run in before} == {where}:
            return running
    if options.app is None:
        return _without_app(options, outlives=outlives)
    if outlives and options.stack_word is None and options.broker is None:
        running = _running(_OUTLIVES)
        where = redact_url(running.broker)
        audited = earlier_runs(manifests) if running.broker and options.audit else ()
        if running.broker and (not options.audit or where in {run.info.broker for run in audited}):
            return running
    return _by_app(options, outlives=outlives)


def _at(broker: str, kind: StackKind, reason: str, source: str) -> StackChoice:
    return StackChoice("memory" if is_in_process(broker) else kind, reason, broker, source)


def _running(reason: str) -> StackChoice:
    from pytest_manifest.stack.state import running_stack

    running = running_stack()
    if running is None:
        return StackChoice("none", "'manifest stack up' starts one")
    return StackChoice("running", reason, running.broker_url)


def _without_app(options: Options, *, outlives: bool) -> StackChoice:
    if options.broker:
        by = options.environment_source
        return _at(options.broker, "named", f"{by}; {_PRIVATE_INSTEAD}", by)
    if options.stack_word == "app":
        _named_app(options, "--manifest-broker=app")
    if outlives:
        return _running(_OUTLIVES)
    return StackChoice("private", "no Celery app is named: --manifest-app=module:app")


def _named_app(options: Options, what: str) -> str:
    """Return how the app is named. Raises DispatchError where it is not and ``what`` needs it."""
    if not options.app:
        raise DispatchError(
            f"{what} needs your Celery application: add --manifest-app=module:app (manifest_app); "
            "for an existing stack add --manifest-broker=URL"
        )
    return options.app


def _by_app(options: Options, *, outlives: bool) -> StackChoice:
    from pytest_manifest.broker.client import load_app, own_broker

    app, insists = load_app(project_app(options)), options.stack_word == "app"
    try:
        own = own_broker(app)
    except (Exception, SystemExit) as error:  # of the app's settings, which are read only now
        raise StackError(
            f"the settings of the Celery app {options.app!r} cannot be read "
            f"({redact(f'{type(error).__name__}: {error}')}); mend them, or what they need"
        ) from error
    if own is None:
        if insists:
            raise DispatchError(
                f"--manifest-broker=app: the app {options.app} names no broker, and Celery's "
                "default is nobody's choice; set broker_url in its settings or CELERY_BROKER_URL, "
                "or leave the option out for a private stack"
            )
        if outlives:
            return _running(_OUTLIVES)
        return StackChoice("private", "the app names no broker")
    if is_in_process(own.url) and not insists:
        return StackChoice(
            "private",
            "the app's broker memory:// is in one process, where no worker could take jobs",
        )
    source = own.source if own.source.isupper() else f"{own.source} of {options.app}"
    reason = f"{source}, --manifest-broker=app" if insists else f"{source}; {_PRIVATE_INSTEAD}"
    if own.reads_from:
        reason += f"; the app's workers read from {redact_url(own.reads_from)}"
    return _at(own.url, "app", reason, source)


def project_app(options: Options, broker: str = "") -> StackAddress:
    """Return how the app is imported: from pytest's root folder, as workers import it."""
    put_root_on_path(options)
    return StackAddress(broker, "", options.app, is_private=False)


def put_root_on_path(options: Options) -> None:
    """Have what is imported from here on found in pytest's root folder."""
    root = str(options.root)
    if root not in sys.path:
        sys.path.insert(0, root)
        _on_path.now.callback(lambda: sys.path.remove(root) if root in sys.path else None)


_on_path: Final[ProcessState[ExitStack]] = ProcessState(ExitStack)
"""What takes the folders off ``sys.path`` again that this session has put there."""


def try_to_choose(manifests: ManifestStore) -> str:
    """Say where jobs would go, for a session that sends none and must not fail for that."""
    try:
        return choose_stack(manifests).words
    except (ManifestToolError, pytest.UsageError) as error:
        return f"that is not known yet: {error}"


def queues_by_app(options: Options, tasks: Iterable[str]) -> dict[str, str]:
    """Return the queue that the app sends each task to, where that can be told without sending."""
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.broker.routing import AppRouting, queue_name
    from pytest_manifest.schema import Entry

    if options.app is None:
        return {}
    try:
        app = load_app(project_app(options))
        routing = AppRouting(app, app.tasks)
        found = ((task, queue_name(routing(Entry(id="preview", task=task)))) for task in tasks)
        return {task: queue for task, queue in found if queue is not None}
    except Exception:  # of an app that cannot be imported, or whose routes look at arguments
        return {}


# The stack of this session


def stack_choice(runs: SessionRuns) -> StackChoice:
    """Return where the session's jobs go, decided at the first call."""
    runs.stack_choice = runs.stack_choice or choose_stack(runs.manifests)
    return runs.stack_choice


def earlier_runs(manifests: ManifestStore) -> list[EarlierRun]:
    """Return the runs to resume or audit, whose jobs are nowhere but on their stacks."""
    from pytest_manifest.plugin import run_history

    options = manifests.options
    find = run_history.newest_run if options.audit else run_history.run_to_resume
    return [find(options, manifest) for manifest in manifests.with_work]


def show_stack(reporter: pytest.TerminalReporter | None, runs: SessionRuns) -> None:
    """Write where the jobs go before any goes, where pytest's header has not said it.

    An audit sends none, and mostly asks no stack.
    """
    if runs.stack_shown or runs.context.options.audit:
        return
    with user_errors():
        choice = stack_choice(runs)
    runs.stack_shown = True
    if reporter is not None:
        begin_line(reporter)
        reporter.write_line(f"manifest: {choice.words}")


def start_stack_early(runs: SessionRuns) -> None:
    """Begin to start the private stack, so that it comes up while tests are being collected.

    Raises pytest.UsageError where no Celery application is named, or the stack cannot start.
    """
    quiet_console(runs.context.config)
    options = runs.context.options
    with user_errors():
        if runs.stack or stack_choice(runs).kind != "private":
            return
        app = _named_app(options, "the private stack")
        if options.backend:
            raise DispatchError(
                f"there is a result store and {app} names no broker; add --manifest-broker=URL"
            )
        if nothing_to_resume(runs.manifests):
            return
        put_root_on_path(options)
        runs.stack_data = _stack_data(runs)
        runs.own_key, key = key_for_own_workers(options)
        runs.stack = private_stack(options, key, runs.stack_data)
        runs.stack.start()


def private_stack(options: Options, key: str, data: Path | None = None) -> EmbeddedStack:
    """Make a private stack, which is not started.

    ``key``: what its workers sign with, as PEM; "": with none. ``data``: its broker's folder.
    """
    from pytest_manifest.stack.client import EmbeddedStack
    from pytest_manifest.stack.settings import Settings

    settings = Settings(
        app=_named_app(options, "the private stack"),
        workers=options.workers,
        cwd=str(options.root.resolve()),
        log_format=options.log_format,
        log_level=options.log_level,
        data=str(data.absolute()) if data is not None else "",
        signing_key=key,
    )
    return EmbeddedStack(settings)


def nothing_to_resume(manifests: ManifestStore) -> bool:
    """Check whether a resume finds that every entry has passed, so that no stack is needed."""
    options = manifests.options
    if not options.resume:
        return False

    from pytest_manifest.plugin import run_history

    with user_errors():
        return all(
            run_history.is_finished(options, one, manifests.share(one))
            for one in manifests.with_work
        )


def _stack_data(runs: SessionRuns) -> Path:
    """Return the data folder of the private broker: a new one, or the one that a resumed run left.

    Raises DispatchError where several runs have left one.
    """
    options, kept = runs.context.options, set[Path | None]()
    if options.resume:
        kept = {run.stack_data for run in earlier_runs(runs.manifests)} - {None}
    if len(kept) > 1:
        raise DispatchError(
            "the runs to go on with have left jobs in brokers of their own, and one stack can "
            "take up only one of them; resume these manifests one by one"
        )
    runs.stack_data_is_old = bool(kept)
    git_ignored_folder(options.folder)
    return next(filter(None, kept), options.stacks / secrets.token_hex(8))


def find_stack(runs: SessionRuns) -> tuple[StackAddress, int | None]:
    """Return the stack to use, once it answers, and its number of workers where that is known.

    Raises DispatchError where its results do not outlive this process and have to, and StackError
    where it does not answer.
    """
    options, choice = runs.context.options, stack_choice(runs)
    if choice.kind == "memory" and not (options.dispatch_only or options.audit):
        return _memory_stack(runs), 1
    if choice.kind == "private":
        start_stack_early(runs)
        assert runs.stack is not None
        address = runs.stack.wait_broker(START)
        _wait_workers(runs.stack, options)
        return address, 1
    address = external_address(options, choice)
    if is_rpc(address.backend_url) and (options.audit or options.dispatch_only or options.resume):
        raise DispatchError(
            "results of rpc:// go only to the process that sent the jobs; name a Redis or a "
            "database with --manifest-backend=URL"
        )
    reach(address, choice)
    _refuse_another_broker(runs.manifests, address)
    return address, None


def _wait_workers(stack: EmbeddedStack, options: Options) -> None:
    """Return once the worker takes jobs; raise StackError with what its app raises here, too.

    Celery says of an AttributeError, whatever raised it, that the module was not found.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.stack.private import USAGE_ERROR

    try:
        stack.wait_workers(START)
    except StackError:
        if stack.exits and stack.exits[-1].returncode == USAGE_ERROR:
            load_app(project_app(options))
        raise


def _refuse_another_broker(manifests: ManifestStore, address: StackAddress) -> None:
    """Raise DispatchError where a run to resume was sent elsewhere, and nobody named this broker.

    Its entries would be sent to a stack that they were not meant for.
    """
    from pytest_manifest.run.strategy import is_other_broker

    options = manifests.options
    for run in earlier_runs(manifests) if options.resume and not options.stack_named else ():
        if is_other_broker(run.info, address):
            was = "a private stack" if run.info.is_private else run.info.broker
            raise DispatchError(
                f"nothing was sent: run {run.info.run} was sent to {was}, and would go on at "
                f"{redact_url(address.broker_url)}; name the one that you mean with "
                "--manifest-broker=URL (the app's own: =app)"
            )


def reach(address: StackAddress, choice: StackChoice) -> None:
    """Return when the existing stack has answered; raise StackError with the ways out."""
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.stack.health import check_stack

    app = load_app(address) if address.app and not address.is_managed else None
    private = "run on a private stack with --manifest-broker=private"
    broker = f"it is what {choice.source} names; start it, or {private}, or name another with "
    store = f"start it, or name another with --manifest-backend=URL, or {private}"
    if choice.kind == "app":
        broker += "--manifest-broker=URL"
        check_stack(address, app=app, broker_hint=broker, store_hint=store)
    else:
        check_stack(address, app=app)


def stack_for_audit(runs: SessionRuns) -> StackAddress | None:
    """Return the stack that an audit queries; None where none is named and none runs.

    An app's own broker that does not answer is no error if nobody asked for it: the ledger alone is
    judged then, with a notice.
    """
    options = runs.context.options
    try:
        return None if stack_choice(runs).kind == "none" else find_stack(runs)[0]
    except StackError as error:
        if options.broker or options.stack_named or options.audit == "wait":
            raise
        runs.notices.append(str(error))
        return None


def _memory_stack(runs: SessionRuns) -> StackAddress:
    from pytest_manifest.plugin.outcome import JobsBeside
    from pytest_manifest.stack.in_memory import MemoryStack

    context = runs.context
    app = _named_app(context.options, "the stack in memory")
    runs.own_key, _ = key_for_own_workers(context.options)
    runs.memory_stack = MemoryStack(app=app, signing_key=runs.own_key)
    runs.memory_stack.start()
    context.config.pluginmanager.register(JobsBeside())
    return runs.memory_stack.address


def external_address(options: Options, choice: StackChoice) -> StackAddress:
    """Return the existing stack that was chosen, or the running ``manifest stack``.

    Raises DispatchError where there is none, or it cannot be used from several processes.
    """
    from pytest_manifest.results.stream import has_stream
    from pytest_manifest.stack.state import running_stack

    running = running_stack()
    if running is not None and choice.broker == running.broker_url and options.backend is None:
        return replace(running, app=options.app) if choice.kind != "running" else running
    if choice.kind in ("running", "none"):
        if running is None:
            raise DispatchError(
                "this needs a stack that outlives pytest: start one with 'manifest stack up', or "
                "name yours with --manifest-broker=URL"
            )
        return running
    if choice.kind == "memory":
        raise DispatchError(
            "a stack in memory ends with this pytest; leave --manifest-dispatch-only and "
            "--manifest-audit out, or name a stack that outlives pytest"
        )
    own = choice.broker if has_stream(choice.broker) else None
    backend = options.backend or _own_store(options, choice) or own
    if backend is None:
        raise DispatchError(
            f"{choice.words} is not a Redis that could keep results as well, and no result store "
            "is named. Name that of the workers with --manifest-backend=URL (the app: "
            "result_backend in its settings); workers without one are started with 'celery "
            "--result-backend=URL'"
        )
    if backend.startswith("cache+memory:"):
        raise DispatchError(
            "a result store in memory lives in one process; leave the URLs out for a private stack"
        )
    return StackAddress(choice.broker, backend, options.app, is_private=False)


def _own_store(options: Options, choice: StackChoice) -> str | None:
    """Return the result store that the app names, None where it names none.

    It cannot be found out from the broker, which does not know where results are kept.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.broker.stores import own_store

    if options.app is None:
        return None
    if choice.kind == "app" and (told := os.environ.get("CELERY_RESULT_BACKEND")):
        return told  # as Celery does; beside another broker it may speak of another stack
    return own_store(load_app(project_app(options, choice.broker)), choice.broker)
