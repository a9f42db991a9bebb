"""Build the commands of the stack's processes; secrets go by file or environment alone."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_manifest import variables
from pytest_manifest.broker.celery_settings import environment
from pytest_manifest.stack.child import Child
from pytest_manifest.stack.data import DataFolder
from pytest_manifest.stack.private import READY_VARIABLE, URL_VARIABLE
from pytest_manifest.stack.settings import FLOWER_USER, WORKER_PREFIX, Settings
from pytest_manifest.stack.valkey import HOST, write_configuration

# Flower's own choice leaves out what tells one job from another.
FLOWER_COLUMNS = "name,kwargs,args,state,received,runtime,worker,uuid"
# Levels that loguru has and celery has not.
CELERY_LEVELS = {"TRACE": "DEBUG", "SUCCESS": "INFO"}


READY_SUFFIX = ".ready"


def ready_file(directory: Path, worker: str) -> Path:
    """Name the file to which a worker writes its pid once it takes jobs."""
    return directory / f"{worker}{READY_SUFFIX}"


def broker_url(port: int, password: str) -> str:
    return f"redis://:{password}@{HOST}:{port}/0"


def broker_child(
    settings: Settings, directory: Path, port: int, password: str, data: DataFolder | None
) -> Child:
    """Make the private Valkey, with its files in the data folder or in ``directory``."""
    kept = data.path if data is not None else directory
    configuration = write_configuration(directory, port, password, data=kept)
    return Child(
        "broker",
        [settings.server, str(configuration)],
        env=dict(os.environ),
        cwd=directory,
        log=directory / "valkey.log",
        gently=data is not None,
        # Without supervisor and watchdog it still holds the folder until it has written all.
        holds=[data.lock] if data is not None else [],
    )


def worker_children(
    settings: Settings, directory: Path, url: str, data: DataFolder | None
) -> list[Child]:
    """Make stock celery workers with one pool child each, not started yet."""
    spool = data.spool if data is not None else directory / "spool"
    spool.mkdir(mode=0o700, exist_ok=True)
    env = _environment(url) | {
        variables.SUPERVISED: "1",
        variables.LOG_FORMAT: settings.log_format,
        variables.LOG_LEVEL: settings.log_level,
        variables.SPOOL: str(spool),
    }
    if not settings.detached:  # its log is not followed while it runs
        env[variables.LOG_JOBS] = "0"
    return [
        Child(
            name,
            _worker_command(settings, name),
            env=env | {READY_VARIABLE: str(ready_file(directory, name))},
            cwd=Path(settings.cwd),
            log=directory / f"worker-{number}.log",
        )
        for number, name in ((n, f"{WORKER_PREFIX}{n}") for n in range(1, settings.workers + 1))
    ]


def flower_child(settings: Settings, directory: Path, url: str, port: int, password: str) -> Child:
    """Make Flower on loopback, behind the stack's password."""
    env = _environment(url) | {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}"}
    env.setdefault("FLOWER_TASKS_COLUMNS", FLOWER_COLUMNS)
    module = "pytest_manifest.stack.celery_program"
    command = [settings.python, "-m", module, "celery", "-A", settings.app, "flower"]
    # Above a flowerconfig.py of the project's, which knows another broker and other files.
    command += [f"--address={HOST}", f"--port={port}", "--persistent=False", "--broker-api="]
    return Child(
        "flower",
        command,
        env=env,
        cwd=Path(settings.cwd),
        log=directory / "flower.log",
    )


def _environment(url: str) -> dict[str, str]:
    return dict(os.environ) | environment(url, os.environ) | {URL_VARIABLE: url}


def _worker_command(settings: Settings, name: str) -> list[str]:
    command = [
        settings.python,
        "-m",
        "pytest_manifest.stack.celery_program",
        "celery",
        # The banner is not JSON.
        *(["--quiet"] if settings.log_format == "json" else []),
        "-A",
        settings.app,
        "worker",
        "--concurrency=1",
        "--pool=prefork",
        "--prefetch-multiplier=1",
        "--disable-prefetch",
        "--without-gossip",
        "--without-mingle",
        # Flower lives on events, and by their heartbeats it knows which workers are alive.
        "--task-events" if settings.flower else "--without-heartbeat",
        "-n",
        f"{name}@%h",
        f"--loglevel={CELERY_LEVELS.get(settings.log_level, settings.log_level)}",
    ]
    if settings.include:
        command += ["-I", settings.include]
    return command
