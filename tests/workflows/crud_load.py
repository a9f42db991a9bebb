"""CRUD tasks from several processes at once, on any database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Forked, as a worker's pool is: six interpreters would spend the time with their imports.
PROGRAM = """
import os, sys, traceback
from tasks.crud import fast_crud_task
from tasks.database import database

def work():
    go.close()
    start.read()  # until the parent has forked them all
    for number in range(cycles):
        result = fast_crud_task({"title": f"Alien {number}", "number": number})
        words = (result["row_id"], result["database"], *result["lifecycle"])
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    database().close()

processes, cycles = map(int, sys.argv[1:])
start, go = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), "rw"))
children = []
for _ in range(processes):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
go.close()
start.close()
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def run_together(url: str, *, processes: int, cycles: int) -> list[list[str]]:
    """Run ``cycles`` CRUD tasks in each of ``processes`` on the database; return a line for each.

    A line is ``[row_id, database, *lifecycle]``. A process that fails raises AssertionError with
    what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(processes), str(cycles)],
        env={**os.environ, "MANIFEST_DATABASE_URL": url, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def python_path() -> str:
    """The project's folder, before what ``PYTHONPATH`` holds already."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
