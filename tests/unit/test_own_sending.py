"""Tasks that send in a way of their own make their messages by it, and nothing is sent by that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery, Task, chain
from celery.result import AsyncResult
from kombu.transport import memory

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.broker.messages import MessageBuilder, Outgoing, own_senders, sending_notice
from pytest_manifest.broker.routing import AppRouting
from pytest_manifest.schema import Entry

RUN = "20261124T150000-0a1b2c3d"
SENT_AT = datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc)
NOWHERE = "redis://127.0.0.1:1/0"
Sending = Callable[..., Any]


def app_of(sending: Sending | None = None, **conf: object) -> Celery:
    """Return an app that knows no broker, with a task ``t`` whose class sends by this function."""
    app = Celery("own", set_as_current=False, fixups=(), broker=NOWHERE, backend=NOWHERE)
    app.conf.update(conf)
    names = {} if sending is None else {"apply_async": sending}
    kind = type("Own", (Task,), {"abstract": True, **names})

    @app.task(name="t", base=kind, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def task(*_args: object, **_kwargs: object) -> None: ...

    @app.task(name="plain", shared=False)  # type: ignore[untyped-decorator]  # as above
    def plain() -> None: ...

    return app


def builder_of(app: Celery) -> MessageBuilder:
    """Return what makes messages for the tasks of this app, each by its own way if it has one."""
    own = own_senders(app, app.tasks)
    return MessageBuilder(
        app, AppRouting(app, app.tasks), stream="s", ttl=60, tasks=app.tasks, own=own
    )


def build(app: Celery, **fields: Any) -> Outgoing | str:
    """Build the message of an entry; a text is why there is none."""
    attempt = attempt_of(RUN, Entry(id="e", task="t", **fields), 1)
    built, refused = builder_of(app).build([attempt], SENT_AT)
    return built[0] if built else refused[attempt.task_id].sentence("rejected")


def by_super(task: Task, *args: Any, **options: Any) -> Any:
    """Send as Celery's tasks do."""
    return Task.apply_async(task, *args, **options)


