"""What is relied on of Celery's private parts: each test fails where Celery has changed.

What is exchanged for a whole process is tried in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.backends import by_name
from celery.app.defaults import _TO_NEW_KEY
from celery.app.task import extract_exec_options
from celery.app.trace import build_tracer, trace_task_ret
from celery.backends.base import KeyValueStoreBackend
from celery.backends.redis import RedisBackend
from celery.worker.consumer import Consumer, Tasks
from kombu.pools import ProducerPool

from pytest_manifest.broker.routing import OF_TASKS
from pytest_manifest.compat import celery as compat


class Store(KeyValueStoreBackend):  # type: ignore[misc]  # Celery ships no types
    """One that can be used by all threads, as Celery keeps it for all of them."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.thread_safe = True


@pytest.fixture
def app() -> Celery:
    """An app of no broker, which nothing but its test knows."""
    return Celery("compat", broker="memory://", backend="cache+memory://", set_as_current=False)


def apart(program: str) -> list[str]:
    """The lines that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_an_app_uses_other_connections_for_a_while(app: Celery) -> None:
    """Whatever it had made of each before, also for one thread, comes back."""
    before, connections = app.backend, app.pool
    pool = app.connection_for_write().Pool(limit=1)
    store = Store(app=app)
    with compat.other_connections(app, pool, store):
        assert (app.pool is pool, app.backend is store) == (True, True)
        with app.connection_or_acquire() as connection:
            assert connection in pool._dirty
    assert (app.pool is connections, app.backend is before) == (True, True)
    assert isinstance(app.producer_pool, ProducerPool)


def test_settings_are_answered_by_somebody_else() -> None:
    """Attributes, items and what Celery asks for itself; URLs whatever the environment says."""
    lines = apart(
        """
        import os
        from celery import Celery
        from pytest_manifest.compat.celery import answer_settings

        def answer(conf, key, given):
            return "ours" if key == "timezone" else given()

        answer_settings(answer, ("broker_url", "result_backend"), "memory://ours/")
        os.environ["CELERY_BROKER_URL"] = "memory://theirs/"
        app = Celery("a", broker="memory://theirs/", backend="rpc://")
        app.conf.task_default_queue = "queue"
        print(app.conf.timezone, app.conf["timezone"], app.conf.get("timezone"))
        print(app.conf.broker_url, app.conf.result_backend, app.connection_for_read().hostname)
        print(app.conf.task_default_queue)
        """
    )
    assert lines == ["ours ours ours", "memory://ours/ memory://ours/ ours", "queue"]


def test_results_of_all_tasks_are_kept_in_one_store() -> None:
    """A store that an app's class, a task's class or a task names is not used."""
    lines = apart(
        """
        from celery import Celery, Task
        from celery.backends.base import Backend
        from pytest_manifest.compat.celery import keep_results_by

        class Ours(Backend):
            pass

        keep_results_by(lambda app: Ours(app=app))

        class Own(Celery):
            backend_cls = "rpc"

        class Named(Task):
            backend = object()

        app = Own("a", broker="memory://", backend="rpc://")

        def work():
            pass

        app.task(base=Named, name="named")(work)
        app.task(name="assigned")(work)
        app.finalize()
        app.tasks["assigned"].backend = object()
        for owner in (app, app.tasks["named"], app.tasks["assigned"]):
            print(type(owner.backend).__name__)
        """
    )
    assert lines == ["Ours", "Ours", "Ours"]


def test_a_class_of_apps_with_a_store_of_its_own_is_known() -> None:
    class Keeping(Celery):  # type: ignore[misc]  # Celery ships no types
        backend = object()

    class Making(Celery):  # type: ignore[misc]  # as above
        def _get_backend(self) -> object:
            return object()

    own = map(compat.has_own_store, (Celery, Keeping, Making))
    assert list(own) == [False, True, True]
    assert {"backend", "_get_backend"} <= vars(Celery).keys()


def test_settings_have_earlier_names() -> None:
    assert compat.former_names() == _TO_NEW_KEY


def test_all_settings_are_known_by_name(app: Celery) -> None:
    names = compat.setting_names()
    assert {"broker_url", "result_backend", "task_queues"} <= names
    assert names <= {*app.conf.keys()}


@pytest.mark.parametrize("earlier", ["broker_url", "BROKER_URL"])
def test_settings_on_top_win_over_later_ones(earlier: str) -> None:
    """Whichever spelling the app uses; afterwards all is as the app has it."""
    app = Celery("a", set_as_current=False)
    app.conf[earlier] = "redis://first"
    assert app.conf.broker_url == "redis://first"
    with compat.settings_on_top(app.conf, {"broker_url": "memory://", "broker_read_url": None}):
        app.conf.update(broker_read_url="redis://later")
        assert (app.conf.broker_url, app.conf.get("broker_read_url")) == ("memory://", None)
    assert (app.conf.broker_url, app.conf.broker_read_url) == ("redis://first", "redis://later")


def test_result_stores_are_found_by_scheme() -> None:
    """Where Celery finds them itself."""
    stores = compat.stock_stores()
    loader = Celery("a", set_as_current=False).loader  # that of an instrumented app finds ours
    assert {"redis", "rpc", "db", "disabled"} <= stores.keys()
    for scheme in ("rpc", "cache", "redis"):
        kind = by_name(scheme, loader)
        assert stores[scheme].replace(":", ".") == f"{kind.__module__}.{kind.__qualname__}"


def test_what_was_not_made_is_not_made_by_a_look() -> None:
    store = RedisBackend(app=Celery("a", set_as_current=False), url="redis://nowhere.invalid/0")
    assert compat.if_made(store, "client") is None
    assert compat.if_made(store, "client") is not store.client
    assert compat.if_made(store, "client") is store.client


def test_an_app_makes_some_of_its_attributes_anew(app: Celery) -> None:
    """Those that it had come back; what it had not made is forgotten again."""
    amqp = app.amqp
    with compat.made_anew(app, "amqp", "control"):
        other, control = app.amqp, app.control
        assert other is not amqp
        assert app.amqp is other
    assert app.amqp is amqp
    assert app.control is not control


def test_a_task_runs_under_the_name_of_its_worker(app: Celery) -> None:
    """As Celery runs it, which takes the machine's name."""
    names: list[str] = []

    def work(task: Any, count: int) -> int:
        names.append(task.request.hostname)
        return 2 * count

    app.task(name="work", bind=True, shared=False)(work)
    app.finalize()
    app.tasks["work"].__trace__ = build_tracer("work", app.tasks["work"], app=app)
    under = compat.tracer_under(SimpleNamespace(options={"initargs": (app, "memory@here")}))
    for trace in (trace_task_ret, under(trace_task_ret)):
        request = {"id": "i", "delivery_info": {}}
        assert trace("work", "i", request, ((2,), {}, {}), None, None, app=app)[:2] == (0, "4")
    assert names[1] == "memory@here"
    assert names[0] != names[1]
    assert under(print) is print


