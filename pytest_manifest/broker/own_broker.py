"""Tell which broker a Celery app names itself, and where it names it.

Celery has a broker for an app that names none, ``amqp://guest@localhost//``; that one is nobody's
choice, so it does not count. In Celery's own order the sources are: a variable or setting for the
URL to write to, the variable or setting for both ways, the parts of a URL, and the app's class.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from celery import Celery
from kombu import Connection

from pytest_manifest.redaction import redact_url
from pytest_manifest.urls import is_redis, scheme_of

PARTS: Final = (
    "broker_transport",
    "broker_host",
    "broker_port",
    "broker_user",
    "broker_password",
    "broker_vhost",
)
"""Settings that each say a part of a broker's URL."""


@dataclass(frozen=True, slots=True, repr=False)
class OwnBroker:
    """The broker that an app names: its URL with the password, and what names it.

    ``reads_from``: the URL that the app's workers read from, where that is another one; else "".
    """

    url: str
    source: str
    reads_from: str = ""

    def __repr__(self) -> str:
        return f"OwnBroker(url={redact_url(self.url)!r}, source={self.source!r})"


def own_broker(app: Celery) -> OwnBroker | None:
    """Return the broker that messages of the app go to; None where the app names none."""
    conf = app.conf
    written = _url(conf.broker_write_url)
    parts = [name for name in PARTS if conf.get(name)]
    if scheme_of(written):
        url, source = written, _source(conf.get("broker_write_url"))
    else:  # a host without a scheme, parts alone, or what the app's class makes of nothing
        url = app.connection_for_write().as_uri(include_password=True)
        if not written and not parts and url == Connection().as_uri(include_password=True):
            return None
        url = url.rstrip("/") if is_redis(url) else url
        named = "broker_url without a scheme, which Celery takes for RabbitMQ's,"
        source = ", ".join(parts) or (named if written else "the app's class")
    read = _url(conf.broker_read_url)
    return OwnBroker(url, source, read if read and read != written else "")


def _url(named: object) -> str:
    """Give a setting as one text: several brokers of a list are taken one after the other."""
    if isinstance(named, (list, tuple)):
        return ";".join(map(str, named))
    return str(named or "")


def _source(write_url: object) -> str:
    """Name what the URL is taken from, in the order in which Celery looks."""
    if os.environ.get("CELERY_BROKER_WRITE_URL"):
        return "CELERY_BROKER_WRITE_URL"
    if write_url:
        return "broker_write_url"
    return "CELERY_BROKER_URL" if os.environ.get("CELERY_BROKER_URL") else "broker_url"
