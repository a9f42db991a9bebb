"""Play faults, as standard input says, one after the other: ``python -m tests.writes.player``.

Started with the environment of a failing disk, so that the sessions it forks have that, too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.plugin import forked
from tests.writes.disk import FAULTS, FailingDisk
from tests.writes.trials import SECONDS, Project, play


def forked_session(folder: Path, arguments: Sequence[str]) -> tuple[int | None, str]:
    """Run pytest in a process that is forked from one with all its imports."""
    output = folder / "output.txt"
    output.unlink(missing_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        status = forked.session(arguments, [output, output], SECONDS)
    finally:
        os.chdir(before)
    return status, output.read_text("utf-8", "replace")


def main() -> None:
    scratch, stack = Path(sys.argv[1]), sys.argv[2:]
    project = Project(scratch / "project", stack)
    disk = FailingDisk(scratch, project.folders)
    faults = {fault.name: fault for fault in FAULTS}
    for line in sys.stdin:
        name, at = json.loads(line)
        if name:
            trial = play(disk, project, forked_session, faults[name], at)
            print(trial.line(), flush=True)
        else:
            project.make()
            disk.begin()
            status, text = forked_session(project.path, project.arguments)
            calls = [asdict(one) for one in disk.calls()]
            disk.heal()
            print(json.dumps({"status": status, "text": text, "calls": calls}), flush=True)


if __name__ == "__main__":
    main()