def test_a_task_that_repeats_itself_calls_another_function(app: Celery) -> None:
    """And an exception of that one is one that it repeats for."""
    calls: list[str] = []

    @app.task(name="own", shared=False, autoretry_for=(ValueError,), max_retries=1)  # type: ignore[untyped-decorator]  # no types
    def own() -> None:
        calls.append("own")

    def other() -> None:
        calls.append("other")
        raise ValueError

    app.finalize()
    task = app.tasks["own"]
    with compat.running(task, other):
        result = task.apply()
    assert (result.state, calls) == ("FAILURE", ["other", "other"])
    task.apply()
    assert calls[2:] == ["own"]


def test_what_replaces_a_task_is_prepared() -> None:
    """Before it is sent; doing it twice prepares it once."""
    lines = apart(
        """
        from celery import Celery
        from celery.exceptions import Ignore
        from pytest_manifest.compat.celery import before_replacing

        before_replacing(lambda task, sig: print(task.name, sig.task, sig.subtask_type))
        before_replacing(lambda task, sig: print("twice"))
        app = Celery("a", broker="memory://", backend="cache+memory://")

        @app.task(name="first", bind=True)
        def first(self):
            raise self.replace(second.si() | second.si())

        @app.task(name="second")
        def second():
            return 1

        app.conf.task_always_eager = True
        first.apply()
        """
    )
    assert lines == ["first celery.chain chain"]


def test_messages_that_cannot_be_decoded_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the method that Celery's worker gives to each of its connections."""
    told: list[object] = []
    consumer = object.__new__(Consumer)
    monkeypatch.setattr(Consumer, "on_decode_error", lambda _self, *which: told.append(which))
    error = ValueError()
    for _ in range(2):
        compat.after_undecodable(consumer, lambda *which: told.append(("ours", *which)))
    consumer.on_decode_error("message", error)
    assert told == [("message", error), ("ours", "message", error)]
    assert "on_decode_error" in Tasks.start.__code__.co_names


def test_a_store_becomes_one_of_a_subclass(app: Celery) -> None:
    class Sub(Store):
        """Adds nothing."""

    store = Store(app=app)
    compat.turn_store_into(store, Sub)
    assert isinstance(store, Sub)
    assert store.app is app


def test_options_that_a_task_may_have_are_those_of_celery() -> None:
    """Which Celery puts into each message of the task."""
    wanted = SimpleNamespace(**{name: name for name in OF_TASKS})
    assert extract_exec_options(wanted) == {name: name for name in OF_TASKS}


def test_a_store_that_needs_no_look_stores_without_one(app: Celery) -> None:
    """Else Celery looks first, and leaves a success as it is."""

    class Plain(Store):
        """Counts what is read."""

        def __init__(self) -> None:
            super().__init__(app=app)
            self.values: dict[object, object] = {}
            self.looks = 0

        def get(self, key: object) -> object:
            self.looks += 1
            return self.values.get(key)

        def set(self, key: object, value: object) -> None:
            self.values[key] = value

    class Unlooking(compat.WithoutLook, Plain):
        def needs_no_look(self, task_id: str) -> bool:
            return task_id == "new"

    store = Unlooking()
    store.store_result("new", 1, "SUCCESS")
    assert store.looks == 0
    store.store_result("old", 1, "SUCCESS")
    store.store_result("old", 2, "FAILURE")
    assert store.looks == 2
    assert store.earlier_meta("old")["result"] == 1
