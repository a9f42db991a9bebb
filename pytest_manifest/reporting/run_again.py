"""Name the command that runs one entry of a run again, and the logs of a run's workers."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pytest_manifest.reporting.run_report import ReportedRun

_LOG: Final = re.compile(r"\.worker-(\d+)\.log$")
"""The end of the name of a private worker's log, with the worker's number."""


@dataclass(frozen=True)
class RunAgain:
    """The manifest as it is typed, and what else the command needs: ``arguments`` with a space."""

    manifest: str
    arguments: str = ""

    def command(self, entry: str) -> str:
        """Return the command that sends this entry alone, in a run of its own."""
        name = self.manifest
        return shlex.join(["pytest", f"--manifest={name}", f"{name}::entry[{entry}]"]) + (
            self.arguments
        )


def worker_logs(run: ReportedRun, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield worker and address, as seen from this folder, of the logs that the run has kept."""
    for path in run.files.worker_logs():
        if (found := _LOG.search(path.name)) is not None:
            relative = Path(os.path.relpath(path.resolve(), folder.resolve()))
            yield f"manifest{found[1]}", quote(os.fsencode(relative.as_posix()))
