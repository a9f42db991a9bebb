"""A note names the plugins by which settings for tests act on a batch.

What it says is held by ``unit/test_settings_for_tests.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import beside
from tests.plugin.conftest import INI, Project

MEMORY = "--manifest-broker=memory://"
ENV = """
def pytest_addoption(parser):
    parser.addini("env", "variables, as pytest-env has them", type="linelist", default=[])
"""
"""Stands for pytest-env: its name among the plugins, and its setting."""
SETTINGS = INI + "env =\n  SHOP_KEY=of tests\n  D:SHOP_URL=memory://\n"


def note(text: str) -> str:
    """The note about settings for tests, without its line breaks."""
    found = re.search(r"note: settings for tests .*", text)
    return "" if found is None else found[0]


def test_a_run_says_it_and_its_audit_does_not(project: Project) -> None:
    """The audit sends nothing."""
    project.write("env.py", ENV)
    project.write("pytest.ini", SETTINGS)
    project.doubles(count=1)
    said = note(project.run("--manifest=m.jsonl", MEMORY, "-p", "env").stdout.str())
    assert "pytest-env (sets SHOP_KEY, SHOP_URL); 'manifest init' writes a batch.ini" in said
    audit = project.run("--manifest=m.jsonl", "--manifest-audit", "-p", "env")
    audit.assert_outcomes(passed=1)
    assert not note(audit.stdout.str())


@pytest.mark.ring(2)
def test_what_addopts_starts_is_named_and_what_the_command_starts_is_meant(
    project: Project,
) -> None:
    """xdist, here."""
    project.doubles(count=2)
    assert not note(project.run("--manifest=m.jsonl", MEMORY, "-n1").stdout.str())
    project.write("pytest.ini", f"{INI}addopts = -n1\n")
    said = note(project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun").stdout.str())
    assert "too: pytest-xdist (-n in addopts);" in said


@pytest.mark.ring(2)
def test_django_and_coverage_are_named(tmp_path: Path) -> None:
    """As they are."""
    (tmp_path / "jobs.py").write_text("from celery import Celery\napp = Celery()\n", "utf-8")
    (tmp_path / "site_settings.py").write_text("SECRET_KEY = 'x'\n", "utf-8")
    (tmp_path / "pytest.ini").write_text(
        f"{INI}addopts = --cov=jobs\nDJANGO_SETTINGS_MODULE = site_settings\npythonpath = .\n",
        "utf-8",
    )
    line = '{"id": "a", "task": "celery.accumulate", "args": [1]}\n'
    (tmp_path / "m.jsonl").write_text(line, "utf-8")
    variables = beside.environment("pytest-django", "pytest-cov")
    command = ("pytest", "--manifest=m.jsonl", "--manifest-broker=private")
    done = beside.run(tmp_path, command, variables)
    assert done.status == 0
    said = note(done.text)
    assert "pytest-django (blocks the database to plans), pytest-cov (--cov in addopts);" in said
