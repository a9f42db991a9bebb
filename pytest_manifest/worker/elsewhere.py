"""Tell which of the tasks that a task has called went to another broker than the worker's own.

The run looks for its jobs on its own broker alone, so one that is nowhere there need not be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from loguru import logger

from pytest_manifest.redaction import redact_url
from pytest_manifest.worker.children import Children


def note_elsewhere(children: Children, app: Any, request: Any) -> None:
    """Note the brokers of those children that another app has sent to its own.

    Celery keeps the results of what a task calls (``request.children``), and each knows its app. So
    what is called in another thread, or over a connection that the task has opened, is not noted.
    """
    if not children.count:
        return
    try:
        children.elsewhere = dict(_elsewhere(app, request.children))
    except Exception as error:  # an app that names no broker that kombu knows
        logger.debug("where tasks were sent is not known: {!r}", error)


def _elsewhere(app: Any, results: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield task id and broker of each result of an app with another broker."""
    known = {id(app): ""}
    own = ""
    for one in _each(results):
        other = getattr(one, "app", None)
        if other is None:
            continue
        if id(other) not in known:
            own = own or _broker_of(app)
            theirs = _broker_of(other)
            known[id(other)] = "" if theirs == own else theirs
        if known[id(other)]:
            yield str(one.id), known[id(other)]


def _each(results: Iterable[Any]) -> Iterator[Any]:
    """Yield results, those of a group each by itself."""
    for one in results:
        members = getattr(one, "results", None)
        if members is None:
            yield one
        else:
            yield from _each(members)


def _broker_of(app: Any) -> str:
    """Return where an app publishes, without the password."""
    with app.connection_for_write() as connection:
        return redact_url(connection.as_uri(include_password=True))
