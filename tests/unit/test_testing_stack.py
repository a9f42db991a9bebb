"""The stack in memory: what it borrows, what it gives back, and how it ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery, _state, current_app, shared_task
from celery.worker import state as worker_state
from kombu import Connection
from kombu.transport import memory
from loguru import logger

import pytest_manifest.stack.in_memory_worker as worker
from pytest_manifest.errors import StackError
from pytest_manifest.schema import Entry, Expectations
from pytest_manifest.stack import in_memory_worker
from pytest_manifest.stack.in_memory import SETTINGS, URL
from pytest_manifest.testing import MemoryStack, run
from pytest_manifest.worker.backend_memory import MemoryStore, stores
from tests.support import eventually

ROOT = Path(__file__).parents[2]


def price(count: int) -> int:
    """What the shop's task does."""
    return 250 * count


def costly() -> None:
    """What no test may call."""
    raise AssertionError("the real thing was called")


def make_app(**settings: object) -> Celery:
    """A user's app, whose broker nobody could reach."""
    app = Celery("shop", set_as_current=False, broker="amqp://nobody@broker.invalid//")
    app.conf.update(result_backend="redis://store.invalid/0", **settings)

    app.task(name="shop.price", shared=False)(price)
    retried = {"autoretry_for": (OSError,), "max_retries": 1, "default_retry_delay": 0}
    app.task(name="shop.order", shared=False, **retried)(costly)
    app.finalize()
    return app


def price_of(stack: MemoryStack, count: int) -> object:
    """Run one job of the app, and return what it returned."""
    [settled] = run([Entry(id="p", task="shop.price", args=[count])], stack).values()
    assert settled.receipt is not None, settled.verdict.sentence
    return settled.receipt.result


@contextmanager
def gates() -> Iterator[tuple[threading.Event, threading.Event]]:
    """An event that says a job has begun, and one that lets it end: it is set in any case."""
    begun, go_on = threading.Event(), threading.Event()
    try:
        yield begun, go_on
    finally:
        go_on.set()


@pytest.mark.parametrize("shared", [False, True])
def test_an_app_is_as_it_was(shared: bool) -> None:
    """Settings, backend, routing and loader of a user's app are those from before."""
    app = make_app(task_default_queue="shop-queue", result_backend_thread_safe=shared)
    before = {name: app.conf.get(name) for name in (*SETTINGS, "task_default_queue", "include")}
    amqp, backend, overrides = app.amqp, app.backend, dict(app.loader.override_backends)
    with MemoryStack(app) as stack:
        assert app.conf.broker_url == URL
        assert price_of(stack, 2) == 500
        assert app.send_task("shop.price", [3]).get(timeout=10) == 750
    assert {name: app.conf.get(name) for name in before} == before
    assert app.amqp is amqp
    assert app.backend is backend
    assert app.loader.override_backends == overrides
    assert app.connection_for_write().hostname == "broker.invalid"
    assert current_app._get_current_object() is not app


def test_a_namespaced_configuration_is_led_to_memory_too() -> None:
    """Settings that stand under a prefix do not win over those of the stack."""
    app = Celery("django", set_as_current=False)
    source = {"SHOP_BROKER_URL": "amqp://broker.invalid//", "SHOP_RESULT_BACKEND": "rpc://"}
    app.config_from_object(source, namespace="SHOP")
    with MemoryStack(app, tasks={"one": lambda: 1}) as stack:
        [settled] = run([Entry(id="1", task="one", expect=Expectations(result=1))], stack).values()
        assert settled.verdict.verdict == "passed"
    assert app.conf.broker_url == "amqp://broker.invalid//"


def test_variables_of_the_environment_do_not_lead_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery prefers them to all settings; a test's jobs must not reach that broker."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://broker.invalid//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://store.invalid/0")
    monkeypatch.delenv("CELERY_BROKER_READ_URL", raising=False)
    with MemoryStack(make_app()) as stack:
        assert os.environ["CELERY_BROKER_URL"] == URL
        assert price_of(stack, 1) == 250
    assert os.environ["CELERY_BROKER_URL"] == "amqp://broker.invalid//"
    assert os.environ["CELERY_RESULT_BACKEND"] == "redis://store.invalid/0"
    assert "CELERY_BROKER_READ_URL" not in os.environ


def test_jobs_can_send_jobs_and_wait_for_them_elsewhere() -> None:
    """A task's own messages go to the same broker, and results come back."""
    app = make_app()
    with MemoryStack(app, workers=2):
        chord = app.signature("shop.price", args=(1,)) | app.signature("shop.price")
        assert chord.apply_async().get(timeout=10) == 250 * 250


