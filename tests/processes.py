"""Server processes of tests: started on a free port, waited for, and ended with all they started.

Every process here is a child of this one, ended by its pid when its ``with`` block ends, however it
ends. Where the system can (Linux), it also ends when this process is killed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support import eventually

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ELSEWHERE = ("unshare", *(() if os.geteuid() == 0 else ("-U", "-r")), "-p", "-f", "--mount-proc")
"""As a container that shares the host's network: another PID namespace, the same host name."""
TEMPORARY_VARIABLE = "MANIFEST_TESTS_TEMPORARY"
"""The folder for all temporary ones of a whole run of the tests, which is removed at its end."""
TRIES = 3
"""How often a server is started: someone may take the port between our look and its bind."""


class StartFailedError(Exception):
    """A server that ended, or did not answer in time; the message ends with its last log lines."""


@contextmanager
def talking(*command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of Python that is spoken with by lines, killed in the end."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def give_children_default_signals() -> None:
    """Have children find their signals as a terminal's do, where this process ignores them.

    It goes on to ignore them, by a handler, which starting a program takes away; what is ignored
    would stay so in the program as well.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)


def _ignore(*_: object) -> None:
    """A handler."""


def said_by_system(pid: int | str, name: str) -> str:
    """Return what Linux says of a process in a file of its own, nothing once it has ended.

    It may end between any two looks: only what is read here is read with that in mind.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    return ""


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, or a word that there is none."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def bound_to_us(command: Sequence[str], signal_name: str) -> list[str]:
    """Return ``command``, to get the signal when this process dies, where the system can."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name, *command] if setpriv else list(command)


@contextmanager
def temporary_directory(owner: str | None = None) -> Iterator[Path]:
    """Make a directory (mode 0700) that ``owner``, a user name, can use; remove it at the end."""
    directory = Path(
        tempfile.mkdtemp(prefix="manifest-test-", dir=os.environ.get(TEMPORARY_VARIABLE))
    )
    try:
        if owner is not None:
            shutil.chown(directory, owner)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def child(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, its output in ``log``; end it, gently and then not."""
    group = pwd.getpwnam(user).pw_gid if user else None
    with log.open("ab") as output:
        process = subprocess.Popen(
            bound_to_us(command, stop.name.removeprefix("SIG")),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            user=user,
            group=group,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not the server's
        )
    try:
        yield process
    finally:
        _end(process, stop)


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    """Stop the process and its whole session, whose group id is the process's own pid."""
    if process.poll() is None:
        process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


def wait_until(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path, name: str
) -> None:
    """Return when the server answers; raise ``StartFailedError`` when it ended or stays silent."""

    def look() -> bool:
        if process.poll() is not None:
            raise StartFailedError(f"{name} ended with {process.returncode}:\n{tail(log)}")
        return answers()

    try:
        eventually(look, within=START_SECONDS, what=f"{name} answers")
    except AssertionError as silent:
        raise StartFailedError(f"{silent}\n{tail(log)}") from None


def started(stack: ExitStack, start: Callable[[ExitStack], str]) -> str:
    """Call ``start`` until it succeeds, at most ``TRIES`` times; ``stack`` then owns them."""
    for attempt in range(1, TRIES + 1):
        with ExitStack() as trial:
            try:
                url = start(trial)
            except StartFailedError:
                if attempt == TRIES:
                    raise
                continue
            stack.push(trial.pop_all())
            return url
    raise AssertionError("unreachable")
