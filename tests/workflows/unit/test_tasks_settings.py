"""Settings of the tasks' app: from the environment, with defaults that work on one machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from tasks.config import configuration, task_modules
from tasks.settings import PROJECT, Settings
from tests.unit.test_import_cost import modules_after
from tests.workflows.crud_load import ROOT, python_path


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CELERY_", "MANIFEST_", "REDIS_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


def test_defaults_need_no_environment() -> None:
    """Without any variable: no broker, so a private stack, and a database file in the folder."""
    settings = Settings()
    assert settings.broker_url is None
    assert settings.results_url is None
    assert settings.database_url == f"sqlite:///{PROJECT}/.manifest/system_test.sqlite3"


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own variables name broker and result store; the more telling database one wins."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://broker/1")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://results/2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://anybody/db")
    monkeypatch.setenv("MANIFEST_DATABASE_URL", "postgresql://us/db")
    settings = Settings()
    assert settings.broker_url == "redis://broker/1"
    assert settings.results_url == "redis://results/2"
    assert settings.database_url == "postgresql://us/db"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """``CELERY_BROKER_URL=`` names no broker, as compose files write it."""
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    monkeypatch.setenv("MANIFEST_RUN_COUNTER", "")
    assert Settings().broker_url is None
    assert Settings().run_counter is None


@pytest.mark.parametrize(
    ("broker", "results"),
    [("rediss://cloud/0", "rediss://cloud/0"), ("amqp://rabbit//", "rpc://")],
)
def test_results_follow_the_broker(
    monkeypatch: pytest.MonkeyPatch, broker: str, results: str
) -> None:
    """A Redis broker keeps results too; of any other, results come back by message."""
    monkeypatch.setenv("CELERY_BROKER_URL", broker)
    assert Settings().results_url == results


@pytest.mark.parametrize(
    ("password", "account"),
    [
        ("", ""),
        ("word", ":word@"),
        ("a\"b'\n#$ \\/@:?%é", ":a%22b%27%0A%23%24%20%5C%2F%40%3A%3F%25%C3%A9@"),
    ],
)
def test_a_redis_may_be_named_by_address_and_password(
    monkeypatch: pytest.MonkeyPatch, password: str, account: str
) -> None:
    """No character of the password ends its place in the URL; a URL that is given counts first."""
    monkeypatch.setenv("REDIS_ADDRESS", "redis:6379")
    monkeypatch.setenv("REDIS_PASSWORD", password)
    settings = Settings()
    assert settings.broker_url == f"redis://{account}redis:6379/0"
    assert settings.results_url == f"redis://{account}redis:6379/1"
    assert "word" not in repr(settings).replace("password", "")
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://rabbit//")
    assert (Settings().broker_url, Settings().results_url) == ("amqp://rabbit//", "rpc://")


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings can be logged."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter2@broker/1")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://:hunter2@results/1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://us:hunter2@host/db")
    assert "hunter2" not in repr(Settings())


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of no connections is refused, by the name of the variable that asked for it."""
    monkeypatch.setenv("MANIFEST_DATABASE_POOL_SIZE", "0")
    with pytest.raises(ValidationError, match="MANIFEST_DATABASE_POOL_SIZE"):
        Settings()


def test_only_json_is_accepted() -> None:
    """No worker unpickles what a message brings."""
    configured = configuration(Settings())
    assert configured["accept_content"] == configured["result_accept_content"] == ["json"]
    assert configured["task_serializer"] == configured["result_serializer"] == "json"


def test_counting_is_loaded_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter costs a round trip a task, so it is there for those who want it."""
    assert "tasks.counting" not in task_modules(Settings())
    monkeypatch.setenv("MANIFEST_RUN_COUNTER", "runs")
    assert "tasks.counting" in task_modules(Settings())


@pytest.mark.parametrize("module", ["tasks", "tasks.diagnostics", "tasks.crud"])
def test_importing_tasks_stays_light(module: str) -> None:
    """SQLAlchemy is loaded by the first task that needs it, not at a worker's start."""
    program = f"import sys, {module}; sys.exit('sqlalchemy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": python_path()}
    )
    assert done.returncode == 0


def test_a_worker_loads_what_is_heavy_with_the_first_batch_only() -> None:
    """Nor does a pytest session of the project, whose conftest knows the planning fixtures."""
    heavy = {"sqlalchemy", "alembic", "google.genai", "google.generativeai", "throttled"}
    assert not modules_after("import tasks, tasks.rag") & heavy
    light = {"sqlalchemy", "celery", "tasks"}
    assert not modules_after("import workflows.gap_fill.plan") & (light | heavy)
