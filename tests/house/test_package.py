"""The package as a whole: version, licence, typing, a light import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml

from scripts import schemas
from scripts.schemas import main


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, str]:
    """The [project] table."""
    table: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def test_the_json_schemas_are_current() -> None:
    """What is committed is what the models say, as the locked pydantic words it."""
    assert schemas.stale() == []
    assert main(["--check"]) == 0


def test_the_changelog_starts_with_the_version(root: Path, project: dict[str, str]) -> None:
    """The newest entry is of the version in pyproject.toml, or still unreleased above it."""
    versions = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert project["version"] in versions[:2]
    assert next(v for v in versions if v != "Unreleased") == project["version"]


def test_no_dependency_pins_redis_py_by_an_extra_of_another(root: Path) -> None:
    """Those of Celery and kombu forbid some that work, which projects have pinned beside us."""
    told = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert [one for one in told if re.match(r"(celery|kombu)\W*\[", one)] == []
    assert sum(re.match(r"(celery|kombu|redis)\b", one) is not None for one in told) == 3


def test_the_licence_is_whole(root: Path, project: dict[str, str]) -> None:
    """Apache-2.0, with its full text."""
    text = (root / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_package_is_typed(root: Path) -> None:
    """Type checkers of users read our annotations."""
    assert (root / "pytest_manifest" / "py.typed").is_file()


def test_importing_the_package_is_light() -> None:
    """A Celery app that imports it for one line must not load pytest or pydantic by that."""
    code = (
        "import json, sys; before = set(sys.modules); import pytest_manifest; "
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert loaded - set(sys.stdlib_module_names) == {"pytest_manifest"}


def test_pre_commit_runs_tools_of_the_environment_only(root: Path) -> None:
    """Its hooks are local, so that a commit and CI run the very same versions."""
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    for hook in (hook for repository in config["repos"] for hook in repository["hooks"]):
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_the_ci_script_stops_at_the_first_fault(root: Path) -> None:
    """It is bash, valid, strict, and skips nothing."""
    path = root / ".ci" / "run"
    text = path.read_text("utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert "\nexport CI=true\n" in text
    subprocess.run(["bash", "-n", str(path)], check=True)
