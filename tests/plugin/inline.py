"""Sessions of pytest in this very process, which is afterwards as it was before.

Starting a process and its imports are most of what a short session takes, and tests play hundreds.
A session here finds what one of a fresh process does: no app of Celery's, loguru's first handler,
Python's own filters of warnings, default handlers of signals, and none of the modules that this
suite or an earlier session has imported from a project. Whatever it changes of that is put back;
``leaks`` says what the plugin itself should have put back, and has not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import os
import pkgutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any, Final
from weakref import ReferenceType

import pytest

from tests.plugin.leaks import AT_IMPORT, OURS, Marks

LIBRARIES: Final = (
    *("pytest", "_pytest.pytester", "pygments.lexers.python", "attr", "asyncio", "sqlite3"),
    *("celery.app.base", "celery.app.amqp", "celery.app.control", "celery.app.events"),
    *("celery.app.task", "celery.canvas", "celery.result", "celery.backends.redis"),
    *("celery.worker", "celery.apps.worker", "celery.concurrency.solo", "celery.fixups.django"),
    *("kombu.transport.redis", "kombu.transport.memory", "redis", "pydantic", "loguru"),
    *("xml.etree.ElementTree", "allure_commons.model2", "allure_commons.logger"),
)
OWN: Final = (
    *("analysis", "broker", "plugin", "ledger", "log", "manifest", "planning", "results"),
    *("reporting", "run", "schema", "stack", "testing", "verdict", "worker"),
)
HIDDEN: Final = ("tests", "tasks", "workflows", "benchmarks", "conftest")
"""Modules of this suite by names that a project may have, too."""
PATCHED: Final = ("pytest_manifest", "_pytest")
"""Packages of which projects of tests replace functions."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROJECTS: Final = (tempfile.gettempdir() + os.sep, os.path.realpath(tempfile.gettempdir()) + os.sep)
"""Where the folders of tests are, whichever of them a session imports from."""
INSTALLED: Final = (str(Path(__file__).resolve().parents[2]) + os.sep, sys.prefix + os.sep)
"""Where this checkout and its packages are, which may be a temporary folder, too."""
ENDED_OTHERWISE: Final = 70
"""The status of a session that ended without one of pytest's."""
THREADS_END: Final = 10.0
"""Seconds in which the threads of a session must have ended after it."""


class SessionTooLongError(BaseException):
    """Raised in a session that goes on for longer than it may."""


def load() -> None:
    """Import what sessions need, so that none of them does, nor any test forgets it again."""
    if f"{__name__}.loaded" in sys.modules:
        return
    for name in LIBRARIES:
        importlib.import_module(name)
    for part in OWN:
        package = importlib.import_module(f"pytest_manifest.{part}")
        for path in getattr(package, "__path__", ()):
            for module in pkgutil.walk_packages([path], f"{package.__name__}."):
                if not module.name.endswith(".__main__"):
                    _load_one(module.name)
    sys.modules[f"{__name__}.loaded"] = ModuleType("loaded")
    gc.collect()
    gc.freeze()  # no session's collection goes through all that


def _load_one(name: str) -> None:
    """Import a module, unless it stands on a package of an extra that is not here."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pytest_manifest":
            raise


def session(
    folder: Path, arguments: Sequence[str], outputs: tuple[Path, Path], seconds: float
) -> tuple[int, list[str]]:
    """Play ``python -m pytest ARGUMENTS`` in this folder, standard output and errors into files.

    Returns its status, and what it has left in this process. Raises SessionTooLongError.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a session in this process needs its main thread: use run_process")
    load()
    with ExitStack() as parts:
        for part in (
            _descriptors(outputs),
            _surroundings(folder),
            _modules(),
            _patches(),
            _warnings(),
            _logging(),
            _loguru(),
            _celery(),
            _xdist(),
            _signals(seconds),
            _exit_functions(),
        ):
            parts.enter_context(part)
        marks = Marks()
        status = _be_pytest(arguments)
        _flush()
        _end_reruns()
        left = marks.left(THREADS_END)
    return status, left


