"""Serve the live page of each run by a process of its own (``--manifest-live``)."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.reporting.live_page.server import address_of, listening, new_token
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.run.run import Run

SERVER: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from pytest_manifest.cli.watch import serve_for_pytest; serve_for_pytest()"
)
"""Runs without the working folder on the path: a module of the project must not shadow another."""
LAST_SECONDS: Final = 10.0
"""Seconds that the process may take to say whether somebody reads its page."""


class LivePage:
    """The page of one run, in a process that ends with pytest, or after its last reader has left.

    Whatever kills pytest closes the pipe by which that process knows.
    """

    def __init__(self, options: Options, accepts: str | None) -> None:
        token = new_token()
        with listening() as listener:
            self.address = address_of(listener.getsockname()[1], token)
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=options.root,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # a Ctrl-C in the terminal is not for it
            )
            about: dict[str, object] = {
                "socket": listener.fileno(),
                "token": token,
                "control": options.live == "control",
                "names": list(options.redact_names),
                "redacts": options.redact == "yes",
                "root": str(options.root),
                "accepts": accepts,
            }
            self._say(about)

    def follow(self, ledger: Path) -> None:
        """Show the run of this ledger."""
        self._say({"ledger": str(ledger)})

    def close(self) -> bool:
        """Let go of the process; return whether it goes on, as somebody reads its page."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        ready, _, _ = select.select([process.stdout], [], [], LAST_SECONDS)
        stays = bool(ready) and process.stdout.readline() == "stays\n"
        process.stdout.close()
        if stays:
            process.returncode = 0  # nobody waits for it any more
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS if ready else 0.0)
            process.kill()
            process.wait()
        return stays

    def _say(self, document: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has failed, which is no fault of the run
            self._process.stdin.write(f"{json.dumps(document)}\n")
            self._process.stdin.flush()


class LivePages:
    """Have each manifest of a session its page; pytest's hooks."""

    def __init__(self, options: Options, accepts: str | None) -> None:
        """Start the processes; ``accepts``: of accepted failures, by ``Acceptance.as_json``."""
        self._options = options
        planned: list[Path | None] = [None]  # one page for whatever a plan will be
        files = list(options.files) if not options.plan else planned
        self._pages = {path: LivePage(options, accepts) for path in files}

    def address_of(self, manifest: Path) -> str | None:
        """Return the address of a manifest's page."""
        page = self._pages.get(manifest, self._pages.get(None))
        return None if page is None else page.address

    def pytest_report_header(self) -> list[str]:
        several = len(self._pages) > 1
        return [
            f"live: {page.address}"
            + (f" ({short_path(path, self._options.root)})" if several and path else "")
            for path, page in self._pages.items()
        ]

    def pytest_manifest_dispatched(self, run: Run) -> None:
        page = self._pages.get(run.manifest.path.resolve(), self._pages.get(None))
        if page is not None:
            page.follow(run.ledger_path)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say of which pages somebody is a reader: these go on until that one has left."""
        for page in self._close():
            terminalreporter.write_line(
                f"live page: it is read, and ends with its last reader: {page}"
            )

    def pytest_unconfigure(self) -> None:
        self._close()

    def _close(self) -> list[str]:
        pages, self._pages = self._pages, {}
        return [page.address for page in pages.values() if page.close()]
