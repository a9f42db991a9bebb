"""The state of a stack: what its supervisor reports, and the file by which others find it.

The supervisor imports this, so only the standard library is imported at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, cast

from pytest_manifest.errors import StackError
from pytest_manifest.files import own_folder, remove, write_whole
from pytest_manifest.processes import is_held, kill_group, locked, pid_scope
from pytest_manifest.stack.settings import Failure, Settings, State

if TYPE_CHECKING:
    from pytest_manifest.urls import StackAddress

APP_NAME: Final = "pytest-celery-manifest"


def running_stack() -> StackAddress | None:
    """Give the stack that ``manifest stack up`` has started, if it is up."""
    from pytest_manifest.urls import StackAddress

    state = read_state(runtime_directory())
    if state is None or not state["broker_url"]:
        return None
    return StackAddress(
        broker_url=state["broker_url"],
        backend_url=state["broker_url"],
        app=state["app"],
        is_private=False,
        flower_url=state["flower_url"],
        is_managed=True,
    )


def private_stack(data: Path, app: str | None) -> StackAddress | None:
    """Return the private stack of a pytest that works on the data in this folder, if one does."""
    from pytest_manifest.stack.services import broker_url
    from pytest_manifest.stack.valkey import live_broker
    from pytest_manifest.urls import StackAddress

    broker = live_broker(data)
    if broker is None:
        return None
    url = broker_url(*broker)
    return StackAddress(url, url, app=app, is_private=True, is_managed=True)


def runtime_directory() -> Path:
    """Make this user's directory for the state, mode 0700; raise StackError if it cannot be."""
    fallback = Path(tempfile.gettempdir()) / f"{APP_NAME}-{os.getuid()}"
    named, usual = os.environ.get("XDG_RUNTIME_DIR"), Path(f"/run/user/{os.getuid()}")
    own = [Path(named) / APP_NAME] if named else [usual / APP_NAME] if usual.is_dir() else []
    for path in (*own, fallback):  # there is none of the user's in a container, or under cron
        with contextlib.suppress(OSError):
            own_folder(path)
            if os.access(path, os.W_OK | os.X_OK):
                return path
    raise StackError(
        f"no private directory for the stack's state: {fallback} cannot be made, or is not yours; "
        "set XDG_RUNTIME_DIR to a directory that only you can enter"
    )


def state_file(directory: Path) -> Path:
    return directory / "stack.json"


def lock_file(directory: Path) -> Path:
    """Give the lock's path; the supervisor holds it while it lives: never stale."""
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
    for pid in (state["broker"], state["worker"]):
        if pid and _belongs(pid, state):
            kill_group(pid)
    remove(Path(state["directory"]))
    return True


def _load(directory: Path) -> State | None:
    try:
        document = json.loads(state_file(directory).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(document, dict) and document.keys() >= {"keeper", "worker", "flower_url"}
    return cast("State", document) if known else None


def _belongs(pid: int, state: State) -> bool:
    """Tell whether this process is one of that stack's; its pid may have been reused."""
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    command = shown.stdout
    return state["directory"] in command or f" -A {state['app']} worker " in command


STDOUT = 1
# A file cannot grow: no room on the disk or in the quota, a medium or a limit that forbids it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def refuse(message: str) -> NoReturn:
    """Tell the client in a sentence why there is no stack at all, and end."""
    failed = Failure(message=message, tail=[])
    os.write(STDOUT, json.dumps(State(failed=failed)).encode() + b"\n")
    sys.exit(1)


def failure_message(error: Exception, directory: Path) -> str:
    """Word an unforeseen error of the supervisor for users; ``directory`` is the stack's."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return (
            f"the private stack cannot write to {error.filename or directory} ({error.strerror}): "
            "free some space there, or set TMPDIR to a folder that has some"
        )
    return f"the stack's supervisor failed: {type(error).__name__}: {error}"


class StateWriter:
    """Write what changes to standard output and, for a detached stack, keep its state file."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._path = state_file(Path(settings.detached)) if settings.detached else None
        self._broken = False
        # A client that stopped reading must not stop the supervisor: lose lines, not workers.
        os.set_blocking(STDOUT, False)
        self._state = State(broker=0, broker_url="", worker=0, flower_url="")
        self._state["flower_password"] = ""  # nosec B105  # there is none yet
        own = State(keeper=os.getpid(), pids=pid_scope(), app=settings.app, cwd=settings.cwd)
        self.say({**own, "directory": str(directory)})

    def say(self, changes: State) -> None:
        """Write what has changed."""
        self._state.update(changes)
        if self._path is not None:
            temporary = self._path.with_suffix(f".{os.getpid()}")
            write_whole(temporary, json.dumps(self._state, indent=1).encode())
            temporary.replace(self._path)
        self.mention(changes)

    def mention(self, news: State) -> None:
        """Write what has happened, for the client alone."""
        if self._broken:
            return
        try:
            os.write(STDOUT, json.dumps(news).encode() + b"\n")
        except BlockingIOError:
            pass
        except OSError:
            self._broken = True

    def close(self) -> None:
        """Remove the state file: the stack is over."""
        if self._path is not None:
            remove(self._path)
            self._path = None