def keep_modules(pytester: pytest.Pytester) -> None:
    """Have pytester keep what has been imported by now: libraries, which were not to come twice."""
    theirs: Any = pytester
    theirs._sys_modules_snapshot = theirs._Pytester__take_sys_modules_snapshot()


def _be_pytest(arguments: Sequence[str]) -> int:
    sys.argv = [pytest.__file__.replace("__init__", "__main__"), *arguments]
    try:
        return int(pytest.console_main())
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else ENDED_OTHERWISE
    except Exception:
        traceback.print_exc()  # as Python itself would
        return ENDED_OTHERWISE


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _end_reruns() -> None:
    """End the server that pytest-rerunfailures starts beside xdist, and leaves to its process."""
    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        for thread in threading.enumerate():
            serves: Any = getattr(getattr(thread, "_target", None), "__self__", None)
            if serves is not None and type(serves).__name__ == "ServerStatusDB":
                with contextlib.suppress(OSError):
                    serves.sock.shutdown(socket.SHUT_RDWR)  # its thread raises, and says so
                thread.join(THREADS_END)
                serves.sock.close()
    finally:
        threading.excepthook = hook


@contextmanager
def _descriptors(outputs: tuple[Path, Path]) -> Iterator[None]:
    """Lead the standard descriptors, and Python's streams, to these files, and input to nothing."""
    _flush()
    saved = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    for number, path in enumerate([Path(os.devnull), *outputs]):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    own = [os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")]
    sys.stdin, sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        for stream in own[1:]:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """Keep folder, environment, umask, arguments and the place of modules."""
    kept = Path.cwd(), dict(os.environ), sys.argv, list(sys.path), list(sys.meta_path)
    umask = os.umask(0)
    os.umask(umask)
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(kept[0])
        _restore_environment(kept[1])
        sys.argv, sys.path[:], sys.meta_path[:] = kept[2], kept[3], kept[4]
        os.umask(umask)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        for place in [one for one in sys.path_importer_cache if one.startswith(PROJECTS)]:
            del sys.path_importer_cache[place]


def _restore_environment(kept: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in kept]:
        del os.environ[name]
    for name, value in kept.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@contextmanager
def _modules() -> Iterator[None]:
    """Have no modules of this suite's, nor of any project's, before or after; libraries stay."""
    hidden = {
        name: one
        for name, one in sys.modules.items()
        if name.partition(".")[0] in HIDDEN or _is_of_project(one)
    }
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name not in before]:
            is_made = getattr(sys.modules[name], "__spec__", None) is None  # without a file
            if is_made or name.partition(".")[0] in HIDDEN or _is_of_project(sys.modules[name]):
                del sys.modules[name]
        sys.modules.update(hidden)


@contextmanager
def _patches() -> Iterator[None]:
    """Put back what a project's conftest.py replaces in the plugin, or in pytest."""
    owners = [(one, dict(vars(one))) for one in _patched()]
    try:
        yield
    finally:
        for owner, before in owners:
            now = vars(owner)
            for name in [name for name, one in before.items() if now.get(name) is not one]:
                if isinstance(before[name], (FunctionType, type)):
                    setattr(owner, name, before[name])


def _patched() -> Iterator[ModuleType | type]:
    """Yield the modules whose functions projects of tests replace, and their classes."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PATCHED:
            yield module
            for one in list(vars(module).values()):
                if isinstance(one, type) and one.__module__ == name:
                    yield one


def _is_of_project(module: ModuleType) -> bool:
    """Whether a module was imported from a folder of none of the installed packages."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    named = [one for one in places if isinstance(one, str)]
    return any(one.startswith(PROJECTS) and not one.startswith(INSTALLED) for one in named)


