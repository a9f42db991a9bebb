"""Sessions one after another in one process: none finds what another had, or leaves anything."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Task, signals
from kombu.transport import memory
from loguru import logger

from pytest_manifest import log
from pytest_manifest.process_state import known_states
from pytest_manifest.redaction import names, texts
from tests.plugin.conftest import INI, Project
from tests.plugin.leaks import Marks

SECRET = "the-word-of-the-first"
APP = """
import logging

from celery import Celery, shared_task

app = Celery("{name}")


@app.task(name="say")
def say(word):
    logging.getLogger("{name}").warning("{name} says %s", word)
    raise ValueError(f"{name} says {{word}} {{sorted(app.tasks)[-3:]}}")


@shared_task(name="zz.{name}")
def shared():
    pass
"""
FIRST = f"""
from pytest_manifest import manifest_secret

manifest_secret("{SECRET}")
"""
MEMORY = "--manifest-broker=memory://"


def play(project: Project, name: str, *options: str, ini: str = "") -> tuple[str, Path]:
    """Play a session with an app and a manifest of this name; return what it says, and its log."""
    project.write(f"{name}.py", APP.format(name=name))
    words = [SECRET, "film_code=1984-1984"]
    rows = [{"id": f"{name}-{n}", "task": "say", "args": [one]} for n, one in enumerate(words)]
    project.manifest(f"{name}.jsonl", rows)
    project.write("pytest.ini", INI.replace("jobs:app", f"{name}:app") + ini)
    result = project.run(f"--manifest={name}.jsonl", MEMORY, *options)
    result.assert_outcomes(failed=2)
    return result.stdout.str(), project.ledgers()[-1].with_suffix(".log")


def test_a_session_sees_nothing_of_the_one_before(project: Project) -> None:
    """Neither its secrets, nor the names that it hides, its app, its log, or its salt."""
    salts = [names.current_salt()]
    project.write(
        "conftest.py", FIRST + "from pytest_manifest.redaction.names import current_salt\n"
    )
    first, first_log = play(
        project,
        "alpha",
        "--override-ini=manifest_log_format=json",
        ini="manifest_redact_names = film_code\n",
    )
    assert "alpha says ***" in first
    assert "film_code=***" in first
    assert SECRET not in first
    written = first_log.read_text("utf-8")
    assert SECRET not in written
    assert written.startswith("{")

    project.write("conftest.py", "")
    second, second_log = play(project, "beta")
    assert f"beta says {SECRET}" in second
    assert "film_code=1984-1984" in second
    assert "alpha" not in second
    assert first_log.read_text("utf-8") == written
    assert second_log != first_log
    assert not second_log.read_text("utf-8").startswith("{")

    assert texts.registered_secrets() == []
    assert SECRET not in texts.literals()
    assert names.current_salt() == salts[0]


@pytest.mark.parametrize(
    "options", [(MEMORY,), (MEMORY, "-n1"), ()], ids=["memory", "xdist", "private"]
)
def test_a_session_leaves_nothing(project: Project, options: tuple[str, ...]) -> None:
    """No thread, child, handler, patch, receiver, message or state, also where a job fails."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "args": [1]},
            {"id": "bad", "task": "jobs.fail", "args": ["no luck"]},
        ],
    )
    before = Marks()
    project.run("--manifest=m.jsonl", *options).assert_outcomes(passed=1, failed=1)
    assert project.leaks == []
    assert before.left(0.0) == []


def test_a_session_that_ends_early_leaves_nothing(project: Project) -> None:
    """Refused options, a conftest that cannot be imported, a stack that cannot be used."""
    project.doubles(count=1)
    assert project.run("--manifest=m.jsonl", "--manifest-window=none").ret == 4
    assert project.run("--manifest=no-such.jsonl").ret == 4
    project.run("--manifest=m.jsonl", "--manifest-broker=redis://127.0.0.1:1/0")
    project.write("conftest.py", f"{FIRST}raise ValueError('broken')\n")
    assert project.run("--manifest=m.jsonl", MEMORY).ret == 4
    assert project.leaks == []
    assert texts.registered_secrets() == []


def test_a_session_takes_secrets_over_that_its_process_has_hidden(project: Project) -> None:
    """Who has registered one before pytest was called goes on to have it hidden."""
    state = texts.hidden_values
    end = state.begin()
    try:
        from pytest_manifest import manifest_secret

        manifest_secret(SECRET)
        shown, _ = play(project, "alpha")
        assert "alpha says ***" in shown
        assert texts.registered_secrets() == [SECRET]
    finally:
        end()


def ours(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function look like one of the plugin's."""
    call.__module__ = "pytest_manifest.worker.signals"
    return call


@contextmanager
def a_thread() -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextmanager
def a_handler_of_a_signal() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, ours(lambda *_: None))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def a_handler_of_logging() -> Iterator[None]:
    handler = log._ToLoguru()
    logging.getLogger("celery.task").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("celery.task").removeHandler(handler)


@contextmanager
def a_handler_of_loguru() -> Iterator[None]:
    number = logger.add(ours(lambda _: None))
    try:
        yield
    finally:
        logger.remove(number)


@contextmanager
def a_patch() -> Iterator[None]:
    before = Task.retry  # which no app of this suite has replaced in this process
    Task.retry = ours(lambda *_: None)
    try:
        yield
    finally:
        Task.retry = before


@contextmanager
def a_receiver() -> Iterator[None]:
    signals.task_prerun.connect(ours(lambda **_: None), weak=False, dispatch_uid="planted")
    try:
        yield
    finally:
        signals.task_prerun.disconnect(dispatch_uid="planted")


@contextmanager
def a_queue() -> Iterator[None]:
    memory.Channel.queues["planted"] = memory.Queue()
    try:
        yield
    finally:
        del memory.Channel.queues["planted"]


@contextmanager
def a_state() -> Iterator[None]:
    end = next(iter(known_states())).begin()
    try:
        yield
    finally:
        end()


@pytest.mark.parametrize(
    "plant",
    [
        *(a_thread, a_handler_of_a_signal, a_handler_of_logging, a_handler_of_loguru),
        *(a_patch, a_receiver, a_queue, a_state),
    ],
    ids=lambda plant: plant.__name__,
)
def test_what_a_session_leaves_is_found(plant: Callable[[], Any]) -> None:
    before = Marks()
    assert before.left(0.0) == []
    with plant():
        assert before.left(0.0)
    assert before.left(5.0) == []
