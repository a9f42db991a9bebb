"""Sessions of pytest in processes of their own, forked from one that has imported what they need.

Imports are two thirds of what a session of a few jobs takes, and tests run more than a thousand.
A server (``multiprocessing``'s), started with the first session, imports libraries and this package
but no plugin of pytest; for each session it forks a process, which sets folder, environment and
output, and is ``python -m pytest`` from there on. Processes which that one starts are the usual
ones: xdist's and Celery's workers. Sessions that are interrupted or killed, and those of the live
tests and of the documents, are not forked.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing

# Here, before any test: pytester forgets what is imported in one, and with it the server that was
# started, which would stay, and be joined by another one for each test.
import multiprocessing.forkserver
import multiprocessing.popen_forkserver
import multiprocessing.resource_tracker
import multiprocessing.synchronize
import os
import pkgutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

LIBRARIES = (
    *("pytest", "_pytest.pytester", "pygments.lexers.python", "attr", "asyncio", "sqlite3"),
    *("celery.app.base", "celery.app.amqp", "celery.app.control", "celery.app.events"),
    *("celery.app.task", "celery.canvas", "celery.result", "celery.backends.redis"),
    *("celery.worker", "celery.apps.worker", "celery.concurrency.solo", "celery.fixups.django"),
    *("kombu.transport.redis", "kombu.transport.memory", "redis", "pydantic", "loguru"),
    *("xml.etree.ElementTree", "allure_commons.model2", "allure_commons.logger"),
)
OWN = (
    *("analysis", "broker", "plugin", "ledger", "log", "manifest", "planning", "results"),
    *("reporting", "run", "schema", "stack", "testing", "verdict", "worker"),
)
NOT_BEFORE = (".__main__", ".xdist_controller", ".xdist_scheduler")
"""Not to be imported; and importing xdist, a plugin, of which pytest says it came too early."""
ENDED_OTHERWISE = 70
"""The status of a session that ended without one of pytest's."""


def load() -> None:
    """In the server, before it forks."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for part in OWN:
        package = importlib.import_module(f"pytest_manifest.{part}")
        for path in getattr(package, "__path__", ()):
            for module in pkgutil.walk_packages([path], f"{package.__name__}."):
                if not module.name.endswith(NOT_BEFORE):
                    importlib.import_module(module.name)
    gc.freeze()  # no session's collection goes through all that


def server() -> ForkServerContext:
    """What starts processes by the server."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([f"{__package__}.forked_imports"])
    return made


def session(arguments: Sequence[str], outputs: Sequence[Path], timeout: float) -> int | None:
    """Run pytest in this process' folder and with its environment, standard output and errors into
    files; returns its status, or None for one that was killed since its time was over."""
    process = server().Process(
        target=_be_pytest,
        args=(str(Path.cwd()), dict(os.environ), list(arguments), [str(path) for path in outputs]),
    )
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _be_pytest(
    folder: str, environment: Mapping[str, str], arguments: list[str], outputs: list[str]
) -> None:
    for number, path in enumerate([os.devnull, *outputs]):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # the project may have tests of its own
    import pytest

    sys.argv = [pytest.__file__.replace("__init__", "__main__"), *arguments]
    status = ENDED_OTHERWISE
    try:
        status = int(pytest.console_main())
    except Exception:
        traceback.print_exc()  # as Python itself would
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
