"""The code of tasks over the life of a run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.run import task_metadata
from pytest_manifest.run.task_metadata import CodeHistory, record_code

BEGIN = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
INFO = RunInfo(
    "20261124T150000-0123abcd", Path("m.jsonl"), "0" * 64, None, None, 1, BEGIN, "", "", True, 60
)


def test_a_receipt_is_held_against_the_code_of_its_own_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was mended between two parts of a run has two digests, each in its time."""
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        for hour, digest in enumerate(["py3.11:old", "py3.11:new"]):
            monkeypatch.setattr(
                task_metadata, "utc_now", lambda now=BEGIN + timedelta(hours=hour): now
            )
            monkeypatch.setattr(task_metadata, "code_digest", lambda _task, found=digest: found)
            record_code(ledger, ["t", "elsewhere"], {"t": object()})
        history = CodeHistory(ledger, INFO.run)
    assert history.at("t", BEGIN + timedelta(minutes=59)) == "py3.11:old"
    assert history.at("t", BEGIN + timedelta(hours=1)) == "py3.11:new"
    assert history.at("t", None) == "py3.11:new"
    assert history.at("elsewhere", None) is None


def test_what_was_sent_after_the_clock_was_set_back_is_held_against_the_code_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock it was sent before the run knew any code; without one any code would do."""
    monkeypatch.setattr(task_metadata, "utc_now", lambda: BEGIN)
    monkeypatch.setattr(task_metadata, "code_digest", lambda _task: "py3.11:ours")
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        record_code(ledger, ["t"], {"t": object()})
        assert CodeHistory(ledger, INFO.run).at("t", BEGIN - timedelta(hours=1)) == "py3.11:ours"


def test_code_that_became_known_later_is_not_that_of_what_was_sent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began without the app, and was resumed with it."""
    moments = iter([BEGIN, BEGIN + timedelta(hours=1)])
    monkeypatch.setattr(task_metadata, "utc_now", lambda: next(moments))
    monkeypatch.setattr(task_metadata, "code_digest", lambda _task: "py3.11:ours")
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        record_code(ledger, ["t"], {})
        record_code(ledger, ["t"], {"t": object()})
        assert CodeHistory(ledger, INFO.run).at("t", BEGIN - timedelta(hours=1)) is None
