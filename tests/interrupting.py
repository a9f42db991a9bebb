"""A command that is interrupted as by Ctrl-C at a terminal, and what is left of it then."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.processes import bound_to_us
from tests.support import eventually

MARK: Final = "MANIFEST_TESTS_MARK"
"""All that the command starts inherits this variable, whatever parent, session or group it has."""
START_SECONDS: Final = 120.0
END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """How a command took it: its status, what it printed, and who has outlived it by how much."""

    status: int
    output: str
    seconds: float
    """From the signal until the command had ended."""
    left: list[str]
    """The command lines of what was still there then."""


def interrupted(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[list[psutil.Process]], bool],
    cwd: Path,
    number: signal.Signals = signal.SIGINT,
    whole_group: bool = True,
) -> Interrupted:
    """Run the command until ``ready`` is true of its processes; signal it; see what becomes of it.

    All of the command's process group gets the signal, as from a terminal, or only its first
    process. What is left is killed.
    """
    mark = secrets.token_hex(16)
    with log.open("wb") as output:
        process = subprocess.Popen(
            bound_to_us(command, "TERM"),
            cwd=cwd,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:

        def look() -> bool:
            assert process.poll() is None, log.read_text("utf-8", "replace")
            return ready(marked(mark))

        eventually(look, within=START_SECONDS, what="the command is where it is to be interrupted")
        family = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        (os.killpg if whole_group else os.kill)(process.pid, number)
        process.wait(3 * END_SECONDS)
        seconds = time.monotonic() - began
        outliving = {*marked(mark), *filter(is_alive, family)}
        left = sorted(map(described, outliving))
    finally:
        for one in {*marked(mark), *filter(is_alive, family)}:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(END_SECONDS)
    return Interrupted(process.returncode, log.read_text("utf-8", "replace"), seconds, left)


def marked(mark: str) -> list[psutil.Process]:
    """Return all living processes of this machine that have the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and is_alive(process):
                found.append(process)
        except psutil.Error:  # ended meanwhile, or somebody else's
            continue
    return found


def is_alive(process: psutil.Process) -> bool:
    """Return whether it has not ended; a process that nobody has waited for yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def described(process: psutil.Process) -> str:
    """Return the command line of a process, or that it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(ended)"
