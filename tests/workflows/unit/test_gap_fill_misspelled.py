"""Settings of the gap filling that are spelled wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_manifest.testing import plan_notes
from tests.workflows.filling_support import bible_at, documents
from tests.workflows.judging_support import fill_rows
from workflows.gap_fill.misspelled import SETTINGS, misspelled, names_of
from workflows.gap_fill.plan import gap_fill_judge, gap_fill_repair


def test_what_nothing_reads_is_named_with_what_is_near() -> None:
    unread = "is set, and nothing reads a variable of that name"
    assert list(misspelled(["TEXT_MODEL_MOST_AT_ONE", "GAP_FILL_ZZZZ", "PATH", "TEXT_MODELS"])) == [
        f"GAP_FILL_ZZZZ {unread}",
        f"TEXT_MODEL_MOST_AT_ONE {unread}; is TEXT_MODEL_MOST_AT_ONCE meant?",
    ]


def test_no_setting_is_called_misspelled() -> None:
    """In whatever case, as settings are read."""
    names = set[str]().union(*map(names_of, SETTINGS))
    assert "TEXT_MODEL_MOST_AT_ONCE" in names
    assert not list(misspelled([*names, *map(str.lower, names)]))


@pytest.mark.parametrize("mode", [gap_fill_repair, gap_fill_judge])
def test_a_plan_says_so(
    mode: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run is dearer or slower than was asked for, and nobody knows why."""
    monkeypatch.setenv("TEXT_MODEL_SERVICETIER", "flex")
    with bible_at(tmp_path, documents(3)) as bible:
        fill_rows(bible, [documents(3)[0].id])
        said = "\n".join(plan_notes(mode, bible))
    assert "is TEXT_MODEL_SERVICE_TIER meant?" in said
