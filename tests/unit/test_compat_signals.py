"""What is relied on of Celery's signals: the test fails where Celery has changed."""

from __future__ import annotations

import logging

import pytest
from celery.utils.dispatch import Signal

from pytest_manifest.compat import celery


def refuse(**_: object) -> None:
    raise ValueError("not today")


def accept(**_: object) -> str:
    return "done"


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_what_a_receiver_raises_is_seen_and_logged_as_ever(
    send: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger(celery.OF_SIGNALS)
    monkeypatch.setattr(logger, "filters", [])
    seen: list[tuple[object, str]] = []
    celery.after_receiver_failed(lambda receiver, error: seen.append((receiver, repr(error))))
    signal = Signal(name="of this test")
    signal.connect(refuse)
    signal.connect(accept)
    getattr(signal, send)(sender=None)
    assert seen == [(refuse, "ValueError('not today')")]
    assert "not today" in caplog.text
    logger.error("a line of another kind")
    logger.error("a line of another kind: %r", refuse)
    assert len(seen) == 1
