"""Check what `make dist` built: `check_wheel.py dist`.

The wheel holds the plugin alone, installs into an environment of its own with versions that the
lock names, registers its entry points there, and runs a manifest on the embedded stack. Prints the
output of what it runs; exits with the first thing that does not hold.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = """
from celery import Celery

app = Celery("jobs")


@app.task
def double(number: int) -> int:
    return 2 * number
"""
MANIFEST = (
    '{"id": "two", "task": "jobs.double", "args": [1], "expect": {"result": 2}}\n'
    '{"id": "four", "task": "jobs.double", "args": [2], "expect": {"result": 4}}\n'
)
WANTED = {"__init__.py", "py.typed", "plugin/__init__.py"}


def only(folder: Path, pattern: str) -> Path:
    """Return the one file that matches; exit with a message where there is none, or several."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder}/{pattern}: expected one file, found {len(found)}; run `make dist`")
    return found[0]


def check_wheel(wheel: Path) -> None:
    """Exit with a message where the wheel holds more than the plugin, or lacks a part of it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    strangers = sorted({name.split("/")[0] for name in names} - {"pytest_manifest", info})
    if strangers:
        sys.exit(f"{wheel.name} also holds {', '.join(strangers)}")
    absent = WANTED - {name.removeprefix("pytest_manifest/") for name in names}
    if absent or not any(name.endswith(".json") for name in names):
        sys.exit(f"{wheel.name} lacks {', '.join(sorted(absent)) or 'the JSON Schemas'}")
    if not any(name.startswith(f"{info}/") and name.endswith("LICENSE") for name in names):
        sys.exit(f"{wheel.name} lacks its LICENSE")
    for line in ("manifest = pytest_manifest.plugin", "manifest-stack = "):
        if line not in entry_points:
            sys.exit(f"{wheel.name} does not register {line!r}")


def check_sdist(sdist: Path) -> None:
    """Exit with a message where the sdist holds more than the plugin and its papers."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    allowed = {"pytest_manifest", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
    strangers = sorted(
        {name.split("/")[0] for name in names} - allowed - {"", "PKG-INFO", ".gitignore"}
    )
    if strangers:
        sys.exit(f"{sdist.name} also holds {', '.join(strangers)}")


def constraints(folder: Path) -> Path:
    """Write the locked versions as pip's constraints, and return the file's path.

    Hashes are left out, as pip would ask for the wheel's too, and extras, as a constraint has none.
    """
    locked = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    path = folder / "constraints.txt"
    plain = re.sub(r"\s*\\\n\s+--hash=\S+", "", locked)
    path.write_text(re.sub(r"^([\w.-]+)\[[^\]]*\]==", r"\1==", plain, flags=re.MULTILINE), "utf-8")
    return path


def run_clean(wheel: Path) -> None:
    """Install into a new environment and run a manifest with it."""
    with tempfile.TemporaryDirectory(prefix="manifest-wheel-") as name:
        folder = Path(name)
        python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        needed = f"{wheel.resolve()}[embedded]"
        subprocess.run([*pip, "--constraint", str(constraints(folder)), needed], check=True)
        work = folder / "work"
        work.mkdir()
        (work / "jobs.py").write_text(JOBS, "utf-8")
        (work / "jobs.jsonl").write_text(MANIFEST, "utf-8")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
        command = [str(python), "-m", "pytest", "--manifest=jobs.jsonl", "--manifest-app=jobs:app"]
        done = subprocess.run(
            command, cwd=work, env=inherited, text=True, stdout=subprocess.PIPE, timeout=120
        )
        print(done.stdout)
        if done.returncode or "2 passed" not in done.stdout:
            sys.exit(f"the installed wheel does not run a manifest (exit status {done.returncode})")
        subprocess.run([python.with_name("manifest-stack"), "--help"], check=True)


def main() -> None:
    """See the module."""
    dist = Path(sys.argv[1])
    wheel, sdist = only(dist, "*.whl"), only(dist, "*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    run_clean(wheel)
    print(f"{wheel.name}: holds the plugin alone, installs, and runs a manifest")


if __name__ == "__main__":
    main()