def test_messages_of_others_are_left_alone() -> None:
    """What waited in kombu's memory before is not run, and is there afterwards."""
    with Connection("memory://") as connection:
        queue = connection.SimpleQueue("celery")
        try:
            queue.put("somebody's")
            with MemoryStack(make_app()) as stack:
                assert price_of(stack, 1) == 250
                assert "somebody's" not in str(memory.Channel.queues["celery"].queue)
            assert queue.get(block=False).payload == "somebody's"
        finally:
            queue.queue.delete()


def test_what_waits_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping begins no further job, and the next stack knows nothing of what was waiting."""
    monkeypatch.setattr(worker, "STOP_SECONDS", 0.1)
    app, calls = make_app(), []
    with gates() as (begun, go_on):

        def hold(count: int) -> None:
            calls.append(count)
            begun.set()
            go_on.wait()

        with MemoryStack(app, tasks={"shop.price": hold}):
            for count in range(10):
                app.send_task("shop.price", [count])
            assert begun.wait(10)
        [thread] = [one for one in threading.enumerate() if one.name == "manifest-memory-1"]
        go_on.set()
        eventually(lambda: not thread.is_alive(), what="the end of the job that was running")
        with MemoryStack(app) as second:
            assert price_of(second, 3) == 750
    assert calls == [0]


def test_nothing_is_kept() -> None:
    """Results, receipts, revoked ids and handlers of loggers go with the stack."""
    app = make_app()
    with MemoryStack(app) as stack:
        assert price_of(stack, 1) == 250
        result = app.send_task("shop.price", [3])
        assert result.get(timeout=10) == 750
        app.control.revoke("some-id")
        eventually(lambda: "some-id" in worker_state.revoked, what="the id to be revoked")
        key = app.backend.get_key_for_task(result.id)
        kept = stores.now
        assert kept.get(key) is not None
    assert kept.get(key) is None
    assert stores.now is not kept
    assert "some-id" not in worker_state.revoked
    handlers = {type(one).__module__ for one in logging.getLogger().handlers}
    assert "pytest_manifest.worker.job" not in handlers


def test_every_stack_hears_its_own_log_lines() -> None:
    """Also the second one of a process, and each line once."""
    for _ in range(2):
        with MemoryStack(tasks={"talk": lambda: logger.info("spoken")}) as stack:
            [settled] = run([Entry(id="t", task="talk")], stack).values()
        assert settled.receipt is not None
        assert len([line for line in settled.receipt.log if "spoken" in line]) == 1


def test_the_app_is_the_current_one_of_its_jobs_alone() -> None:
    """A task finds its app as in a worker; the test's own current app is another."""
    app = make_app()
    names = {"who": lambda: current_app.main}
    with MemoryStack(app, tasks=names) as stack:
        [settled] = run([Entry(id="w", task="who")], stack).values()
        assert current_app.main != "shop"
    assert settled.receipt is not None
    assert settled.receipt.result == "shop"


def test_an_app_that_has_no_name_lends_its_routes() -> None:
    """Jobs go where the app at hand sends them, although no module has it."""
    app = make_app(task_routes={"shop.price": {"queue": "prices"}})
    with MemoryStack(app) as stack:
        [settled] = run([Entry(id="p", task="shop.price", args=[1])], stack).values()
    assert settled.receipt is not None
    assert settled.receipt.queue == "prices"


def test_a_second_stack_at_the_same_time_is_refused() -> None:
    """It says why; the first one is not disturbed, and its place is free once it has stopped."""
    with MemoryStack(make_app()) as stack:
        with pytest.raises(StackError, match="another in-memory stack runs in this process"):
            MemoryStack(make_app()).start()
        assert price_of(stack, 1) == 250
    with MemoryStack(make_app()):
        pass


def test_starting_twice_is_refused() -> None:
    """Neither a running stack nor a stopped one is started again."""
    stack = MemoryStack(make_app())
    with stack, pytest.raises(StackError, match="started already"):
        stack.start()
    with pytest.raises(StackError, match="started already"):
        stack.start()


def test_it_looks_like_an_embedded_stack() -> None:
    """The pytest face follows both in the same way."""
    stack = MemoryStack(make_app())
    for ask in (lambda: stack.address, lambda: stack.app):
        with pytest.raises(StackError, match=r"not run|not started"):
            ask()
    stack.start()
    try:
        address = stack.wait_broker(1)
        assert (address.broker_url, address.backend_url) == (URL, URL)
        assert address.is_private
        assert stack.failure is None
    finally:
        stack.begin_stop()
        stack.begin_stop()
        stack.stop()
        stack.stop()
    assert stack.failure is None


