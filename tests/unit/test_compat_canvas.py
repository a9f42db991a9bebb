"""What is relied on of Celery's canvas: each test fails where Celery has changed."""

from __future__ import annotations

from functools import partial

import pytest
from celery import Celery, chain, chord, group

from pytest_manifest.compat import celery


def nothing(*_: object) -> None:
    """Be a task."""


@pytest.fixture
def app() -> Celery:
    """An app of no broker, which nothing but its test knows."""
    one = Celery("canvas", broker="memory://", backend="cache+memory://", set_as_current=False)
    for name in ("a", "b", "c"):
        one.task(nothing, name=name, shared=False)
    return one


def tasks(sig: object) -> list[str]:
    return [one.task for one in celery.first_messages(sig)]


def test_what_a_signature_begins_with(app: Celery) -> None:
    """Also as it is in a message, and once Celery has given its parts their ids."""
    a, b, c = (app.tasks[name].si() for name in "abc")
    two = group(a, b, app=app)
    assert tasks(a) == ["a"]
    assert tasks(chain(a, b, c, app=app)) == ["a"]
    assert tasks(two) == ["a", "b"]
    assert tasks(chord([a, b], c, app=app)) == ["a", "b"]
    assert tasks(chain(two, c, app=app)) == ["a", "b"]
    assert tasks(chord([], c, app=app)) == ["c"]
    assert tasks(group(chain(a, c, app=app), chord([b, b], c, app=app), app=app)) == ["a", "b", "b"]

    frozen = chain(b, c, app=app)
    frozen.freeze("last")
    assert [one.task_id for one in celery.first_messages(frozen)] == [frozen.tasks[0].id]
    assert celery.is_one_message(a)
    assert not any(map(celery.is_one_message, (frozen, two, chord([a], c, app=app))))
    assert not celery.is_one_message(app.tasks["a"].starmap([(1,)]))
    assert not celery.is_one_message(app.tasks["a"].chunks([(1,)], 1))


def test_chords_that_wait_for_a_signature(app: Celery) -> None:
    """Its own, those behind its body, and those of later tasks of a chain."""
    a, b, c = (app.tasks[name].si() for name in "abc")
    assert list(celery.chords_behind(a)) == []
    inner = chord([a], b, app=app)
    inner.freeze("inner", group_id="outer", chord=c)
    assert [(key, body.task) for key, body in celery.chords_behind(inner)] == [("outer", "c")]
    first = a.clone().set(
        chord=inner.body,
        group_id="inner",
        chain=[app.tasks["b"].si().set(chord=c, group_id="later")],
    )
    assert [key for key, _ in celery.chords_behind(first)] == ["inner", "outer", "later"]


def test_chords_that_need_a_message(app: Celery) -> None:
    """The one whose header it is of, those around it, and those of its chain's later tasks."""
    a, b, c = (app.tasks[name].si() for name in "abc")
    assert celery.chords_of_message("g", None, None) == ()
    assert celery.chords_of_message(None, None, [a]) == ()
    body = b.set(chord=c, group_id="outer")
    assert celery.chords_of_message("g", body, None) == ("g", "outer")
    member = a.set(chord=body, group_id="g")
    assert celery.chords_of_message(None, None, [member]) == ("g", "outer")


def test_errbacks_that_are_sent(app: Celery) -> None:
    """Those that take a task's id alone, are bound, or that this process does not know."""

    def by_id(task_id: str) -> None: ...

    def in_place(request: object, error: object, traceback: object) -> None: ...

    app.task(by_id, name="by_id", shared=False)
    app.task(in_place, name="in_place", shared=False)
    app.tasks["c"].__class__.__header__ = staticmethod(partial(in_place, 1))
    given = [app.signature(name) for name in ("by_id", "in_place", "unknown", "c")]
    found = celery.sent_errbacks(app, given)
    assert [one.task for one in found] == ["by_id", "unknown", "c"]
