"""The health check of a worker: patient with one that is slow, and done with one that is silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from uuid import uuid4

import pytest
from celery import Celery

from tasks import ping

NODE = "celery@here"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An app in memory, whose workers nobody else asks."""
    app = Celery("asked", broker="memory://", set_as_current=False)
    app.conf.control_exchange = f"asked-{uuid4().hex}"
    monkeypatch.setattr(ping, "app", app)
    return app


@contextmanager
def node(app: Celery, name: str, *, ready_after: float = 0, takes: float = 0) -> Iterator[None]:
    """A worker's mailbox: it hears nothing before it is ready, and each answer takes its time."""
    ended = Event()

    def answer(_state: object) -> dict[str, str]:
        ended.wait(takes)
        return {"ok": "pong"}

    def listen() -> None:
        ended.wait(ready_after)
        with app.connection_for_read() as connection:
            mailbox = app.control.mailbox(connection)
            channel = connection.channel()
            listener = mailbox.Node(name, handlers={"ping": answer}, state=None, channel=channel)
            with listener.listen(channel=channel):
                while not ended.is_set():
                    try:
                        connection.drain_events(timeout=0.02)
                    except TimeoutError:
                        continue

    thread = Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_an_answer_counts_however_late(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with much to do each takes longer than until it is asked again."""
    monkeypatch.setattr(ping, "AGAIN_SECONDS", 0.05)
    with node(app, NODE, takes=0.2):
        assert ping.answers(NODE)


def test_who_was_not_ready_is_asked_again(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked before it listened is lost, and not waited for."""
    monkeypatch.setattr(ping, "AGAIN_SECONDS", 0.05)
    with node(app, NODE, ready_after=0.3):
        assert ping.answers(NODE)


def test_another_workers_answer_is_none(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else answers, the one of this name does not; and its silence has an end."""
    monkeypatch.setattr(ping, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(ping, "AGAIN_SECONDS", 0.1)
    with node(app, "celery@elsewhere"):
        assert not ping.answers(NODE)