class ConsumerWithoutPromptAcks:
    """As Celery's own before 5.7: the loop does later what it is asked for."""

    def call_soon(self, *_: object) -> None:
        raise AssertionError("it was put off")


class ConsumerWithPromptAcks(ConsumerWithoutPromptAcks):
    def call_soon_ack(self) -> None: ...


def test_messages_are_acknowledged_at_once_whatever_the_version(caplog_loguru: list[str]) -> None:
    """The class that the app names is kept; what fails is logged, and the job goes on."""
    done: list[int] = []
    app = make_app(worker_consumer=f"{__name__}:ConsumerWithoutPromptAcks")
    prompt = worker.consumer_class(app)
    assert issubclass(prompt, ConsumerWithoutPromptAcks)
    prompt().call_soon(done.append, 1)
    prompt().call_soon(done.index, 2)
    assert done == [1]
    assert "ValueError" in caplog_loguru[-1]
    app = make_app(worker_consumer=f"{__name__}:ConsumerWithPromptAcks")
    assert worker.consumer_class(app) is ConsumerWithPromptAcks


@pytest.mark.parametrize("app", ["no.such.module:app", "tests.support:eventually"])
def test_an_app_that_is_none_is_named(app: str) -> None:
    """The sentence says which name was wrong, and another stack can be started."""
    with pytest.raises(StackError, match=app):
        MemoryStack(app).start()
    with MemoryStack(make_app()):
        pass


def test_tasks_that_cannot_be_imported_are_named() -> None:
    """A worker would not start then; neither does this one, and the app is given back."""
    app = make_app(imports=["no_such_module"])
    with pytest.raises(StackError, match="no_such_module"):
        MemoryStack(app).start()
    assert app.conf.broker_url == "amqp://nobody@broker.invalid//"


def test_a_worker_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own error is in the sentence."""

    def broken(*_: object) -> object:
        raise LookupError("no such pool")

    monkeypatch.setattr(in_memory_worker, "make_worker", broken)
    app = make_app()
    with pytest.raises(StackError, match=r"did not start.*LookupError: no such pool"):
        MemoryStack(app).start()
    assert app.conf.broker_url == "amqp://nobody@broker.invalid//"


def test_a_worker_that_ends_by_itself_is_a_failure() -> None:
    """Somebody shuts it down: the stack says that it has ended, and can still be stopped."""
    app = make_app()
    with MemoryStack(app) as stack:
        app.control.broadcast("shutdown")
        eventually(lambda: stack.failure, what="the worker's end")
        assert "has ended by itself" in (stack.failure or "")
    assert app.conf.broker_url == "amqp://nobody@broker.invalid//"


def test_at_least_one_worker() -> None:
    """None at all would run nothing."""
    with pytest.raises(ValueError, match="at least one worker"):
        MemoryStack(workers=0)


def test_several_jobs_at_once() -> None:
    """As many as there are workers; the worker answers questions meanwhile."""
    together = threading.Barrier(3)
    with MemoryStack(tasks={"meet": lambda: together.wait(20)}, workers=3) as stack:
        settled = run([Entry(id=str(n), task="meet") for n in range(3)], stack)
    assert [one.verdict.verdict for one in settled.values()] == ["passed"] * 3


def test_a_job_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog_loguru: list[str]
) -> None:
    """The deadline judges it; stopping says that it still runs, and does not wait for ever."""
    monkeypatch.setattr(worker, "STOP_SECONDS", 0.1)
    with gates() as (_, go_on):
        with MemoryStack(tasks={"hang": lambda: go_on.wait(60)}) as stack:
            entries = [Entry(id=name, task="hang") for name in ("first", "second")]
            settled = run(entries, stack, deadline=0.5)
        assert {one.verdict.verdict for one in settled.values()} == {"timed_out"}
        assert [
            line for line in caplog_loguru if "1 of the in-memory stack's jobs still run" in line
        ]
        with MemoryStack(make_app()) as other:
            assert price_of(other, 1) == 250


@pytest.fixture
def caplog_loguru() -> Iterator[list[str]]:
    """What is logged, as a list that grows."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    yield lines
    logger.remove(handler)


