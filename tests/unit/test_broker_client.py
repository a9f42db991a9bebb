"""The Celery client of a stack, made without a broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import _state, current_app
from celery.signals import import_modules

from pytest_manifest.broker.client import connection_to, load_app, result_backend
from pytest_manifest.errors import StackError
from pytest_manifest.ini import put_on_path
from pytest_manifest.stack.private import import_from
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
    # Shared tasks would be those of all apps that other tests make in this process.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
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


ONE = "from celery import Celery\nfirst = Celery('first', set_as_current=False)\n"
TWO = f"{ONE}second = Celery('second', set_as_current=False)\n"


def test_a_module_with_two_apps_asks_for_a_name(project: Path) -> None:
    """Celery takes the first one; which is meant, only the user can say, by its attribute."""
    (project / "two_client_apps.py").write_text(TWO)
    with pytest.raises(StackError) as caught:
        load_app(address("two_client_apps"))
    assert str(caught.value) == (
        "the module 'two_client_apps' has 2 Celery apps, and none of them is called app or celery; "
        "name the one that is meant: two_client_apps:first, two_client_apps:second"
    )
    assert load_app(address("two_client_apps:second")).main == "second"
    assert load_app(address("two_client_apps.first")).main == "first"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (f"{TWO}app = second\n", "second"),
        (f"{TWO}celery = second\n", "second"),
        (f"{ONE}again = first\n", "first"),
        (f"from celery import current_app\n{ONE}", None),
    ],
    ids=["app", "celery", "one-by-two-names", "beside-current-app"],
)
def test_two_names_that_leave_no_doubt_are_taken(
    project: Path, source: str, name: str | None
) -> None:
    """By Celery's rule, that ``app`` and ``celery`` win; or as both are one and the same."""
    (project / "clear_client_app.py").write_text(source)
    found = load_app(address("clear_client_app"))
    assert name is None or found.main == name


def test_an_app_of_a_package_is_taken_by_celerys_rule(project: Path) -> None:
    """Its module ``celery`` comes before what the package itself has; there, too, two are two."""
    package = project / "packed_client_apps"
    package.mkdir()
    (package / "__init__.py").write_text(TWO)
    (package / "celery.py").write_text(ONE.replace("first", "only"))
    assert load_app(address("packed_client_apps")).main == "only"

    (package / "other").mkdir()
    (package / "other" / "__init__.py").write_text("")
    (package / "other" / "celery.py").write_text(TWO)
    with pytest.raises(StackError, match=r"'packed_client_apps.other.celery' has 2 Celery apps"):
        load_app(address("packed_client_apps.other"))

    (package / "third").mkdir()
    (package / "third" / "__init__.py").write_text(
        "from packed_client_apps.third.celery import second as app\n"
    )
    (package / "third" / "celery.py").write_text(TWO)
    assert load_app(address("packed_client_apps.third")).main == "second"


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


LAZY = "from celery import Celery\napp = Celery('lazy', include=['lazy_client_tasks'])\n"
TASKS = "from celery import shared_task\n@shared_task(queue='mails', priority=3)\ndef send(): ...\n"


def test_the_modules_that_an_app_names_are_imported(project: Path) -> None:
    """As a worker does it: before, a task's own queue is not known. Once, however often asked."""
    (project / "lazy_client_app.py").write_text(LAZY)
    (project / "lazy_client_tasks.py").write_text(TASKS)
    app = load_app(address("lazy_client_app"))
    assert app.tasks["lazy_client_tasks.send"].queue == "mails"

    asked: list[object] = []

    def ask(**_: object) -> None:
        asked.append(app)

    import_modules.connect(ask, sender=app)
    assert load_app(address("lazy_client_app:app")) is app
    assert asked == []


def test_a_module_of_tasks_that_cannot_be_imported_is_named(project: Path) -> None:
    """What its tasks say of their messages would not be known; the next try imports it again."""
    (project / "lame_client_app.py").write_text(LAZY.replace("lazy", "lame"))
    for _ in range(2):
        with pytest.raises(StackError, match=r"'lame_client_app' names .* 'lame_client_tasks'"):
            load_app(address("lame_client_app"))


def test_warnings_are_no_errors_while_an_app_is_loaded(project: Path) -> None:
    """Pytest's filters, which here make errors of them, are not for what workers do without."""
    (project / "loud_client_app.py").write_text(LAZY.replace("lazy", "loud"))
    (project / "loud_client_tasks.py").write_text(f"import warnings\nwarnings.warn('')\n{TASKS}")
    assert "loud_client_tasks.send" in load_app(address("loud_client_app")).tasks


def test_a_process_imports_from_where_its_client_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the client's order; its own working folder is first where the client has none such."""
    monkeypatch.chdir(tmp_path)
    here, own = str(tmp_path), ["/python/lib", "/python/site"]
    for given, expected in (
        (["/mono/backend", here, "/python/site"], ["/mono/backend", here]),
        (["/mono/backend", "/python/lib"], [here, "/mono/backend"]),
        ([], [here]),
    ):
        monkeypatch.setattr(sys, "path", [here, *own])
        import_from(given)
        assert sys.path == [*expected, *own]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\npythonpath = backend 'more libs'\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\npythonpath = ['backend', 'more libs']\n"),
    ],
)
def test_commands_import_from_where_pytest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """By the settings of the folder, or of the nearest above that has some."""
    (tmp_path / name).write_text(text)
    (below := tmp_path / "ops").mkdir()
    monkeypatch.setattr(sys, "path", ["/python/lib"])
    put_on_path(below)
    assert sys.path == [f"{tmp_path}/backend", f"{tmp_path}/more libs", "/python/lib"]
