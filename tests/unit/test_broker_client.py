"""The Celery client of a stack, made without a broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app

from pytest_manifest.broker.client import connection_to, load_app, result_backend
from pytest_manifest.errors import StackError
from pytest_manifest.urls import StackAddress, is_redis, scheme_of


def address(app: str | None, broker: str = "redis://u:secret@localhost:1/0") -> StackAddress:
    """Return an address that nobody connects to."""
    return StackAddress(broker, broker, app, False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that is not on ``sys.path``, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_app_is_found_in_the_working_directory(project: Path) -> None:
    """As with ``celery -A``, the working directory is importable, and tasks are registered."""
    (project / "my_client_project.py").write_text(
        "from celery import Celery\n"
        "app = Celery('my', broker='redis://theirs:1/7', set_as_current=False)\n"
        "@app.task(name='my.task', shared=False)\ndef task(): pass\n"
    )
    app = load_app(address("my_client_project:app"))

    assert app.conf.broker_url == "redis://theirs:1/7"  # untouched
    assert "my.task" in app._tasks
    assert load_app(address("my_client_project")) is app


@pytest.mark.parametrize(
    ("source", "module", "reason", "advice"),
    [
        (
            "raise RuntimeError('no redis://x:topsecret@h here')",
            "broken_client_project",
            "RuntimeError",
            "; mend that",
        ),
        ("app = 5", "broken_client_project", "is a int, not a Celery app", "; name it as"),
        ("", "broken_client_project", "has no 'app'", "; name it as"),
        ("", "no_such_client_project", "there is no module 'no_such_", "; name the app"),
    ],
)
def test_import_failure_is_one_sentence(
    project: Path, source: str, module: str, reason: str, advice: str
) -> None:
    """Whatever an import raises is a StackError with the module and the reason, and no password."""
    (project / "broken_client_project.py").write_text(source)
    with pytest.raises(StackError) as caught:
        load_app(address(f"{module}:app"))

    sentence = str(caught.value)
    assert f"{module}:app" in sentence
    assert reason in sentence
    assert advice in sentence
    assert "topsecret" not in sentence


def test_plain_client_leaves_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an app neither the current app nor the environment changes, nor is Django set up."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no_such_settings")
    before, environment = current_app._get_current_object(), dict(os.environ)
    app = load_app(address(None))

    assert app.conf.broker_url == "redis://u:secret@localhost:1/0"
    assert current_app._get_current_object() is before
    assert dict(os.environ) == environment


def test_explicit_urls_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections go where the address says, whatever Celery's own variables say."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere:2/2")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://elsewhere:2/2")
    where = address(None)
    app = load_app(where)

    assert result_backend(app, where).connparams["host"] == "localhost"
    assert app.connection_for_write(url=where.broker_url).hostname == "localhost"


def test_transport_options_of_the_app_stay() -> None:
    """The app's own transport options are kept; only time-outs that it does not set are added."""
    where = address(None)
    app = load_app(where)
    app.conf.broker_transport_options = {"socket_timeout": 3, "priority_steps": [0, 1]}

    assert connection_to(app, where).transport_options == {
        "socket_timeout": 3,
        "socket_connect_timeout": 5,
        "priority_steps": [0, 1],
        "retry_on_timeout": False,
    }
    amqp = address(None, "amqp://u:secret@localhost:1//")
    assert "socket_connect_timeout" not in connection_to(app, amqp).transport_options


def test_nothing_is_published_again_because_its_answer_is_late() -> None:
    """Whatever the app says: the messages may be in the queue, and their jobs would run twice."""
    where = address(None)
    app = load_app(where)
    app.conf.broker_transport_options = {"retry_on_timeout": True}
    assert connection_to(app, where).transport_options["retry_on_timeout"] is False


def test_schemes() -> None:
    """Redis brokers are told apart from others, also behind TLS or a socket."""
    assert [scheme_of(url) for url in ("RPC://", "db+sqlite:///x", "nothing")] == [
        "rpc",
        "db+sqlite",
        "",
    ]
    redis = ["redis://h", "rediss://h:1/0", "redis+socket:///run/x"]
    assert all(is_redis(url) for url in redis)
    assert not is_redis("amqp://h")
