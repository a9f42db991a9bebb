"""Which broker an app names itself, by each of the ways that Celery knows."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from celery import Celery
from kombu import Connection

from pytest_manifest.broker.client import OwnBroker, own_broker

MINE = "redis://:secret@broker.example/3"


class ByClass(Celery):  # type: ignore[misc]  # Celery ships no types
    def connection_for_write(self, url: object = None, *args: object, **kwargs: object) -> object:
        return Connection(url or MINE)


class ByUrl(Celery):  # type: ignore[misc]  # Celery ships no types
    def __init__(self) -> None:
        super().__init__("app", broker=MINE, set_as_current=False, fixups=())


def plain(**settings: object) -> Callable[[], Celery]:
    def make() -> Celery:
        app = Celery("app", set_as_current=False, fixups=())
        app.conf.update(settings)
        return app

    return make


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CELERY_"):
            monkeypatch.delenv(name)


def test_the_default_of_celery_is_nobodys_choice() -> None:
    """An app without any setting has a broker in Celery, and names none."""
    assert own_broker(plain()()) is None


@pytest.mark.parametrize(
    ("make", "url", "source"),
    [
        (ByUrl, MINE, "broker_url"),
        (plain(broker_url=MINE), MINE, "broker_url"),
        (plain(broker_url=[MINE, "redis://two"]), f"{MINE};redis://two", "broker_url"),
        (plain(broker_url="amqp://guest@localhost//"), "amqp://guest@localhost//", "broker_url"),
        (plain(broker_write_url=MINE), MINE, "broker_write_url"),
        (plain(broker_write_url=MINE, broker_url="redis://x"), MINE, "broker_write_url"),
        (plain(broker_url="a.b:7"), "amqp://guest:guest@a.b%3A7:5672//", "without a scheme"),
        (plain(broker_host="rabbit.example"), "amqp://guest:guest@rabbit.example:5672//", "host"),
        (
            plain(broker_transport="redis", broker_host="other", broker_port=7000),
            "redis://other:7000",
            "broker_transport, broker_host, broker_port",
        ),
        (ByClass, "redis://:secret@broker.example:6379/3", "the app's class"),
    ],
    ids=[
        "init",
        "setting",
        "list",
        "said default",
        "write",
        "write wins",
        "no scheme",
        "host",
        "parts",
        "class",
    ],
)
def test_each_way_to_name_a_broker(make: Callable[[], Celery], url: str, source: str) -> None:
    """The whole URL, with its password, and what it is taken from."""
    found = own_broker(make())
    assert found is not None
    assert (found.url, source in found.source) == (url, True)


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Celery has it: the variable for writing, the setting for writing, the other variable."""
    app = plain(broker_url="redis://setting")()
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://variable")
    assert own_broker(app) == OwnBroker("redis://variable", "CELERY_BROKER_URL")
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://written")
    assert own_broker(app) == OwnBroker(
        "redis://written", "CELERY_BROKER_WRITE_URL", "redis://variable"
    )


def test_workers_may_read_from_another_broker() -> None:
    """Jobs go to the one that is written to; that workers read from another is kept beside it."""
    found = own_broker(plain(broker_url=MINE, broker_read_url="redis://replica")())
    assert found is not None
    assert (found.url, found.reads_from) == (MINE, "redis://replica")


def test_the_password_is_not_shown() -> None:
    """Neither by its repr."""
    assert "secret" not in repr(own_broker(plain(broker_url=MINE)()))
