"""Forged reports in a real stream and result store, without signatures and with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forgeries.kinds import KINDS, MORE
from tests.forgeries.trial import DONOR, forged, name_of

pytestmark = [pytest.mark.live, pytest.mark.broken_record]

EVERY = (*KINDS, *MORE)
NO_REPORTS = {
    "a start in a process that is gone",
    "a receipt of an earlier run, as it is",
    "a receipt of another entry, as it is",
    "the same with a NaN in the result",
}
"""What is no report of an end of its entry's job: nothing was heard of that."""


def test_none_of_54_forgeries_turns_green_where_receipts_are_signed(
    valkey: str, tmp_path: Path
) -> None:
    """No worker had any of the jobs; what a worker did sign has passed."""
    assert len(KINDS) == 54
    trial = forged(valkey, tmp_path / "signed", EVERY, signed=True)
    green = [
        (kind.where, kind.name)
        for number, kind in enumerate(EVERY)
        if trial.verdicts[name_of(number)] == "passed"
    ]
    assert green == []
    assert trial.verdicts[DONOR] == "passed"
    others = {
        kind.name
        for number, kind in enumerate(EVERY)
        if trial.verdicts[name_of(number)] != "forged"
    }
    assert others == NO_REPORTS


def test_without_signatures_some_turn_green(valkey: str, tmp_path: Path) -> None:
    """So the same forgeries are worth something; an end without its start is told all the same."""
    trial = forged(valkey, tmp_path / "unsigned", EVERY, signed=False)
    names = {kind.name: trial.verdicts[name_of(n)] for n, kind in enumerate(EVERY)}
    assert names["a start and an end"] == "passed"
    assert names["an end alone"] == "forged"
    (number,) = (n for n, kind in enumerate(EVERY) if kind.name == "an end alone")
    assert "an execution that no worker has begun" in trial.sentences[name_of(number)]


@pytest.mark.ring(1)
def test_a_forgery_that_comes_first_does_not_keep_out_the_true_end(
    valkey: str, tmp_path: Path
) -> None:
    """All jobs that a worker then reports have passed, as they had succeeded."""
    usual = [kind for kind in EVERY if not kind.expect]
    trial = forged(valkey, tmp_path / "true", usual, signed=True, truth=True)
    assert {
        usual[n].name: trial.sentences[name_of(n)]
        for n in range(len(usual))
        if trial.verdicts[name_of(n)] != "passed"
    } == {}
