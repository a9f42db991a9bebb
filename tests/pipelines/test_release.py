"""What keeps a tag from becoming a release."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.machine import ROOT

SCRIPT = ROOT / ".ci" / "check_version.py"


@pytest.mark.parametrize(
    ("tag", "heading", "complaint"),
    [
        ("v1.2.3", "## 1.2.3 (2026-11-28)", None),
        ("v1.2.3", "## 1.2.30", "CHANGELOG.md has no heading '## 1.2.3'"),
        ("v1.2.4", "## 1.2.3", "the tag is v1.2.4, and pyproject.toml says 1.2.3; tag v1.2.3"),
    ],
)
def test_a_tag_names_a_version_that_is_described(
    tmp_path: Path, tag: str, heading: str, complaint: str | None
) -> None:
    """pyproject.toml and CHANGELOG.md agree with it, or the release ends there."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", "utf-8")
    command = [sys.executable, str(tmp_path / ".ci" / SCRIPT.name), tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == ((1, complaint) if complaint else (0, ""))


def test_a_distribution_with_a_stranger_is_refused(tmp_path: Path) -> None:
    """A second top level in the wheel is told by name."""
    import zipfile

    wheel = tmp_path / "pytest_celery_manifest-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pytest_celery_manifest-1.dist-info/entry_points.txt", "")
        archive.writestr("pytest_manifest/__init__.py", "")
        archive.writestr("tests/__init__.py", "")
    check = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["check_wheel"]
    with pytest.raises(SystemExit, match="also holds tests"):
        check(wheel)
