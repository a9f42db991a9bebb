"""Distinguish a broker that refuses one queue from a broker that is out of reach.

A queue whose name is a key of the broker's own, that was declared otherwise by another client, or
that this user may not touch, will not be had by trying again: it is a matter of the entries that go
there. Taken for an outage, it would hold up all the others for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from celery import Celery

from pytest_manifest.log import redact
from pytest_manifest.urls import is_redis

AMQP_REFUSALS: Final = frozenset({"403", "404", "405", "406"})
"""Access refused, no such exchange, locked by another connection, declared otherwise."""
REDIS_REFUSALS: Final = ("WRONGTYPE", "NOPERM", "No permission")
BINDINGS: Final = "_kombu.binding."
PIDBOX: Final = "pidbox"
BOOKKEEPING: Final[Mapping[str, str]] = {
    "unacked_key": "unacked",
    "unacked_index_key": "unacked_index",
    "unacked_mutex_key": "unacked_mutex",
}
"""Transport options that name keys in which kombu keeps what workers have taken, and defaults."""


def refusal(error: BaseException) -> str | None:
    """Say in a phrase why the broker refuses this queue; None for any other error."""
    code = str(getattr(error, "reply_code", "") or "")
    text = str(error)
    if code in AMQP_REFUSALS or any(word in text for word in REDIS_REFUSALS):
        return f"the broker refuses it: {redact(text)}"
    return None


def reserved(name: str, app: Celery, broker_url: str) -> str | None:
    """Say in a phrase why no job may go to a queue of this name; None where one may.

    Some of these names would be accepted, and a job there would stop workers or disturb what is
    said to them.
    """
    conf = app.conf
    mailboxes = f"{conf.control_exchange or 'celery'}.{PIDBOX}"
    if name == mailboxes or name.endswith(f".{mailboxes}"):
        return "that is a mailbox by which workers are controlled"
    events = conf.event_queue_prefix or "celeryev"
    if name == events or name.startswith(f"{events}."):
        return "that is where workers tell of events"
    if not is_redis(broker_url):
        return None
    if name.startswith(BINDINGS):
        return "that is where kombu keeps which queues there are"
    options = conf.broker_transport_options or {}
    if name in {options.get(option, key) for option, key in BOOKKEEPING.items()}:
        return "that is where kombu keeps what workers have taken"
    return None
