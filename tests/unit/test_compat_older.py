"""What older versions of Celery, kombu and redis-py do otherwise, on whatever is installed here."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.common import human_status
from celery import Celery, Task
from celery.exceptions import WorkerLostError
from kombu import Connection, Producer
from kombu.exceptions import VersionMismatch

from pytest_manifest.compat import older as compat
from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import failure_message
from pytest_manifest.stack.health import check_stack
from pytest_manifest.urls import StackAddress


def test_messages_are_sent_together_where_kombu_can() -> None:
    """Elsewhere, too, all have left when the context has ended."""
    with Connection("memory://") as connection, connection.channel() as channel:
        queue = connection.SimpleBuffer("together", channel=channel)
        producer = Producer(channel, auto_declare=False)
        with compat.published_together(producer, 7) as together:
            for number in range(10):
                producer.publish(number, exchange="together", routing_key="together")
            kombu_can = hasattr(Producer, "batch")
            assert getattr(together, "max_size", None) == (7 if kombu_can else None)
        assert [queue.get(timeout=1).payload for _ in range(10)] == list(range(10))


def test_an_error_among_messages_leaves_the_context() -> None:
    """In both ways the sender learns of it, and takes all of the context's for uncertain."""
    with Connection("memory://") as connection, connection.channel() as channel:
        producer = Producer(channel, auto_declare=False)
        with (
            pytest.raises(ConnectionError, match="cut"),
            compat.published_together(producer, 7),
        ):
            raise ConnectionError("cut")


class CallsItself(Task):  # type: ignore[misc]  # Celery ships no types
    """A task class as web frameworks' recipes have it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def test_a_task_called_within_itself_keeps_its_request() -> None:
    """As in a worker of its own; afterwards Celery is as it was."""
    app = Celery("older", set_as_current=False)

    @app.task(name="older.own", base=CallsItself, bind=True, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def own(self: Any, value: int) -> tuple[str, int]:
        return self.request.id, self.request.args[0] + value

    with compat.requests_kept([own]):
        own.push_request(id="its-own", args=[1])
        try:
            assert own(2) == ("its-own", 4)
        finally:
            own.pop_request()
    assert "push_request" not in vars(own)


@pytest.mark.parametrize(
    ("raised", "code"), [(SystemExit(3), 3), (SystemExit(), 0), (SystemExit("no"), 1)]
)
def test_a_job_that_exits_has_lost_its_worker(raised: SystemExit, code: int) -> None:
    """In the words of the newest Celery, whichever of them is installed."""
    error = compat.worker_lost(raised)
    assert isinstance(error, WorkerLostError)
    assert str(error) == f"Worker exited prematurely: {human_status(code)}."


def test_other_errors_are_what_they_are() -> None:
    """Only what ends a process is translated."""
    error = ValueError("no")
    assert compat.worker_lost(error) is error
    assert isinstance(compat.worker_lost(KeyboardInterrupt()), WorkerLostError)


def test_a_redis_py_that_kombu_refuses_is_known_by_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kombu names two versions; the advice that leads out is ours."""
    from kombu.transport import redis as transport

    monkeypatch.setattr(transport.redis, "VERSION", (2, 10, 6))
    with Connection("redis://127.0.0.1:1") as connection:
        with pytest.raises(VersionMismatch) as refused:
            connection.channel()
        address = StackAddress("redis://127.0.0.1:1", "", None, is_private=False)
        with pytest.raises(StackError, match=r'\(pip install "kombu\[redis\]"\)$'):
            check_stack(address)
    log = ["Traceback (most recent call last):", f"VersionMismatch: {refused.value}"]
    said = failure_message({"message": "it cannot start", "tail": log})
    assert said.splitlines()[0].endswith(' (pip install "kombu[redis]")')
    assert compat.way_to_redis(str(refused.value)) == 'pip install "kombu[redis]"'
    assert compat.way_to_redis("the connection was refused") == ""