@contextmanager
def _warnings() -> Iterator[None]:
    """Begin with the filters that Python begins with."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for kind in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        yield


@contextmanager
def _logging() -> Iterator[None]:
    """Begin with a root logger that has no handlers; put back what loggers had."""
    root = logging.getLogger()
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    kept = [
        (one, one.level, one.propagate, one.disabled, list(one.handlers), list(one.filters))
        for one in (root, *loggers)
    ]
    factory, disabled = logging.getLogRecordFactory(), root.manager.disable
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        logging.disable(disabled)
        for one, level, propagate, is_disabled, handlers, filters in kept:
            one.setLevel(level)
            one.propagate, one.disabled = propagate, is_disabled
            one.handlers[:], one.filters[:] = handlers, filters


@contextmanager
def _loguru() -> Iterator[None]:
    """Begin with loguru's first handler alone, which writes to standard error."""
    from loguru import logger

    core: Any = logger._core  # type: ignore[attr-defined]  # loguru's types leave it out
    kept = core.handlers, core.min_level, core.patcher, core.extra
    core.handlers = {}
    number = logger.add(sys.stderr)
    core.handlers = {0: core.handlers[number]}
    try:
        yield
    finally:
        core.handlers, core.min_level, core.patcher, core.extra = kept


@contextmanager
def _celery() -> Iterator[None]:
    """Begin without an app, and without receivers of signals that this suite's apps have.

    Those and what every new app gets are put back.
    """
    from celery import _state, signals
    from celery.utils.dispatch import Signal
    from kombu import pools

    from pytest_manifest.worker.signals import Connections, connections

    state: Any = _state
    known = [one for one in vars(signals).values() if isinstance(one, Signal)]
    receivers = [(one, list(one.receivers)) for one in known]
    kept = state._tls.current_app, state.default_app, set(state._on_app_finalizers)
    state._tls.current_app, state.default_app = None, None
    # Not what modules of this suite have given every app by @shared_task.
    own = {one for one in kept[2] if one.__module__ == "celery.app.builtins"}
    state._on_app_finalizers = own
    for one, had in receivers:
        one.receivers[:] = [entry for entry in had if not _is_of_suite(entry)]
        one.sender_receivers_cache.clear()
    connected, connections.now = connections.now, Connections()
    try:
        yield
    finally:
        connections.now = connected
        state._tls.current_app, state.default_app, state._on_app_finalizers = kept
        for one, had in receivers:
            one.receivers[:] = had
            one.sender_receivers_cache.clear()
        pools.reset()


def _is_of_suite(entry: tuple[tuple[object, object], object]) -> bool:
    """Whether a receiver was connected by a module or for an app of this suite's."""
    (identity, _), receiver = entry
    found = receiver() if isinstance(receiver, ReferenceType) else receiver
    package = str(getattr(found, "__module__", "")).partition(".")[0]
    return package in HIDDEN or (package == OURS and identity not in AT_IMPORT)


@contextmanager
def _xdist() -> Iterator[None]:
    """Have workers import from where this session does: xdist notes that when it is imported."""
    from xdist import plugin

    kept = list(plugin._sys_path)
    plugin._sys_path[:] = sys.path
    try:
        yield
    finally:
        plugin._sys_path[:] = kept


@contextmanager
def _signals(seconds: float) -> Iterator[None]:
    """Have signals end a session as they end a process, and end it after so many seconds."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise SessionTooLongError

    kept = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, too_long)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)
        if left:
            rest = max(0.1, left - (time.monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, rest)


@contextmanager
def _exit_functions() -> Iterator[None]:
    """Call what a session has left for the end of its process."""
    given = atexit.register
    calls: list[Callable[[], object]] = []

    def register(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        calls.append(lambda: call(*args, **kwargs))
        return call

    atexit.register = register  # type: ignore[assignment]  # for a while
    try:
        yield
    finally:
        atexit.register = given
        for one in reversed(calls):
            one()
