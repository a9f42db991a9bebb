"""Tasks that a run may send: any, those of its patterns, and Celery's own only by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from celery import Celery

from pytest_manifest.broker.checks import CELERYS, UNSEEN, may_send, task_refusals


@pytest.mark.parametrize(
    ("task", "allowed", "expected"),
    [
        ("shop.price", None, True),
        ("celery.accumulate", None, True),
        ("celery.map", None, False),
        ("celery.backend_cleanup", None, False),
        ("shop.price", ["shop.*"], True),
        ("shop.price", ["shop.pric?"], True),
        ("shop.price", ["Shop.*"], False),
        ("shopping", ["shop"], False),
        ("celery.accumulate", ["shop.*"], False),
        ("celery.starmap", ["*"], False),
        ("celery.starmap", ["*", "c*"], False),
        ("celery.starmap", ["celery.*"], True),
        ("celery.starmap", ["shop.*", "celery.starmap"], True),
    ],
)
def test_which_may_be_sent(task: str, allowed: Sequence[str] | None, expected: bool) -> None:
    """By patterns in which capitals count."""
    assert may_send(task, allowed) is expected


def test_every_task_of_celerys_own_is_known() -> None:
    """Another one in a later Celery is to be thought about: does it run others unseen?"""
    app = Celery("bare", set_as_current=False)
    app.finalize()
    own = {name for name in app.tasks if name.startswith(CELERYS)}
    assert own - UNSEEN == {"celery.accumulate"}


def test_the_sentence_names_what_is_refused_and_what_to_do() -> None:
    """No more than a few names, and those without what a terminal would act on."""
    assert task_refusals(["shop.a"], ["shop.*"]) == []
    (said,) = task_refusals(["shop.a", "x\x1b[2J", "b", "c", "d"], ["shop.*"])
    assert "'b', 'c'" in said
    assert "what may be sent is shop.*" in said
    assert "--manifest-allow" in said
    assert "\x1b" not in said
    (said,) = task_refusals(["celery.map"], None)
    assert "sent only where they are named" in said
