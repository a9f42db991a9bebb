"""The digest of a task's code: the same on both sides, another one after any change that counts."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from pytest_manifest.schema.wire import code_digest, comparable
from pytest_manifest.worker import _take_digests

VERSION = f"py{sys.version_info.major}.{sys.version_info.minor}"
SOURCE = """
import functools
from celery import Celery

app = Celery("digested", set_as_current=False)


def plain_function(x):
    return x + 1


def noting(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper


@app.task(shared=False)
def plain(x):
    return x + 1


@app.task(shared=False, bind=True)
def bound(self, x):
    return x + 1


@app.task(shared=False, bind=True, autoretry_for=(ValueError,), max_retries=3)
def retried(self, x):
    return x + 1


@app.task(shared=False)
@noting
def wrapped(x):
    return x + 1


class Classy(app.Task):
    name = "classy"

    def run(self, x):
        return x + 1


classy = app.register_task(Classy())
"""

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Imports a source text as a module of its own, from its own file."""
    names: list[str] = []

    def load(source: str) -> ModuleType:
        name = f"digested_{len(names)}"
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        names.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def test_it_names_python_and_is_a_sha256(load: Load) -> None:
    """The prefix says which digests can be compared."""
    digest = code_digest(load("def f(): pass\n").f)
    assert digest is not None
    version, _, sha = digest.partition(":")
    assert version == VERSION
    assert len(bytes.fromhex(sha)) == 32


def test_wrappers_are_looked_through(load: Load) -> None:
    """A task's run may be bound, wrapped by autoretry, a decorator or a partial, or a method."""
    module = load(SOURCE)
    expected = code_digest(module.plain_function)
    assert expected is not None
    for name in ("plain", "bound", "retried", "wrapped", "classy"):
        assert code_digest(getattr(module, name)) == expected, name
        assert code_digest(module.app.tasks[getattr(module, name).name]) == expected, name
    assert module.retried.run.__qualname__ == "retried"
    assert hasattr(module.retried, "_orig_run")
    elsewhere = functools.partial(functools.wraps(module.wrapped.run)(lambda x: x), 1)
    assert code_digest(elsewhere) == expected


def test_a_task_wrapped_by_a_tracer_has_the_digest_of_its_own_code(load: Load) -> None:
    """Tracing packages replace run in the worker alone, by a wrapper that says what it wraps."""
    task = load(SOURCE).bound
    before = task.run
    task.run = functools.wraps(before)(lambda *args: before(*args))
    assert code_digest(task) == code_digest(load(SOURCE).bound) is not None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("# a comment\ndef f(x):\n\n    return (x+1)  # more\n", True),
        ("def f(x):\n    return x + 2\n", False),
        ("def f(x):\n    return x + 1\ndef g(): pass\n", False),
    ],
)
def test_only_code_counts(load: Load, other: str, same: bool) -> None:
    """Comments and layout do not, a helper beside the task does."""
    one = code_digest(load("def f(x):\n    return x + 1\n").f)
    assert one is not None
    assert (code_digest(load(other).f) == one) is same


def test_what_is_loaded_counts_not_what_the_file_became(load: Load) -> None:
    """A worker that was not started anew after a deployment still runs the old code."""
    module = load("def f(): return 1\n")
    before = code_digest(module.f)
    assert module.__file__ is not None
    Path(module.__file__).write_text("def f(): return 2\n", encoding="utf-8")
    assert code_digest(module.f) == before
    assert code_digest(load("def f(): return 2\n").f) != before


def test_a_worker_takes_the_digests_when_it_starts(load: Load) -> None:
    """Not when a task first runs, which may be after the next deployment."""
    module, twin = load(SOURCE), load(SOURCE)
    _take_digests(module.app)
    Path(str(module.__file__)).write_text("changed = True\n", encoding="utf-8")
    assert code_digest(module.plain) == code_digest(twin.plain) is not None


def test_another_process_comes_to_the_same(load: Load) -> None:
    """Nothing of this process, like its hash seed, is in it."""
    module = load(SOURCE)
    program = (
        f"import sys; sys.path.insert(0, sys.argv[1]); import {module.__name__} as m\n"
        "from pytest_manifest.schema.wire import code_digest\n"
        "print(code_digest(m.retried))"
    )
    folder = str(Path(str(module.__file__)).parent)
    command = [sys.executable, "-c", program, folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == code_digest(module.retried)


def test_without_a_source_there_is_none(load: Load) -> None:
    """Built in, typed in, unknown, or lost."""
    lost = load("def f(): pass\n")
    Path(str(lost.__file__)).unlink()
    made: dict[str, Any] = {"__name__": "nowhere"}
    exec("def f(): pass", made)
    for task in (len, made["f"], 1, None, lost.f):
        assert code_digest(task) is None


def test_wrappers_in_a_circle_have_none(load: Load) -> None:
    """Two that wrap one another do not hang a worker."""
    module = load("def f(): pass\ndef g(): pass\n")
    module.f.__wrapped__, module.g.__wrapped__ = module.g, module.f
    assert code_digest(module.f) is None


def test_a_warning_of_the_source_is_not_said_again(load: Load) -> None:
    """It was said when the module was imported; as an error it must not cost the digest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = load("def f(): return '\\d'\n")
    assert code_digest(module.f) is not None


def test_celerys_own_tasks_have_one_too() -> None:
    """A task is a task."""
    app = Celery("own", set_as_current=False)
    assert code_digest(app.tasks["celery.backend_cleanup"]) is not None


@pytest.mark.parametrize(
    ("one", "other", "can"),
    [
        ("py3.11:a", "py3.11:b", True),
        ("py3.11:a", "py3.12:a", False),
        (None, "py3.11:a", False),
        ("py3.11:a", None, False),
    ],
)
def test_comparable(one: str | None, other: str | None, can: bool) -> None:
    """Only digests of the same Python version, and only where both are known."""
    assert comparable(one, other) is can
