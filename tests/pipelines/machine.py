"""A machine of CI: an empty folder, the commands that are installed there, and a step's shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP_SECONDS = 180.0
INSTALLED = ("pytest", "celery", "manifest", "uv")
"""What ``pip install`` of the project's requirements brings; it is here already."""

JOBS = """
from pathlib import Path

from celery import Celery

app = Celery("jobs")


@app.task
def double(number):
    if Path(__file__).with_name(f"broken-{number}").exists():
        raise ValueError(f"{number} is broken")
    with Path(__file__).with_name("ran.txt").open("a") as ran:
        ran.write(f"{number}\\n")
    return 2 * number
"""
ENTRIES = 4
MANIFEST = "".join(
    f'{{"id": "d-{n}", "task": "jobs.double", "args": [{n}], "idempotent": true, '
    f'"expect": {{"result": {2 * n}}}}}\n'
    for n in range(ENTRIES)
)
PROJECT = {
    "jobs.py": JOBS,
    "numbers.jsonl": MANIFEST,
    "pytest.ini": "[pytest]\n",
    "requirements.txt": "pytest-celery-manifest[xdist,allure]\ncelery\nredis\n",
}

# pip is uv's, which finds without a network that all is installed; a virtual environment is the
# commands that are installed. Whatever else a step calls is the real thing.
PYTHON = f"""#!/bin/bash
case "$1 $2" in
  "-m pip") exec uv pip "${{@:3}}" --offline --python "{sys.executable}" ;;
  "-m venv") mkdir -p "$3/bin" && exec cp -P "$(dirname "$0")"/* "$3/bin/" ;;
esac
exec "{sys.executable}" "$@"
"""


class Machine:
    """One machine, on which a job's steps run one after the other.

    What a step leaves running goes on until the machine is closed, as on a runner of CI.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder / "work"
        self.folder.mkdir(parents=True)
        tools = folder / "tools"
        tools.mkdir()
        for name in INSTALLED:
            (tools / name).symlink_to(Path(sys.executable).with_name(name))
        self.tools = tools
        self.add_tool("python", PYTHON)
        kept = ("LANG", "TMPDIR", "PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE")
        self.environment = (
            {name: os.environ[name] for name in kept if name in os.environ}
            | {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "CI": "true"}
            | dict(environment)
        )
        self._groups: list[int] = []

    def add_tool(self, name: str, text: str) -> None:
        """Put a command on the machine's path."""
        path = self.tools / name
        path.unlink(missing_ok=True)  # a link to the real command, which stays
        path.write_text(text, "utf-8")
        path.chmod(0o755)

    def check_out(self) -> None:
        """Write the fixture project, as a checkout does."""
        for name, text in PROJECT.items():
            (self.folder / name).write_text(text, "utf-8")

    def run(
        self, script: str, environment: Mapping[str, str] | None = None, shell: str = "-eo pipefail"
    ) -> subprocess.CompletedProcess[str]:
        """Run a step's script; what it started in the background stays."""
        output = self.folder.parent / "step.log"
        with output.open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", *shell.split(), "-c", script],
                cwd=self.folder,
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            status = process.wait(STEP_SECONDS)
            log.seek(0)
            return subprocess.CompletedProcess(script, status, log.read())

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def copied(source: Path, target: Path) -> None:
    """Copy a file or a folder's contents."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
