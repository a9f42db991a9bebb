"""What a model of one's own says that it has cost, before anything is added up."""

from __future__ import annotations

import pytest

from tasks.text_model.base import MOST_TOKENS, Billed
from tasks.text_model.gemini import Usage
from tasks.text_model.gemini_model import Chunk, joined


@pytest.mark.parametrize("told", [-1, 1.5, float("nan"), "ten", True, None, MOST_TOKENS + 1])
@pytest.mark.parametrize("name", ["tokens_in", "tokens_out", "cached"])
def test_what_is_no_count_is_refused(name: str, told: object) -> None:
    """Where it is told, not where rows are written and others in flight would be lost."""
    with pytest.raises(ValueError, match=f"{name} of a call is .* no count of tokens"):
        Billed(**{name: told})  # type: ignore[arg-type]  # that is what is tried


def test_a_model_that_answers_has_a_name_that_is_a_text() -> None:
    with pytest.raises(TypeError, match="which is no name"):
        Billed(1, 1, 5)  # type: ignore[arg-type]  # that is what is tried


def test_counts_of_the_service_that_are_none_cost_nothing() -> None:
    """A cached part is no larger than the whole, and nothing is negative."""
    odd = Chunk("", "", "", Usage(prompt=-5, answer=7, total=2, cached=9), "m")
    assert joined([odd], "batch").billed == Billed(0, 7, "m", 0, "batch")
