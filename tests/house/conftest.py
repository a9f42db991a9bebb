"""What the house's tests share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def compose_command() -> list[str]:
    """Docker Compose as a command; `config` needs no engine. Without it: skip, in CI fail."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    probe = ["docker", "compose", "version"]
    found = (
        shutil.which("docker")
        and not subprocess.run(probe, capture_output=True, check=False).returncode
    )
    if not found:
        missing("Docker Compose is not installed: install docker-compose (no engine is needed)")
    return ["docker", "compose"]


def project_files() -> list[Path]:
    """Every file that is, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # a source archive
        skipped = {".venv", ".git", "build", "dist", ".manifest", "__pycache__"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not skipped & set(path.relative_to(ROOT).parts) and not path.match(".*_cache/**")
        ]
    return sorted(path for path in paths if path.is_file())
