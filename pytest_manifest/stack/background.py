"""Start, show and end the stack that runs in the background."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest import log
from pytest_manifest.errors import StackError
from pytest_manifest.ini import batch_setting, put_on_path
from pytest_manifest.processes import has_ended, pid_scope
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.stack import settings
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.state import (
    changing,
    clean_up,
    is_up,
    read_state,
    runtime_directory,
    state_file,
)
from pytest_manifest.stack.valkey import is_listening

DOWN_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.02
FOLLOW_SECONDS: Final = 0.2


def default_app(folder: Path) -> str:
    """Give the app that MANIFEST_APP or pytest's ``manifest_app`` names, or raise StackError."""
    app = os.environ.get("MANIFEST_APP")
    if app:
        return app
    named = batch_setting(folder, "manifest_app")
    if named is None:
        raise StackError(
            "which Celery app? give --app=MODULE:ATTRIBUTE, set MANIFEST_APP, or set manifest_app "
            f"in pytest's configuration in {folder}"
        )
    return named


def up(wanted: settings.Settings, timeout: float) -> Iterator[str]:
    """Start the stack unless it is up, and wait until it is ready; yields lines for the user.

    ``timeout``: seconds until its worker takes jobs.
    """
    directory = runtime_directory()
    with changing(directory):
        state = read_state(directory)
        if state is not None:
            _require_same(state, wanted)
            yield "already up"
        else:
            clean_up(directory)
            _start(wanted, directory, timeout)
            state = read_state(directory)
            if state is None:
                raise StackError("the stack ended right after it was ready: see manifest stack up")
            yield "up"
            if state["flower_password"]:
                # Once: who forgets it finds it in the state file.
                password = state["flower_password"]
                yield f"password {password}  (Flower's, of user {settings.FLOWER_USER})"
    yield from _describe(state, directory)


def down() -> str:
    """End the stack that is up, remove what is left of one that died; says what was done."""
    directory = runtime_directory()
    with changing(directory):
        state = read_state(directory)
        if state is None:
            return "removed what a dead stack had left" if clean_up(directory) else "none was up"
        if not _same_pids(state):  # a signal would go to a foreign process
            raise StackError(
                "the stack that is up was started in another container (its processes have their "
                "pids in another PID namespace), so it cannot be ended from here: run manifest "
                "stack down where manifest stack up was run"
            )
        _stop(state["keeper"], directory)
        clean_up(directory)
    return "down"


def status() -> list[str]:
    """Describe the stack that is up, in lines; none when none is."""
    directory = runtime_directory()
    state = read_state(directory)
    if state is None:
        return []

    from pytest_manifest.stack.queues import broker_lines  # which imports redis-py

    life, pid = _life(state), state["worker"]
    alive = f"pid {pid}  {life}" if pid else life
    worker = f"worker   {settings.WORKER}  {alive}  {_log(state)}"
    return [*_describe(state, directory), worker, *broker_lines(state["broker_url"])]


def _life(state: settings.State) -> str:
    """Return whether the worker's process lives, as far as that can be seen from here."""
    if not state["worker"]:
        return "restarting"
    if not _same_pids(state):
        return "in another container"
    return "dead" if has_ended(state["worker"]) else "alive"


def _log(state: settings.State) -> Path:
    return settings.worker_log(Path(state["directory"]))


def status_document() -> dict[str, JsonValue]:
    """Return what :func:`status` describes as a JSON document, without any password."""
    directory = runtime_directory()
    state = read_state(directory)
    if state is None:
        return {"up": False}

    import redis

    from pytest_manifest.stack.queues import broker_counts

    queues: dict[str, JsonValue] | None = None
    unacked: int | None = None
    with contextlib.suppress(redis.RedisError):  # a broker that does not answer: both are null
        waiting, unacked = broker_counts(state["broker_url"])
        queues = dict(waiting)
    worker: JsonValue = {
        "name": settings.WORKER,
        "pid": state["worker"] or None,
        "status": _life(state),
        "log": str(_log(state)),
    }
    return {
        "up": True,
        "app": state["app"],
        "folder": state["cwd"],
        "broker": redact_url(state["broker_url"]),
        "flower": state["flower_url"] or None,
        "state_file": str(state_file(directory)),
        "workers": [worker],
        "queues": queues,
        "unacked": unacked,
    }


def logs(*, follow: bool) -> Iterator[str] | None:
    """Read the lines of the worker's log; None: no stack is up.

    ``follow``: go on until the stack is down.
    """
    directory = runtime_directory()
    state = read_state(directory)
    return None if state is None else _lines(_log(state), directory if follow else None)


def _require_same(state: settings.State, wanted: settings.Settings) -> None:
    if (state["app"], state["cwd"]) != (wanted.app, wanted.cwd):
        raise StackError(
            f"a stack for {state['app']} in {state['cwd']} is up already: "
            "end it with manifest stack down first"
        )
    if wanted.flower and not state["flower_url"]:
        raise StackError(
            "the stack that is up has no Flower, as its workers send no events: end it with "
            "manifest stack down first"
        )


def _same_pids(state: settings.State) -> bool:
    here = pid_scope()
    return state.get("pids", here) == here


def _start(wanted: settings.Settings, directory: Path, timeout: float) -> None:
    put_on_path(Path(wanted.cwd))
    if ":" not in wanted.app:  # of a module that has several Celery would take the first one
        from pytest_manifest.broker.client import load_tasks  # Celery, which takes its time

        load_tasks(wanted.app)
    if wanted.flower and importlib.util.find_spec("flower") is None:
        raise StackError("Flower is not installed: install pytest-celery-manifest[flower]")
    if wanted.flower_port and is_listening(wanted.flower_port):
        raise StackError(
            f"port {wanted.flower_port} is taken: give another one with --flower-port, or leave "
            "it out for one that is free"
        )
    log.configure(level="WARNING")
    client = EmbeddedStack(wanted._replace(detached=str(directory)))
    client.start()
    try:
        client.wait_workers(timeout)
        if wanted.flower:
            client.wait_flower(timeout)
    except BaseException:
        client.stop()
        raise
    client.detach()


def _stop(supervisor: int, directory: Path) -> None:
    # The lock says that this supervisor lives, so its pid is still its own.
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)
    if _wait_until_down(directory, DOWN_SECONDS):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGKILL)
    if not _wait_until_down(directory, DOWN_SECONDS):
        raise StackError(f"the stack's supervisor (pid {supervisor}) does not end")


def _wait_until_down(directory: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_up(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _describe(state: settings.State, directory: Path) -> list[str]:
    lines = [
        f"app      {state['app']}  in {state['cwd']}",
        f"broker   {redact_url(state['broker_url'])}",
    ]
    if state["flower_url"]:
        lines.append(f"flower   {state['flower_url']}  (user {settings.FLOWER_USER})")
    lines.append(f"state    {state_file(directory)}  (the passwords are in it)")
    return lines


def _lines(path: Path, following: Path | None) -> Iterator[str]:
    """Read whole lines; with ``following`` until that stack is down."""
    position = 0
    while True:
        running = following is not None and is_up(following)
        data = b""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(position)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1] if running else data
        position += len(complete)
        yield from complete.decode("utf-8", "replace").splitlines()
        if not running:
            return
        time.sleep(FOLLOW_SECONDS)
