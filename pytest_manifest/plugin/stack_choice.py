"""Decide where a session's jobs go, and say it: the app's own broker, a private stack, or another.

What is named by an option or the configuration file counts first, then ``manifest stack`` where it
is asked for, then what the app itself names. Only an app that names no broker gets a private stack
unasked. Nothing is connected to here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pytest_manifest.errors import DispatchError, ManifestToolError, StackError
from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.urls import is_in_process

if TYPE_CHECKING:
    from pytest_manifest.broker.client import OwnBroker
    from pytest_manifest.plugin.options import Options

StackKind = Literal["private", "app", "named", "running", "memory", "none"]
"""``named``: by an option, the file or the environment; ``running``: that of ``manifest stack``;
``none``: the session needs a stack that outlives it, and there is none."""

PRIVATE_INSTEAD: Final = "--manifest-broker=private for a private stack"
APP_INSTEAD: Final = "--manifest-broker=app for the app's own broker"


@dataclass(frozen=True, slots=True, repr=False)
class StackChoice:
    """The stack of a session's jobs; ``broker``: the URL with its password, "" where not known.

    ``reason``: in a phrase, why this one. ``source``: what named the broker, for error messages.
    """

    kind: StackKind
    reason: str
    broker: str = ""
    source: str = ""

    @property
    def words(self) -> str:
        """Return what the user is shown: the stack, and the reason in brackets."""
        return f"{self._stack} ({self.reason})"

    @property
    def _stack(self) -> str:
        shown = redact_url(self.broker)
        match self.kind:
            case "private":
                return "private stack"
            case "memory":
                return "stack in memory"
            case "app":
                return f"the app's own broker {shown}"
            case "running":
                return f"the stack that 'manifest stack up' keeps running, {shown}"
            case "none":
                return "no stack"
            case "named":
                return f"broker {shown}"


@dataclass(frozen=True, slots=True)
class EarlierStacks:
    """The stacks of runs to resume or audit: whether one was private; brokers without passwords."""

    private: bool = False
    brokers: frozenset[str] = frozenset()


def choose_stack(options: Options, earlier: Callable[[], EarlierStacks]) -> StackChoice:
    """Decide by the options, the environment and the app; the app is imported where it counts.

    ``earlier``: the stacks of the runs to resume or audit, whose jobs are nowhere else.

    Raises DispatchError where ``--manifest-broker=app`` is given and the app names no broker, and
    StackError where the app cannot be imported.
    """
    outlives = options.dispatch_only or bool(options.audit)
    if options.broker_named and not options.use_running_stack:
        return _named(options)
    if options.use_running_stack:
        return _running("--manifest-stack")
    if options.stack_word == "private":
        by = "--manifest-broker=private" if options.broker_given else "manifest_broker = private"
        return _running("it outlives pytest") if outlives else StackChoice("private", by)
    if options.resume and options.stack_word is None:
        before = earlier()
        if before.private and options.app is not None:
            return StackChoice("private", f"the run to resume had one; {APP_INSTEAD}")
        running = _running("the run to resume was sent there")
        if running.broker and before.brokers == {redact_url(running.broker)}:
            return running
    if options.app is None:
        return _without_app(options, outlives=outlives)
    if outlives and options.stack_word is None and options.broker is None:
        running = _running("it outlives pytest")
        if running.kind == "running" and (
            not options.audit or redact_url(running.broker) in earlier().brokers
        ):
            return running
    return _by_app(options, _own_broker(options), outlives=outlives)


def try_to_choose(options: Options, earlier: Callable[[], EarlierStacks]) -> str:
    """Say where jobs would go, for a session that sends none and must not fail for that."""
    try:
        return choose_stack(options, earlier).words
    except (ManifestToolError, pytest.UsageError) as error:
        return f"that is not known yet: {error}"


def queues_by_app(options: Options, tasks: Iterable[str]) -> dict[str, str]:
    """Return the queue that the app sends each task to, where that can be told without sending."""
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.broker.routing import AppRouting, queue_name
    from pytest_manifest.schema import Entry
    from pytest_manifest.urls import StackAddress

    if options.app is None:
        return {}
    put_root_on_path(options)
    try:
        app = load_app(StackAddress("", "", options.app, is_private=False))
        routing = AppRouting(app, app.tasks)
        found = ((task, queue_name(routing(Entry(id="preview", task=task)))) for task in tasks)
        return {task: queue for task, queue in found if queue is not None}
    except Exception:  # of an app that cannot be imported, or whose routes look at arguments
        return {}


def _named(options: Options) -> StackChoice:
    assert options.broker is not None
    by = "--manifest-broker" if options.broker_given else "manifest_broker in the configuration"
    return StackChoice(_kind_of(options.broker, "named"), by, options.broker, by)


def _kind_of(broker: str, other: StackKind) -> StackKind:
    return "memory" if is_in_process(broker) else other


def _running(reason: str) -> StackChoice:
    from pytest_manifest.stack.state import running_stack

    running = running_stack()
    if running is None:
        return StackChoice("none", "'manifest stack up' starts one")
    return StackChoice("running", reason, running.broker_url)


def _without_app(options: Options, *, outlives: bool) -> StackChoice:
    if options.stack_word == "app" and not options.broker:
        raise DispatchError(
            "--manifest-broker=app needs your Celery application: add --manifest-app=module:app, "
            "or the ini option manifest_app"
        )
    if options.broker:
        by = options.environment_source
        kind = _kind_of(options.broker, "named")
        return StackChoice(kind, f"{by}; {PRIVATE_INSTEAD}", options.broker, by)
    if outlives:
        return _running("it outlives pytest")
    return StackChoice("private", "no Celery app is named: --manifest-app=module:app")


def _own_broker(options: Options) -> OwnBroker | None:
    """Import the app, and return the broker that it names; None where it names none."""
    from pytest_manifest.broker.client import load_app, own_broker
    from pytest_manifest.urls import StackAddress

    put_root_on_path(options)
    app = load_app(StackAddress("", "", options.app, is_private=False))
    try:
        return own_broker(app)
    except (Exception, SystemExit) as error:  # of the app's settings, which are read only now
        raise StackError(
            f"the settings of the Celery app {options.app!r} cannot be read "
            f"({redact(f'{type(error).__name__}: {error}')}); mend them, or what they need"
        ) from error


def _by_app(options: Options, own: OwnBroker | None, *, outlives: bool) -> StackChoice:
    insists = options.stack_word == "app"
    if own is None and insists:
        raise DispatchError(
            f"--manifest-broker=app: the app {options.app} names no broker (Celery would take its "
            "default amqp://guest@localhost//, which is nobody's choice); set broker_url in the "
            "app's settings or CELERY_BROKER_URL, or leave the option out for a private stack"
        )
    if own is None:
        none = "the app names no broker"
        if outlives:
            return _running("it outlives pytest")
        return StackChoice("private", none)
    if is_in_process(own.url) and not insists:
        return StackChoice(
            "private",
            "the app's broker memory:// is in one process, where no worker could take jobs",
        )
    is_variable = own.source.isupper()
    source = own.source if is_variable else f"{own.source} of {options.app}"
    reason = f"{source}, --manifest-broker=app" if insists else f"{source}; {PRIVATE_INSTEAD}"
    if own.reads_from:
        reason += f"; the app's workers read from {redact_url(own.reads_from)}"
    return StackChoice(_kind_of(own.url, "app"), reason, own.url, source)


def put_root_on_path(options: Options) -> None:
    """Have the app imported from pytest's root folder, as workers import it."""
    root = str(options.root)
    if root not in sys.path:
        sys.path.insert(0, root)
        _on_path.now.folders.append(root)


class _OnPath:
    """The folders that this session has put on ``sys.path``."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def close(self) -> None:
        """Take them off."""
        for folder in self.folders:
            if folder in sys.path:
                sys.path.remove(folder)


_on_path: Final = ProcessState(_OnPath)
