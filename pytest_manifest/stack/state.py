"""Read and write the state of the background stack, and tell whether it is up."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import platformdirs

from pytest_manifest.errors import StackError
from pytest_manifest.processes import is_held, kill_group, locked
from pytest_manifest.stack.settings import State
from pytest_manifest.stack.watchdog import remove_path
from pytest_manifest.urls import StackAddress

APP_NAME: Final = "pytest-celery-manifest"


def running_stack() -> StackAddress | None:
    """Give the stack that ``manifest-stack up`` has started, if it is up."""
    state = read_state(runtime_directory())
    if state is None or not state["broker_url"]:
        return None
    return StackAddress(
        broker_url=state["broker_url"],
        backend_url=state["backend_url"],
        app=state["app"],
        is_private=False,
        flower_url=state["flower_url"],
        is_managed=True,
    )


def runtime_directory() -> Path:
    """Make this user's directory for the state, mode 0700; raise StackError if it cannot be."""
    fallback = Path(tempfile.gettempdir()) / f"{APP_NAME}-{os.getuid()}"
    with warnings.catch_warnings(), contextlib.suppress(OSError):
        # It warns where XDG_RUNTIME_DIR is not set, as in a container.
        warnings.simplefilter("ignore")
        path = Path(platformdirs.user_runtime_dir(APP_NAME))
        if _private(path):
            return path
    with contextlib.suppress(OSError):
        if _private(fallback):
            return fallback
    raise StackError(
        f"no private directory for the stack's state: {fallback} cannot be made, or is not yours; "
        "set XDG_RUNTIME_DIR to a directory that only you can enter"
    )


def state_file(directory: Path) -> Path:
    return directory / "stack.json"


def lock_file(directory: Path) -> Path:
    """Give the lock's path; supervisor and watchdog hold it while they live: never stale."""
    return directory / "stack.lock"


def is_up(directory: Path) -> bool:
    """Tell whether a supervisor holds the lock."""
    return is_held(lock_file(directory))


def read_state(directory: Path) -> State | None:
    """Read the state of the stack that is up; None when none is."""
    return _load(directory) if is_up(directory) else None


@contextlib.contextmanager
def changing(directory: Path) -> Iterator[None]:
    """Allow one ``up`` or ``down`` at a time; the second waits for the first."""
    with locked(directory / "change.lock"):
        yield


def clean_up(directory: Path) -> bool:
    """Remove what a dead stack has left: processes that are still its own, files, the state.

    Returns whether there was something. Only to be called while none is up.
    """
    state = _load(directory)
    for name in (state_file(directory), *directory.glob("stack.json.*")):
        name.unlink(missing_ok=True)
    if state is None:
        return False
    pids = [state["broker"], *(worker["pid"] or 0 for worker in state["workers"])]
    for pid in pids:
        if pid and _belongs(pid, state):
            kill_group(pid)
    remove_path(Path(state["directory"]))
    return True


def _load(directory: Path) -> State | None:
    try:
        document = json.loads(state_file(directory).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or not State.__required_keys__ <= document.keys():
        return None
    return cast("State", document)


def _private(path: Path) -> bool:
    """Make the directory; True when it is ours alone and can be written to."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return False
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)
    return os.access(path, os.W_OK | os.X_OK)


def _belongs(pid: int, state: State) -> bool:
    """Tell whether this process is one of that stack's; its pid may have been reused."""
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    command = shown.stdout
    return state["directory"] in command or f" -A {state['app']} worker " in command
