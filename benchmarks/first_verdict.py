"""From ``pip install`` to the first verdicts of a stranger's project: commands and seconds.

``python -m benchmarks.first_verdict [PROJECT ...]`` builds the wheel, makes an environment for each
project of ``tests/projects`` with what that project itself needs, and then does what its owner
does: one ``pip install``, a manifest of one to four lines, one ``pytest``. It prints a table;
``--write`` makes ``docs/evidence/first-verdict.md`` of it. Nine projects take six minutes or so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.beside import NOT_INHERITED, ROOT
from tests.frameworks.projects import ALL, Project, Stranger

PAGE = ROOT / "docs" / "evidence" / "first-verdict.md"
NEEDS = {
    "django_results": ("django", "django-celery-results", "pytest-django"),
    "celery_django": ("django",),
    "flask_factory": ("flask",),
    "fastapi_pydantic": ("fastapi", "celery[pydantic]"),
}
"""What a project has installed before, beside Celery and pytest."""
ABOUT = {
    "flat": "flat module",
    "package": "package with autodiscovery and routes",
    "django_results": "Django with django-celery-results and pytest-django",
    "flask_factory": "Flask factory",
    "fastapi_pydantic": "FastAPI with pydantic models",
    "celery_app": "Celery's example `app`",
    "celery_next_steps": "Celery's example `next-steps`",
    "celery_periodic": "Celery's example `periodic-tasks`",
    "celery_django": "Celery's example `django`",
}
"""What the page calls a project."""
SESSION_SECONDS = 120
INTRODUCTION = """\
# To the first verdict

What the owner of a Celery project types until pytest shows a verdict, and how
long that takes, in nine of `tests/projects`, on a private stack:

```console skip="APP stands for each of the nine"
$ pip install "pytest-celery-manifest[embedded]"
$ pytest -v --manifest=batch.jsonl --manifest-app=APP --manifest-broker=private
```

"""
COUNTED = """
`pip install` includes its downloads: the network counts as much as the plugin.

"""


@dataclass(frozen=True)
class Measured:
    """Seconds of the clock of one project: installing, to the first verdict, and to the end."""

    project: str
    install: float
    first: float
    session: float
    verdicts: int

    @property
    def together(self) -> float:
        """Seconds from ``pip install`` to the first verdict."""
        return self.install + self.first

    def row(self) -> str:
        """A line of the table."""
        seconds = (self.install, self.first, self.session)
        cells = (ABOUT[self.project], *(f"{one:.1f}" for one in seconds), str(self.verdicts))
        return f"| {' | '.join(cells)} |\n"


class Owner:
    """The owner of a project, who has a new virtual environment and a clean shell."""

    def __init__(self, name: str, folder: Path) -> None:
        self.stranger = Stranger(name, folder, prepared=False)
        self.venv = folder / "venv"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", *NOT_INHERITED))}
        self.environment = kept | {
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
        }
        self.run(sys.executable, "-m", "venv", str(self.venv))

    def run(self, *command: str) -> float:
        """Run a command in the project's folder; return its seconds, or exit with its output."""
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.stranger.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return time.perf_counter() - began

    def session(self, *options: str) -> tuple[float, float]:
        """Run pytest; return the seconds to the first verdict it shows, and to its end."""
        expected = self.stranger.expected()
        began = time.perf_counter()
        first, text = None, ""
        with subprocess.Popen(
            [self.venv / "bin" / "pytest", "-v", *options],
            cwd=self.stranger.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                text += line
                if first is None and ("] PASSED" in line or "] FAILED" in line):
                    first = time.perf_counter() - began
            status = process.wait(SESSION_SECONDS)
        ended = time.perf_counter() - began
        if first is None or status != ("failed" in expected.values()):
            sys.exit(f"{self.stranger.folder.name}: pytest ended with {status}:\n{text}")
        if self.stranger.verdicts() != expected:
            sys.exit(f"{self.stranger.folder.name}: {json.dumps(self.stranger.verdicts())}")
        return first, ended


def measure(name: str, project: Project, wheel: Path, folder: Path) -> Measured:
    """Install into a new environment of the project, and run a batch there."""
    owner = Owner(name, folder)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(owner.venv)]
    owner.run(*uv, "celery[redis]", "pytest", *NEEDS.get(name, ()))
    for command in project.prepare:
        owner.run("python", *command)
    install = owner.run("pip", "install", "--no-cache-dir", f"{wheel}[embedded]")
    first, session = owner.session(
        "--manifest=batch.jsonl", f"--manifest-app={project.app}", "--manifest-broker=private"
    )
    return Measured(name, install, first, session, len(owner.stranger.expected()))


def table(found: Sequence[Measured]) -> str:
    """The rows, with their head."""
    head = (
        "| project | `pip install`, s | `pytest` to the first verdict, s "
        "| `pytest` to its end, s | verdicts |\n"
    )
    return f"{head}|---|---|---|---|---|\n" + "".join(one.row() for one in found)


def page(found: Sequence[Measured]) -> str:
    """The text of the page."""
    middle = statistics.median(one.together for one in found)
    load = f"load average {os.getloadavg()[1]:.1f}"
    machine = (
        f"Measured by `python -m benchmarks.first_verdict --write` on {os.cpu_count()} cores "
        f"({platform.system()}, {platform.machine()}; {load}), with Python "
        f"{platform.python_version()}: {middle:.0f} s from `pip install` to the first verdict in "
        "the middle of the nine.\n"
    )
    return f"{INTRODUCTION}{table(found)}{COUNTED}{machine}"


def main() -> None:
    """Measure the projects that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("projects", nargs="*", choices=[[], *ABOUT], help="all where none is named")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    if arguments.write and arguments.projects:
        parser.error("the page is of all projects: name none with --write")
    found = []
    with tempfile.TemporaryDirectory(prefix="manifest-first-") as scratch:
        dist = Path(scratch) / "dist"
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = dist.glob("*.whl")
        for name in arguments.projects or ABOUT:
            folder = Path(scratch) / name
            folder.mkdir()
            found.append(measure(name, ALL[name], wheel, folder))
            print(found[-1].row(), end="", flush=True)
    if arguments.write:
        PAGE.write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
