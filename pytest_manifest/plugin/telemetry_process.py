"""Have spans and metrics of runs sent to a collector by a process of its own, ``manifest_otlp``."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.run.run import Run

SENDER: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from pytest_manifest.cli.telemetry import follow_for_pytest; follow_for_pytest()"
)
"""Runs without the working folder on the path: a module of the project must not shadow another."""
LAST_SECONDS: Final = 20.0
"""Seconds that pytest waits at its end for what is still to be sent; then the process goes on."""


class Telemetry:
    """Name each run to the process that follows it; pytest's hooks."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def pytest_manifest_dispatched(self, run: Run) -> None:
        if self._process is None:  # audits have none
            self._start()
        self._say({"ledger": str(run.ledger_path)})

    def _start(self) -> None:
        options = self._options
        self._process = subprocess.Popen(
            [sys.executable, "-c", SENDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=options.root,
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
        )
        self._say(
            {
                "endpoint": options.otlp,
                "names": list(options.redact_names),
                "redacts": options.redact == "yes",
            }
        )

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what the collector did not take, which fails nothing."""
        if error := self._close():
            terminalreporter.write_line(f"manifest_otlp: {error}")

    def pytest_unconfigure(self) -> None:
        self._close()

    def _say(self, document: dict[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has failed, which is no fault of the run
                self._process.stdin.write(f"{json.dumps(document)}\n")
                self._process.stdin.flush()

    def _close(self) -> str:
        """Let go of the process; return what went wrong, "" for nothing."""
        process, self._process = self._process, None
        if process is None:
            return ""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        ready, _, _ = select.select([process.stdout], [], [], LAST_SECONDS)
        answer = process.stdout.readline() if ready else ""
        process.stdout.close()
        if not ready:
            process.returncode = 0  # nobody waits for it any more: it ends by itself, soon
            return f"not all was sent within {LAST_SECONDS:g} s; the rest is sent without pytest"
        process.wait(LAST_SECONDS)
        return str(json.loads(answer)["error"]) if answer else "the process that sends has failed"
