"""The code of tasks over the life of a run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.run import fact_log
from pytest_manifest.run.fact_log import OwnLimits, record_code, record_own_limits
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import TaskFact
from pytest_manifest.verdict.case import case_of

BEGIN = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
INFO = RunInfo(
    "20261124T150000-0123abcd", Path("m.jsonl"), "0" * 64, None, None, 1, BEGIN, "", "", True, 60
)
HOUR = timedelta(hours=1)


def test_code_is_recorded_where_it_is_another_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was mended between two parts of a run has two digests, each in its order; one
    that the app does not have has none."""
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        for digest in ("py3.11:old", "py3.11:old", "py3.11:new", ""):
            monkeypatch.setattr(fact_log, "code_digest", lambda _task, found=digest: found)
            record_code(ledger, ["t", "elsewhere"], {"t": object()})
        known = list(ledger.facts.of_kind(TaskFact))
    assert [(getattr(one, "task", ""), getattr(one, "code", "")) for one in known] == [
        ("t", "py3.11:old"),
        ("t", "py3.11:new"),
    ]


def test_a_limit_holds_for_what_is_sent_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent before the first one by the clock was sent after it, and the clock set back."""
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        for hour, seconds in enumerate((5.0, 5.0, 7.0)):
            monkeypatch.setattr(fact_log, "utc_now", lambda now=BEGIN + hour * HOUR: now)
            record_own_limits(ledger, {"t": seconds})
        limits = OwnLimits(ledger)
    held = [limits.seconds("t", INFO.run, BEGIN + n * HOUR) for n in (-1, 0, 1, 2)]
    assert held == [5.0, 5.0, 5.0, 7.0]
    assert limits.seconds("t", INFO.run, None) == 7.0
    assert limits.seconds("u", INFO.run, BEGIN) is None
    assert limits.seconds("t", INFO.run, BEGIN) == 5.0


def test_what_was_sent_after_the_clock_was_set_back_is_held_against_the_code_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock it was sent before the run knew any code; without one any code would do."""
    monkeypatch.setattr(fact_log, "utc_now", lambda: BEGIN)
    monkeypatch.setattr(fact_log, "code_digest", lambda _task: "py3.11:ours")
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        record_code(ledger, ["t"], {"t": object()})
        ledger.attempts.plan([("0123abcd-1", "a", 1, 0)])
        ledger.attempts.mark(["0123abcd-1"], "sent", sent_at=BEGIN - HOUR)
        (loaded,) = ledger.jobs.of_entry("a")
        found = case_of(Entry(id="a", task="t"), loaded.own, ledger.jobs.run_facts())
    assert found.code == "py3.11:ours"
