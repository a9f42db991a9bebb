"""Start a cell's servers and worker, run the contract's work on it, and take all down again."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import processes
from tests.contract.app import ROUTED
from tests.contract.stacks import OTHER_QUEUE, ROOT
from tests.stacks.app import SETTINGS
from tests.stacks.cells import Cell
from tests.stacks.measure import APP
from tests.stacks.servers import SERVERS, Server, Settings

LONGEST: Final = 240.0
"""Seconds for a cell's work; one that takes longer hangs."""
READY: Final = " ready."
AGAIN: Final = 'trap "exit 0" TERM; while :; do "$@" & wait $!; done'
"""A shell's words for: whenever it ends, start it again."""


@dataclass(frozen=True)
class Running:
    """A cell that is up: its servers, the worker's process, and what belongs to them."""

    broker: Server
    store: Server
    folder: Path
    environment: Mapping[str, str]
    worker: subprocess.Popen[bytes]


@contextmanager
def running(cell: Cell) -> Iterator[Running]:
    """Start a cell's servers and worker; end them and remove what they wrote."""
    with ExitStack() as stack:
        broker, store = _servers(cell, stack)
        folder = stack.enter_context(processes.temporary_directory())
        environment = _environment(cell, broker, store)
        worker = stack.enter_context(_worker(cell, folder, environment))
        if cell.beat:
            stack.enter_context(_beat(folder, environment))
        yield Running(broker, store, folder, environment, worker)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Give what :mod:`tests.stacks.measure` says of the cell."""
    with running(cell) as up:
        job = {
            "broker": up.broker.broker,
            "store": up.store.store,
            "folder": str(up.folder / "run"),
            "has_remote_control": up.broker.has_remote_control,
            "seconds": max(up.broker.seconds, cell.seconds),
        }
        (up.folder / "run").mkdir()
        (up.folder / "job.json").write_text(json.dumps(job))
        return _measured(up.folder, up.environment)


def _servers(cell: Cell, stack: ExitStack) -> tuple[Server, Server]:
    broker = stack.enter_context(SERVERS[cell.broker]())
    if cell.store == cell.broker:
        return broker, broker
    return broker, stack.enter_context(SERVERS[cell.store]())


def _environment(cell: Cell, broker: Server, store: Server) -> dict[str, str]:
    settings: dict[str, object] = {
        "broker_url": broker.broker,
        "result_backend": store.store,
        **store.store_settings,
        **_merged(broker.broker_settings, cell.settings),
    }
    variables = {**broker.variables, **store.variables}
    inherited = {name: value for name, value in os.environ.items() if "CELERY" not in name}
    # As root Celery refuses to read pickles; what comes here is our own.
    return inherited | variables | {SETTINGS: json.dumps(settings), "C_FORCE_ROOT": "1"}


def _merged(one: Settings, other: Settings) -> dict[str, object]:
    """Put two sets of settings together; those that are mappings by their keys."""
    merged = dict(one)
    for name, value in other.items():
        had = merged.get(name)
        is_pair = isinstance(had, Mapping) and isinstance(value, Mapping)
        merged[name] = {**had, **value} if is_pair else value  # type: ignore[dict-item]  # both are
    return merged


@contextmanager
def _worker(
    cell: Cell, folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    name = f"w{secrets.token_hex(4)}@localhost"
    queues = f"celery,{ROUTED},{OTHER_QUEUE}"
    command = [sys.executable, "-m", "celery", "-A", APP, "worker", "-n", name, "-l", "info"]
    command += ["-P", cell.pool, "-Q", queues, *(cell.options or ("-c", "1"))]
    command += ["-I", "pytest_manifest.worker"] if cell.is_instrumented else []
    if cell.pool == "solo":
        # A job that ends its process ends the worker, whose owner starts another.
        command = ["sh", "-c", AGAIN, "sh", *command]
    log = folder / "worker.log"
    with processes.child(command, log=log, cwd=ROOT, env=environment) as process:
        processes.wait_until(
            lambda: READY in log.read_text(errors="replace"), process, log=log, name="the worker"
        )
        yield process


@contextmanager
def _beat(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", APP, "beat", "-l", "info"]
    command += ["-s", str(folder / "schedule"), "--pidfile", ""]
    log = folder / "beat.log"
    with processes.child(command, log=log, cwd=ROOT, env=environment) as process:
        processes.wait_until(
            lambda: "Sending due task" in log.read_text(errors="replace"),
            process,
            log=log,
            name="beat",
        )
        yield


def _measured(folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.stacks.measure", str(folder / "job.json")]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end within {LONGEST:g} s\n{_logs(folder)}") from None
    if done.returncode:
        raise AssertionError(f"{done.stderr[-4000:]}\n{_logs(folder)}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told["wall"] = round(time.monotonic() - began, 1)
    return told


def _logs(folder: Path) -> str:
    return processes.tail(folder / "worker.log", 30)
