"""``manifest init``, and what its reader does next: from an empty folder to a red test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_manifest.stack.client import own_pythonpath

pytestmark = pytest.mark.timeout(180)


def run(folder: Path, *command: str, status: int = 0) -> str:
    """What a command prints; it has to end with this exit status."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "MANIFEST"))}
        | own_pythonpath(),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def begin(folder: Path) -> list[str]:
    """Make the first batch; return the command that runs it."""
    made = json.loads(run(folder, "pytest_manifest", "init", "--json"))
    assert made["todo"] == []
    command: list[str] = made["next"].split()
    return command


def test_an_empty_folder_has_a_red_test_after_two_commands(tmp_path: Path) -> None:
    """Which says what to correct; corrected, all pass, and the run's commands tell of both."""
    command = begin(tmp_path)
    red = run(tmp_path, *command, status=1)
    assert "result.letters is 4 where 5 was expected" in red
    assert "1 failed, 2 passed" in red
    plan = tmp_path / "workflows" / "first" / "plan.py"
    wrong = 'expect={"result": {"letters": 5}}'
    assert wrong in plan.read_text("utf-8")
    plan.write_text(plan.read_text("utf-8").replace(wrong, wrong.replace("5", "4")), "utf-8")
    assert "3 passed" in run(tmp_path, *command)
    shown = json.loads(run(tmp_path, "pytest_manifest", "show", "last", "--json"))
    assert shown["verdicts"] == {"passed": 3}
    before = min((tmp_path / ".manifest" / "runs").glob("*.sqlite")).stem
    named = f"--diff={before}"
    changed = json.loads(run(tmp_path, "pytest_manifest", "show", "last", named, "--json"))
    assert [one["id"] for one in changed["fixed"]] == ["greet-hedy"]


def test_an_app_that_is_there_is_used_and_none_of_its_tasks(tmp_path: Path) -> None:
    """Its workers run a task that each Celery app has."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "celery.py").write_text(
        "from celery import Celery\napp = Celery('shop')\n", "utf-8"
    )
    red = run(tmp_path, *begin(tmp_path), status=1)
    assert "result[1] is 4 where 5 was expected" in red
    assert "1 failed, 1 passed" in red
