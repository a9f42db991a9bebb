"""When the garbage collector is spared what a session has imported."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pytest_manifest.plugin.session import nothing_thrown_away, owns_process
from pytest_manifest.stack.client import own_pythonpath


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector is as it was afterwards."""
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    ("spec", "file", "owns"),
    [
        ("pytest.__main__", "/lib/pytest/__main__.py", True),  # python -m pytest
        (None, "/bin/pytest", True),
        (None, "/bin/py.test", True),
        ("tool.__main__", "/lib/tool/__main__.py", False),
        (None, "run_tests.py", False),
        (None, "", False),  # python -c
    ],
)
def test_only_pytests_own_process_is_a_sessions(
    monkeypatch: pytest.MonkeyPatch, spec: str | None, file: str, owns: bool
) -> None:
    """Of a script that calls pytest nobody knows what comes after it; nor within a test."""
    main = ModuleType("__main__")
    main.__spec__ = None if spec is None else ModuleSpec(spec, None)
    if file:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert owns_process() is False
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert owns_process() is owns


@pytest.mark.usefixtures("collector")
def test_nothing_is_collected_while_nothing_is_thrown_away() -> None:
    """Within, the collector rests; afterwards it works, but not on what was there already."""
    with nothing_thrown_away(owns_process=True):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("collector")
def test_the_collector_is_left_alone() -> None:
    """In other processes, and where somebody has switched it off."""
    frozen = gc.get_freeze_count()
    with nothing_thrown_away(owns_process=False):
        assert gc.isenabled()
    gc.disable()
    with nothing_thrown_away(owns_process=True):
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen


CONFTEST = """
import gc, sys

def pytest_runtest_teardown(item):
    seen = [vars(sys.modules["celery.app.base"]) is one for one in gc.get_objects()]
    print("spared", not any(seen), "collecting", gc.isenabled())
"""


def test_a_session_with_a_manifest_spares_it(tmp_path: Path) -> None:
    """Before the first test what was imported is set aside; what tests throw away is collected."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "jobs.py").write_text(
        "from celery import Celery\napp = Celery('jobs')\n\n"
        "@app.task(name='jobs.echo')\ndef echo(text):\n    return text\n"
    )
    (tmp_path / "m.jsonl").write_text('{"id": "a", "task": "jobs.echo", "args": ["hi"]}\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n")
    env = os.environ | own_pythonpath()
    del env["PYTEST_CURRENT_TEST"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-qs",
            "--manifest=m.jsonl",
            "--manifest-broker=memory://",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "spared True collecting True" in done.stdout
