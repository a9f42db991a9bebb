"""CRUD tasks from several processes at once, on any database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys
from tasks.crud import fast_crud_task
from tasks.database import database

sys.stdin.readline()  # all processes begin together
for number in range(int(sys.argv[1])):
    result = fast_crud_task({"title": f"Alien {number}", "number": number})
    print(result["row_id"], result["database"], *result["lifecycle"])
database().close()
"""


def run_together(url: str, *, processes: int, cycles: int) -> list[list[str]]:
    """Run ``cycles`` CRUD tasks in each of ``processes`` on the database; return a line for each.

    A line is ``[row_id, database, *lifecycle]``. A process that fails raises AssertionError with
    what it wrote.
    """
    environment = {**os.environ, "MANIFEST_DATABASE_URL": url, "PYTHONPATH": python_path()}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(cycles)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(processes)
    ]
    lines: list[list[str]] = []
    try:
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in running:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            lines += [line.split() for line in output.splitlines()]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return lines


def python_path() -> str:
    """The project's folder, before what ``PYTHONPATH`` holds already."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
