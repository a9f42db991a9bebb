"""Play faults, as standard input says, one after the other: ``python -m tests.writes.player``.

Started with the environment of a failing disk, so that the sessions it forks have that, too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.plugin import inline
from tests.writes.disk import FAULTS, FailingDisk
from tests.writes.trials import SECONDS, Project, play


def forked_session(folder: Path, arguments: Sequence[str]) -> tuple[int | None, str]:
    """Run pytest in a child of this process, which has all its imports, and no other thread.

    A disk that fails may end a session as it likes. Returns None for one whose time was over.
    """
    output = folder / "output.txt"
    output.unlink(missing_ok=True)
    output.touch()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = inline.ENDED_OTHERWISE
        try:
            status, _ = inline.session(folder, arguments, (output, output), 2 * SECONDS)
        finally:
            os._exit(status)
    return _end_of(child), output.read_text("utf-8", "replace")


def _end_of(child: int) -> int | None:
    until = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def main() -> None:
    inline.load()
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
