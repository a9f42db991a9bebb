"""Which names mean one result store, and what an app's own is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from celery import Celery

from pytest_manifest.broker.stores import compare, own_store, unkept_ends
from pytest_manifest.broker.workers import STORE_QUESTION, Worker, workers_of
from pytest_manifest.schema.wire import WORKER_MARK
from pytest_manifest.urls import StackAddress

BROKER = "redis://:pw@127.0.0.1:7000/0"


@pytest.mark.parametrize(
    ("read", "kept", "alike"),
    [
        (BROKER, "redis://:**@127.0.0.1:7000/0", "same"),
        (BROKER, "redis://:**@localhost:7000/0", "same"),
        (BROKER, "redis://:**@localhost:7000", "same"),
        (BROKER, "redis://:**@127.0.0.1:7000/1", "other"),
        (BROKER, "redis://:**@127.0.0.1:7001/0", "other"),
        (BROKER, "redis://:**@results/0", "other"),  # ours is the broker, theirs is not
        (BROKER, "redis://:**@broker:6379/0", "same"),  # in their containers it is called so
        ("redis://one/0", "redis://two/0", "perhaps"),
        ("redis://one/0", "redis://broker:6379/0", "other"),
        ("redis://one:1/0", "redis://one:2/0", "other"),  # and neither is the broker
        ("sentinel://:pw@a:1;sentinel://b:1", "sentinel://:**@a:1;sentinel://b:1", "same"),
        ("redis+socket:///s?virtual_host=1", "redis+socket:///s?virtual_host=1", "same"),
        ("redis+socket:///s?virtual_host=1", "redis+socket:///s", "other"),
        (BROKER, "redis", "same"),  # where it is, is in settings that nobody tells
        ("db+sqlite:////a/b", "database", "same"),
        (BROKER, "redis://[::1:6379/0", "other"),
        (BROKER, "disabled:///", "other"),
        (BROKER, "disabled", "other"),
        (BROKER, "django-db", "other"),
        ("django-db", "django-db", "same"),
        ("django-db", "django-db://", "same"),
        ("django-db", "django-cache", "other"),
        ("shop.stores:Store", "shop.stores.Store", "same"),
        ("rpc://", "rpc://", "same"),
        ("db+sqlite:////a/b", "db+sqlite:////a/b", "same"),
        ("db+sqlite:////a/b", "db+sqlite:////a/c", "other"),
        ("db+postgresql://u:x@h/d", "db+postgresql+psycopg://u:**@h/d", "same"),
        ("db+postgresql://u:x@h/d", "db+postgresql://u:**@pg/d", "perhaps"),
        ("db+postgresql://u:x@h/d", "db+mysql://u:**@h/d", "other"),
    ],
)
def test_stores_by_their_names(read: str, kept: str, alike: str) -> None:
    """Kind, database and port decide; hosts may be called otherwise elsewhere."""
    worker = Worker("w", store=kept, broker=("broker", 6379))

    assert compare(StackAddress(BROKER, read, None, is_private=False), worker) == alike


def test_a_worker_says_what_its_store_is() -> None:
    """In Celery's report, with the password masked; without an answer nothing is known."""
    with Celery("a", broker=BROKER, backend=BROKER, set_as_current=False) as app:
        report = {"ok": app.bugreport()}
    blank: dict[str, dict[str, object]] = {"registered": {}, "active_queues": {}, "stats": {}}
    reports: dict[str, dict[str, object]] = {name: {"w": report} for name in STORE_QUESTION}

    store = workers_of(blank | reports)["w"].store
    assert re.fullmatch(r"redis://:\*+@127\.0\.0\.1:7000/0", store or ""), store
    assert workers_of({**blank, "stats": {"w": {}}})["w"].store is None


@pytest.mark.parametrize(
    ("settings", "store"),
    [
        ({}, None),
        ({"result_backend": "disabled"}, None),
        ({"result_backend": "django-db"}, "django-db"),
        ({"result_backend": "rpc"}, "rpc://"),
        ({"result_backend": "redis", "redis_host": "h", "redis_db": 3}, "redis://h:6379/3"),
        ({"result_backend": "database", "database_url": "sqlite:///x"}, "db+sqlite:///x"),
        ({"result_backend": "redis://h/2"}, "redis://h/2"),
        # On its own broker's server: so it is here.
        ({"result_backend": "redis://h/2", "broker_url": "redis://h/0"}, f"{BROKER[:-1]}2"),
        ({"result_backend": "redis://h/2", "broker_url": "redis://g/0"}, "redis://h/2"),
    ],
)
def test_an_apps_own_store(
    settings: dict[str, object], store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its settings say; what the environment says is of another stack."""
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://environment/0")
    with Celery("a", set_as_current=False) as app:
        app.conf.update(settings)

        assert own_store(app, BROKER) == store


def test_what_is_no_url_is_told_by_who_connects() -> None:
    """Asked for the store, an app's broker or the user's that is none is no traceback."""
    with Celery("a", broker=BROKER, backend=BROKER, set_as_current=False) as app:
        assert own_store(app, "redis://[::1:6379/0") in (None, BROKER)


def test_sentinels_of_others_keep_no_results_of_ours() -> None:
    """The app's store is in production; what the user gives is another place."""
    production = "sentinel://prod:26379/1"
    with Celery("a", broker=production, backend=production, set_as_current=False) as app:
        assert own_store(app, "sentinel://test:26379/1") is None
        assert own_store(app, production) == production


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("5.4.0", "refused"),
        ("5.5.3", "refused"),
        ("5.6.0rc1", "warned"),
        ("5.6.3", "warned"),
        ("5.7.0", ""),
        ("5.10.1", ""),
        ("6.0", ""),
    ],
)
def test_which_celery_keeps_the_ends_of_tasks_that_ignore_results(version: str, said: str) -> None:
    """Only a stock worker that has such a task, and consumes its queue, counts."""
    has = {"t.quiet": False, "t.kept": False}
    one = Worker("w@h", has, frozenset({"a"}), celery=version, ignoring=frozenset({"t.quiet"}))
    wanted = {"a": {"t.quiet", "t.kept"}}
    refused, warned = unkept_ends([one], wanted)
    assert (bool(refused), bool(warned)) == (said == "refused", said == "warned")
    for text in (*refused, *warned):
        assert text.startswith("t.quiet: results are ignored, and with a Celery before 5.")
        assert "set ignore_result=False on the task" in text
        assert "-I pytest_manifest.worker" in text
    ours = replace(one, tasks={**has, WORKER_MARK: False})
    others = replace(one, queues=frozenset({"b"})), replace(one, ignoring=frozenset())
    assert unkept_ends([ours, *others], wanted) == ([], [])


def test_a_worker_says_which_of_its_tasks_ignore_results() -> None:
    lines = ["t.a [acks_late=False ignore_result=True]", "t.b [acks_late=True ignore_result=False]"]
    (worker,) = workers_of(
        {"registered": {"w": [*lines, "t.c"]}, "active_queues": {}, "stats": {}}
    ).values()
    assert worker.ignoring == {"t.a"}
