"""``--manifest-broker=memory://``: a batch in pytest's own process, without any server."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_manifest.plugin.outcome import JobsBeside
from pytest_manifest.stack.in_memory_worker import logs_redacted
from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_batch_runs_in_memory(project: Project, workers: tuple[str, ...]) -> None:
    """Each entry is a test and runs once, in the process that dispatches; a failed one is shown."""
    project.doubles(count=5)
    project.manifest("bad.jsonl", [{"id": "b", "task": "jobs.fail", "args": ["no luck", "b"]}])
    result = project.run("--manifest=m.jsonl", "--manifest=bad.jsonl", MEMORY, *workers)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["The task raised ValueError: no luck on memory@*"])
    assert project.ran() == {f"d-{n}": 1 for n in range(5)} | {"b": 1}


def test_a_session_ends_although_a_job_hangs(project: Project) -> None:
    """The deadline judges the job, and pytest does not wait for its thread."""
    project.manifest("m.jsonl", [{"id": "n", "task": "jobs.nap", "args": [300]}])
    limits = ("--manifest-deadline=1", "--override-ini=manifest_grace=0")
    result = project.run_process("--manifest=m.jsonl", MEMORY, *limits)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*deadline*"])


def test_the_log_of_other_jobs_is_not_shown_under_an_entry(project: Project) -> None:
    """They run in pytest's own process while a test is reported; their lines are in receipts."""
    project.write(
        "noise.py",
        """
import logging

from celery import Celery

app = Celery("noise")


@app.task
def tell(name):
    logging.getLogger("noise").warning("said by %s", name)
    if name == "n-0":
        raise ValueError("no luck")
""",
    )
    rows = [{"id": f"n-{n}", "task": "noise.tell", "args": [f"n-{n}"]} for n in range(30)]
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", "--manifest-app=noise:app", MEMORY, "-rA")
    result.assert_outcomes(passed=29, failed=1)
    result.stdout.no_fnmatch_line("*Captured log*")
    result.stdout.fnmatch_lines(["*said by n-0"])


def test_secrets_are_hidden_in_what_jobs_log(project: Project) -> None:
    """Where pytest shows the log as it comes, too, with tracebacks; a test's own log is its own."""
    project.write(
        "noise.py",
        """
import logging

from celery import Celery
from celery.utils.log import get_task_logger

app = Celery("noise")


@app.task
def tell(name):
    word = "hunter" + name
    get_task_logger("noise").warning("password=%s", word)
    logging.getLogger("noise").error(f"token: {word}")
    try:
        raise ValueError(f"api_key={word}")
    except ValueError:
        logging.getLogger("noise").exception("it broke")
    raise KeyError(f"secret={word}")
""",
    )
    project.write(
        "test_own.py",
        """
import logging


def test_own_log(caplog):
    logging.getLogger("own").warning("password=hunter3-own")
    assert "password=hunter3-own" in caplog.messages
""",
    )
    project.manifest("m.jsonl", [{"id": "n", "task": "noise.tell", "args": ["2"]}])
    options = ("-rA", "-o", "log_cli=1", "-o", "log_cli_level=DEBUG", "-W", "default")
    result = project.run(
        *("test_own.py", "m.jsonl", "--manifest=m.jsonl", "--manifest-app=noise:app", MEMORY),
        *options,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*WARNING*noise:*password=[*]*", "*ValueError: api_key=[*]*"])
    assert "hunter2" not in result.stdout.str() + result.stderr.str()
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_a_warning_is_hidden_as_it_is_recorded() -> None:
    """Its kind stays; one without a secret is as it was."""
    for text, shown in (("password=hunter2", "password=***"), ("an old option", "an old option")):
        message = DeprecationWarning(text)
        recorded = warnings.WarningMessage(message, DeprecationWarning, "f.py", 1)
        JobsBeside().pytest_warning_recorded(recorded)
        assert str(recorded.message) == shown
        assert recorded.category is DeprecationWarning
        assert (recorded.message is message) == (text == shown)


def test_whoever_makes_records_as_well_is_left_alone() -> None:
    """Another's factory that calls ours stays; a block in the block is no matter."""
    with logs_redacted():
        inner = logging.getLogRecordFactory()

        def theirs(*args: object, **more: object) -> logging.LogRecord:
            return inner(*args, **more)

        logging.setLogRecordFactory(theirs)
    try:
        assert logging.getLogRecordFactory() is theirs
        with ThreadPoolExecutor() as pool:
            made = pool.submit(theirs, "n", 30, "f", 1, "token: %s", ("hunter2",), None).result()
        assert made.getMessage() == "token: hunter2"
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