def test_a_job_that_hangs_does_not_keep_the_process() -> None:
    """Python ends although a job's thread still runs, also where nobody stopped the stack."""
    code = """
import threading
from pytest_manifest.testing import MemoryStack
begun = threading.Event()
def hang():
    begun.set()
    threading.Event().wait()
stack = MemoryStack(tasks={"hang": hang})
stack.start()
stack.app.send_task("hang")
assert begun.wait(30)
print("leaving")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_a_receipt_is_there_before_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees the plain result finds the better words; Redis gets both at once."""
    early: list[str] = []
    keep = MemoryStore.set

    def keep_and_look(store: MemoryStore, key: bytes, value: bytes) -> None:
        records = [str(row) for rows in store._streams.values() for row in rows]
        if not any("finished" in text and key.decode()[-36:] in text for text in records):
            early.append(str(value))
        keep(store, key, value)

    monkeypatch.setattr(MemoryStore, "set", keep_and_look)
    with MemoryStack(make_app()) as stack:
        assert price_of(stack, 1) == 250
    assert early == []


def test_settings_that_come_late_lead_no_job_out_of_memory() -> None:
    """An app may set its broker in the last moment, when it is put to use."""
    app = Celery("shop", set_as_current=False)
    app.task(name="shop.price", shared=False)(price)
    elsewhere = "redis://127.0.0.1:1/0"

    def configure(**_signal: object) -> None:
        app.conf.update(broker_read_url=elsewhere, broker_write_url=elsewhere)

    app.on_after_finalize.connect(configure)
    with MemoryStack(app) as stack:
        assert price_of(stack, 1) == 250


def test_pytest_is_not_imported() -> None:
    """The stack can be used by any other means of testing."""
    code = "import sys, pytest_manifest.testing; assert not {'pytest', '_pytest'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_stand_ins_take_the_place_of_tasks_for_a_while() -> None:
    """They are called with the job's arguments; afterwards the app's own task is back."""
    app = make_app()
    with MemoryStack(app, tasks={"shop.price": lambda count: -count, "new": list}) as stack:
        assert price_of(stack, 4) == -4
        assert "new" in app.tasks
    assert app.tasks["shop.price"](4) == 1000
    assert "new" not in app.tasks
    with MemoryStack(app) as stack:
        assert price_of(stack, 4) == 1000


def test_a_stand_in_keeps_the_options_of_its_task() -> None:
    """The task's autoretry tries the stand-in again, although it knows nothing of that."""
    calls: list[int] = []

    def order() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "ordered"

    app = make_app()
    own = app.tasks["shop.order"]._orig_run
    with MemoryStack(app, tasks={"shop.order": order}) as stack:
        entry = Entry(id="o", task="shop.order", expect=Expectations(result="ordered"))
        [settled] = run([entry], stack).values()
    assert settled.verdict.verdict == "passed"
    assert settled.receipt is not None
    assert settled.receipt.retries == 1
    assert app.tasks["shop.order"]._orig_run == own


@pytest.mark.parametrize("call", [len, [].append, type("Caller", (), {"__call__": max})()])
def test_any_callable_can_stand_in(call: Callable[..., object]) -> None:
    """Built-ins, methods and objects have no name or signature as functions do."""
    with MemoryStack(tasks={"call": lambda: None} | {"other": call}) as stack:
        assert "other" in stack.app.tasks


def test_what_cannot_be_called_is_no_stand_in() -> None:
    """The sentence says which one; the app is given back."""
    app = make_app()
    with pytest.raises(TypeError, match=r"tasks\['shop.price'\] is a int"):
        MemoryStack(app, tasks={"shop.price": 3}).start()  # type: ignore[dict-item]  # the fault
    assert app.conf.broker_url == "amqp://nobody@broker.invalid//"


def test_a_plain_app_knows_only_the_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of other apps in this process, shared by Celery with all apps, are not run."""
    shared = set(_state._on_app_finalizers)
    monkeypatch.setattr(_state, "_on_app_finalizers", shared)  # or it would stay for other tests
    shared_task(name="costly.task")(costly)
    with MemoryStack(tasks={"cheap": lambda: 1}) as stack:
        own = [name for name in stack.app.tasks if not name.startswith("celery.")]
        assert own == ["cheap"]


def test_a_job_that_raises_system_exit_ends_alone() -> None:
    """It is judged crashed, and its thread runs the next job."""

    def leave() -> None:
        raise SystemExit(3)

    with MemoryStack(tasks={"leave": leave, "stay": lambda: 1}) as stack:
        settled = run([Entry(id=name, task=name) for name in ("leave", "stay")], stack)
        assert settled["leave"].verdict.verdict == "crashed"
        assert settled["stay"].verdict.verdict == "passed"
        assert stack.failure is None
