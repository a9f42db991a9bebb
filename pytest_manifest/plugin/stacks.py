"""Choose the stack of a session: the embedded one, one in memory, or an existing one by its URL."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.console import quiet_console
from pytest_manifest.errors import DispatchError
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.run_history import is_finished, kept_stack_data
from pytest_manifest.plugin.runtest import OthersLogs
from pytest_manifest.plugin.session_runs import SessionRuns

if TYPE_CHECKING:
    from pytest_manifest.urls import StackAddress

EMBEDDED_START = 60.0
"""Seconds that the embedded stack may take to start on a slow machine."""
MEMORY = ("memory://", "memory://localhost", "memory://localhost/")


def wants_embedded_stack(options: Options) -> bool:
    """Check whether the options name no stack, so that the session starts an embedded one."""
    outlives = options.dispatch_only or options.audit or options.use_running_stack
    return options.broker is None and not outlives


def start_stack_early(session_runs: SessionRuns, manifests: ManifestStore) -> None:
    """Begin to start the embedded stack, so that it comes up while tests are being collected.

    Raises pytest.UsageError where no Celery application is named, or the stack cannot start.
    """
    quiet_console()
    options = session_runs.context.options
    if session_runs.stack is not None or not wants_embedded_stack(options):
        return
    from pytest_manifest.stack.embedded import EmbeddedStack

    if not options.app:
        raise pytest.UsageError(
            "the embedded stack needs your Celery application: add --manifest-app=module:app, or "
            "the ini option manifest_app; for an existing stack add --manifest-broker=URL"
        )
    if nothing_to_resume(manifests):
        return
    with user_errors():
        session_runs.stack_data = _stack_data(session_runs, manifests)
        session_runs.stack = EmbeddedStack(
            app=options.app,
            workers=options.workers,
            cwd=options.root,
            log_format=options.log_format,
            log_level=options.log_level,
            data=session_runs.stack_data,
        )
        session_runs.stack.start()


def nothing_to_resume(manifests: ManifestStore) -> bool:
    """Check whether a resume finds that every entry has passed, so that no stack is needed."""
    options = manifests.options
    if not options.resumes:
        return False
    with user_errors():
        own = map(manifests.load, manifests.files_with_work)
        return all(is_finished(options, one, manifests.share(one)) for one in own)


def _stack_data(session_runs: SessionRuns, manifests: ManifestStore) -> Path:
    """Return the data folder of the embedded broker: a new one, or the one that a resumed run left.

    Raises DispatchError where several runs have left one.
    """
    options = manifests.options
    kept: set[Path] = set()
    if options.resumes:
        own = map(manifests.load, manifests.files_with_work)
        found = [kept_stack_data(options, one) for one in own]
        kept = {path for path in found if path is not None}
    if len(kept) > 1:
        raise DispatchError(
            "the runs to go on with have left jobs behind in brokers of their own, and one stack "
            "can take up only one of them; resume these manifests one by one"
        )
    if kept:
        session_runs.stack_data_is_old = True
        return kept.pop()
    return options.stacks / secrets.token_hex(8)


def find_stack(
    session_runs: SessionRuns, manifests: ManifestStore
) -> tuple[StackAddress, int | None]:
    """Return the stack to use, once it answers, and its number of workers where that is known.

    Raises DispatchError where its results do not outlive this process and have to.
    """
    options = manifests.options
    if options.broker in MEMORY and not (options.dispatch_only or options.audit):
        return _memory_stack(session_runs), 1
    if wants_embedded_stack(options):
        start_stack_early(session_runs, manifests)
        assert session_runs.stack is not None
        address = session_runs.stack.wait_broker(EMBEDDED_START)
        session_runs.stack.wait_workers(EMBEDDED_START)
        return address, options.workers
    address = external_address(options)
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.results.backend_results import needs_this_process
    from pytest_manifest.stack.health import check_stack

    later = options.audit or options.dispatch_only or options.resumes
    if needs_this_process(address) and later:
        raise DispatchError(
            "results of rpc:// come back only to the process that sent the jobs, so nobody "
            "can look at them later; name a Redis or a database with --manifest-backend=URL"
        )
    check_stack(address, app=load_app(address) if address.app and not address.is_managed else None)
    return address, None


def stack_for_audit(session_runs: SessionRuns, manifests: ManifestStore) -> StackAddress | None:
    """Return the stack that an audit queries; None where none is named and none runs."""
    from pytest_manifest.stack.state import running_stack

    options = manifests.options
    if options.broker is None and not options.use_running_stack and running_stack() is None:
        return None
    return find_stack(session_runs, manifests)[0]


def _memory_stack(session_runs: SessionRuns) -> StackAddress:
    from pytest_manifest.stack.in_memory import MemoryStack

    context = session_runs.context
    if not context.options.app:
        raise pytest.UsageError(
            "the stack in memory needs your Celery application: add --manifest-app=module:app, or "
            "the ini option manifest_app"
        )
    session_runs.memory_stack = MemoryStack(app=context.options.app)
    session_runs.memory_stack.start()
    context.config.pluginmanager.register(OthersLogs())
    return session_runs.memory_stack.address


def external_address(options: Options) -> StackAddress:
    """Return the existing stack that the options name, or the running ``manifest stack``.

    Raises DispatchError where there is none, or it cannot be used from several processes.
    """
    from pytest_manifest.results.stream import has_stream
    from pytest_manifest.stack.state import running_stack
    from pytest_manifest.urls import StackAddress

    running = running_stack()
    if running is not None and options.broker == running.broker_url and options.backend is None:
        return replace(running, app=options.app)
    if options.broker is None or options.use_running_stack:
        if running is None:
            raise DispatchError(
                "this needs a stack that outlives pytest: start one with 'manifest stack up', "
                "or name yours with --manifest-broker=URL"
            )
        return running
    if options.broker in MEMORY:
        raise DispatchError(
            "a stack in memory ends with this pytest, so nobody can look at it later; leave "
            "--manifest-dispatch-only and --manifest-audit out, or name a stack that outlives "
            "pytest"
        )
    backend = options.backend or _own_store(options)
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
    return StackAddress(options.broker, backend, options.app, is_private=False)


def _own_store(options: Options) -> str | None:
    """Return the result store that the app names, None where it names none.

    It cannot be found out from the broker, which does not know where results are kept.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.broker.stores import own_store
    from pytest_manifest.urls import StackAddress

    if options.app is None or options.broker is None or options.broker.startswith("memory:"):
        return None
    app = load_app(StackAddress(options.broker, "", options.app, is_private=False))
    return own_store(app, options.broker)
