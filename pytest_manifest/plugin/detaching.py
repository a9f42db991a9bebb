"""Leave a run to a process of its own, and print one JSON record about it (``--manifest-detach``).

That process is a pytest of the same arguments, in a session of its own, whose output goes into a
file beside the ledger. It plans, dispatches and judges, and has the locks and the private stack.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.errors import DispatchError
from pytest_manifest.files import git_ignored_folder, new_file, private_folder
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.plugin.option_kinds import ALONE
from pytest_manifest.plugin.session import manifest_session

if TYPE_CHECKING:
    from pytest_manifest.plugin.live import LivePages
    from pytest_manifest.run.run import Run

VARIABLE: Final = "MANIFEST_DETACHED"
"""Names the pipe into which the process of the run says what run it is, while it starts."""
_SCRIPTS: Final = ("pytest", "py.test")


def command() -> DetachCommand | Detached:
    """Return the hooks of ``--manifest-detach``: of the process that is asked, or of the other."""
    pipe = os.environ.pop(VARIABLE, None)
    return DetachCommand() if pipe is None else Detached(int(pipe))


class DetachCommand:
    """Start the process of a run instead of a session of this one; pytest's hooks."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int | None:
        if config.option.version or hasattr(config, "workerinput"):
            return None
        with _interrupts() as start:
            return detach(config, start)


@dataclass(eq=False)
class Start:
    """A run's process that starts. ``is_interrupted``: Ctrl-C has come meanwhile."""

    process: subprocess.Popen[bytes] | None = None
    is_interrupted: bool = False

    def interrupt(self, *_: object) -> None:
        """End the process, faster each time, and raise nothing in this one: no moment of it is
        one in which the other would be left behind."""
        self.is_interrupted = True
        if self.process is not None:
            self.process.terminate()


@contextmanager
def _interrupts() -> Iterator[Start]:
    """Handle Ctrl-C, unless other code handles or ignores it."""
    start, before = Start(), signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and before is signal.default_int_handler):
        yield start
        return
    signal.signal(signal.SIGINT, start.interrupt)
    try:
        yield start
    finally:
        signal.signal(signal.SIGINT, before)


def detach(config: pytest.Config, start: Start) -> int:
    """Start the process of the run, wait until the run goes on, print the record of it.

    Returns pytest's exit status: that of the process where it ends without a run. Raises
    pytest.UsageError where the options do not go together, or nothing can be written.
    """
    with user_errors():
        options = manifest_session(config).options
        if not options.may_dispatch:
            raise DispatchError("--manifest-detach starts a run, and here no test is to run")
        if len(options.files) > 1:
            raise DispatchError("--manifest-detach is of one manifest; give --manifest=FILE once")
        output = options.ledgers / f"detached-{secrets.token_hex(8)}.out"
        try:
            git_ignored_folder(options.folder)
            private_folder(options.ledgers)
            file = new_file(output)
        except OSError as error:
            raise DispatchError(f"{output}: cannot be written ({error.strerror})") from error
    with file:
        process, reader = _started(config, file.fileno())
    start.process = process
    if start.is_interrupted:
        process.terminate()
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    status = 0 if said else process.wait()
    if start.is_interrupted:
        return _interrupted(process.wait(), said, output)
    if not said:
        with suppress(OSError):
            sys.stderr.write(output.read_text("utf-8", "replace"))
            output.unlink()
        if status == 0:
            _print(dict.fromkeys(("run", "manifest", "ledger", "page", "pid", "output")))
        return status
    process.returncode = 0  # nobody waits for it any more
    record: dict[str, object] = json.loads(said)
    kept = RunFiles(Path(str(record["ledger"]))).output
    with suppress(OSError):
        output = output.rename(kept)
    _print({**record, "pid": process.pid, "output": str(output)})
    return 0


def _interrupted(status: int, said: str, output: Path) -> int:
    """Say in a sentence what the process has left, ``status`` being its own; return pytest's."""
    if said:
        run = json.loads(said)["run"]
        what = f"run {run} had begun, and was stopped; see manifest status {run}"
        with suppress(OSError):
            output.rename(RunFiles(Path(json.loads(said)["ledger"])).output)
    elif status == -signal.SIGTERM:  # it takes its signals itself before anything is sent
        what = "the run's process has ended before anything was sent"
        with suppress(OSError):
            output.unlink()
    else:
        what = f"the run's process has ended while the run began; see {output}"
    sys.stderr.write(f"interrupted: {what}\n")
    return pytest.ExitCode.INTERRUPTED


def _print(record: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(record)}\n")
    sys.stdout.flush()


def _started(config: pytest.Config, output: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process; return it, and the end of the pipe in which it says its run."""
    script = Path(sys.argv[0])
    # As it was called: python -m pytest has the working folder on its path, the script has not.
    is_script = script.name in _SCRIPTS and script.is_file()
    program = [str(script)] if is_script else ["-m", "pytest"]
    arguments = map(str, config.invocation_params.args)
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=config.invocation_params.dir,
            env={**os.environ, VARIABLE: str(writer)},
            pass_fds=[writer],
            start_new_session=True,  # no signal of this terminal reaches it, nor its end
        )
    finally:
        os.close(writer)
    return process, reader


class Detached:
    """Say, in the process of a run, which run it is; pytest's hooks."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe
        os.set_inheritable(pipe, False)  # whoever has it keeps the other end waiting
        self._live: LivePages | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        config.option.manifest_detach = False
        config.option.manifest_live = config.option.manifest_live or ALONE

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        self._live = config.pluginmanager.getplugin("manifest-live")

    def pytest_manifest_dispatched(self, run: Run) -> None:
        pages = self._live
        record = {
            "run": run.info.run,
            "manifest": str(run.manifest.path),
            "ledger": str(run.ledger_path),
            "page": None if pages is None else pages.address_of(run.manifest.path.resolve()),
        }
        if self._pipe is not None:
            with suppress(OSError):  # whoever waited for it is gone
                os.write(self._pipe, json.dumps(record).encode())
        self.pytest_unconfigure()

    def pytest_unconfigure(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)