def with_tenant(task: Task, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    options["headers"] = {**(options.get("headers") or {}), "tenant": "a"}
    return by_super(task, args, kwargs, **options)


def dropping_all(
    task: Task, args: Any = None, kwargs: Any = None, task_id: Any = None, **_: Any
) -> Any:
    return by_super(task, args, kwargs, task_id=task_id, headers={"tenant": "a"})


@pytest.mark.parametrize("sending", [with_tenant, dropping_all])
@pytest.mark.parametrize("conf", [{}, {"task_always_eager": True}], ids=["", "eager"])
def test_its_message_has_what_it_adds_and_all_that_is_the_runs(
    sending: Sending, conf: dict[str, object]
) -> None:
    """Whatever the function passes on: our headers, the limits, the times of the entry."""
    expires = datetime(2027, 1, 1, tzinfo=timezone.utc)
    made = build(app_of(sending, **conf), args=[1], countdown=5, expires=expires, timeout=7)
    assert isinstance(made, Outgoing)
    message: Any = made.message
    headers: Any = {**message.headers, **made.options["headers"]}  # type: ignore[dict-item]  # a dict
    assert (headers["tenant"], headers["manifest_entry"]) == ("a", "e")
    assert headers["id"] == headers["manifest_root"] == made.attempt.task_id
    assert headers["timelimit"] == [7, None]
    assert headers["ignore_result"] is False
    assert headers["eta"] == "2026-11-24T15:00:05+00:00"
    assert headers["expires"] == "2027-01-01T00:00:00+00:00"
    assert message.body[0] == [1]


def test_headers_of_an_entry_reach_it() -> None:
    """It is given them, and may see them."""
    made = build(app_of(with_tenant), headers={"branch": "b"})
    assert isinstance(made, Outgoing)
    assert {"branch": "b", "tenant": "a"}.items() <= made.options["headers"].items()  # type: ignore[attr-defined]  # a dict


def raising(_task: Task, *_: Any, **__: Any) -> Any:
    raise RuntimeError("already queued")


def returning(task: Task, *_: Any, **__: Any) -> Any:
    return AsyncResult("of-another-job", app=task.app)


def twice(task: Task, *args: Any, **options: Any) -> Any:
    by_super(task, *args, **options)
    return by_super(task, *args, **options)


def with_another(task: Task, *args: Any, **options: Any) -> Any:
    task.app.tasks["plain"].delay()
    return by_super(task, *args, **options)


def by_a_chain(task: Task, *_: Any, **__: Any) -> Any:
    return chain(task.app.tasks["plain"].si(), task.app.tasks["plain"].si()).apply_async()


def by_another_id(task: Task, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    return by_super(task, args, kwargs, **{**options, "task_id": "an-id-of-its-own"})


def with_arguments(task: Task, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    return by_super(task, args, {**(kwargs or {}), "tenant": "a"}, **options)


def elsewhere(task: Task, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    return by_super(task, args, kwargs, **{**options, "queue": "tenant-a"})


@pytest.mark.parametrize(
    ("sending", "reason"),
    [
        (raising, "its own apply_async raised RuntimeError: already queued"),
        (returning, "sent nothing, and returned the result of job of-another-job"),
        (lambda *_, **__: None, "sent nothing, and returned None"),
        (twice, "sends 2 messages"),
        (with_another, "sends 2 messages"),
        (by_a_chain, "gives the job another id"),
        (by_another_id, "gives the job another id, an-id-of-its-own"),
        (with_arguments, "other arguments than the entry has; write them there"),
        (elsewhere, "sends it to tenant-a, and not where the app's routes do"),
    ],
)
def test_what_is_not_the_one_message_of_its_entry_is_refused(sending: Sending, reason: str) -> None:
    """Before anything has left: no other job is answered for, and none has run unseen."""
    said = build(app_of(sending))
    assert isinstance(said, str)
    assert reason in said
    assert said.startswith("No message was made, so the task was not run (its own apply_async ")
    assert "name another queue" not in said


def test_what_it_is_told_to_write_there_is_then_sent() -> None:
    """A queue, or an argument, that the entry names itself is no difference."""
    assert isinstance(build(app_of(elsewhere), queue="tenant-a"), Outgoing)
    assert isinstance(build(app_of(with_arguments), kwargs={"tenant": "a"}), Outgoing)


def test_it_is_called_once_until_the_broker_has_the_message() -> None:
    """Another call would find the lock of the first, and the job would never be sent."""
    calls: list[str] = []

    def once(task: Task, *args: Any, **options: Any) -> Any:
        calls.append(options["task_id"])
        return by_super(task, *args, **options)

    builder = builder_of(app_of(once))
    attempt = attempt_of(RUN, Entry(id="e", task="t"), 1)
    later = datetime(2026, 11, 24, 16, 0, tzinfo=timezone.utc)
    [first], _ = builder.build([attempt], SENT_AT)
    [second], _ = builder.build([attempt], later)
    assert (first.message, len(calls)) == (second.message, 1)
    assert second.options["headers"]["manifest_sent_at"].startswith("2026-11-24T16")  # type: ignore[index]  # a dict
    builder.forget([attempt.task_id])
    builder.build([attempt], later)
    assert len(calls) == 2


def test_other_threads_send_as_ever_meanwhile() -> None:
    """What they send at that moment is not ours, and is not kept."""
    queue = "sent-by-another-thread"

    def beside(task: Task, *args: Any, **options: Any) -> Any:
        plain = task.app.tasks["plain"]
        other = threading.Thread(target=plain.apply_async, kwargs={"queue": queue})
        other.start()
        other.join()
        return by_super(task, *args, **options)

    app = app_of(beside, broker_url="memory://localhost/", result_backend="disabled://")
    assert isinstance(build(app), Outgoing)
    assert memory.Channel.queues.pop(queue).qsize() == 1


def test_who_sends_in_a_way_of_its_own_is_known() -> None:
    """By a class, by the task itself, or by the app; before anything is sent the run says it."""
    app = app_of(with_tenant)
    assert own_senders(app_of(), app_of().tasks) == {}
    assert own_senders(app, app.tasks) == {"t": f"{__name__}.Own.apply_async"}
    app.tasks["plain"].apply_async = with_tenant
    assert own_senders(app, app.tasks)["plain"] == "plain.apply_async"

    class OwnApp(Celery):  # type: ignore[misc]  # Celery has no types
        def send_task(self, *args: Any, **options: Any) -> Any:
            return super().send_task(*args, **options)

    whole = OwnApp("whole", set_as_current=False, fixups=())
    assert "OwnApp.send_task" in own_senders(whole, whole.tasks)["celery.chord"]

    senders = {"t": "proj.Own.apply_async"}
    assert sending_notice(senders, ["other"], called=False) == []
    [left] = sending_notice(senders, ["t"], called=False)
    assert left.startswith("t: proj.Own.apply_async is not called")
    assert "manifest_apply_async = true" in left
    [called] = sending_notice(senders, ["t"], called=True)
    assert "one by one" in called
