"""Whose answers count, by the name that they give; and models whose end is announced."""

from __future__ import annotations

from datetime import date

import pytest

from tasks.text_model.accepting import Accepted, same_model
from tasks.text_model.base import Billed
from tasks.text_model.ends import end_of
from tasks.text_model.failures import TextModelError
from tasks.text_model.settings import DEFAULT_GEMINI, TextModelSettings


@pytest.mark.parametrize(
    ("answered", "asked", "same"),
    [
        ("gemini-2.5-flash", "gemini-2.5-flash", True),
        ("models/gemini-2.5-flash", "gemini-2.5-flash", True),
        ("gemini-2.5-flash-001", "gemini-2.5-flash", True),
        ("gemini-2.5-flash", "gemini-2.5-flash-latest", True),
        ("gemini-2.5-flash", "gemini-2.5-flash-001", False),
        ("gemini-2.5-flash-002", "gemini-2.5-flash-001", False),
        ("gemini-2.5-flash-lite", "gemini-2.5-flash", False),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash", False),
        ("gemini-3.5-flash-lite", "gemini-2.5-flash", False),
        ("gemini-2.5-flash+gemini-3.5-flash", "gemini-2.5-flash", False),
        ("", "gemini-2.5-flash", False),
        ("", "", False),
    ],
)
def test_an_answer_is_of_a_model_by_its_name(answered: str, asked: str, same: bool) -> None:
    """A version of the same model is the same; what may cost or write something else is not."""
    assert same_model(answered, asked) is same


def test_others_count_where_they_are_named() -> None:
    """As TEXT_MODEL_ACCEPT lists them, and no other."""
    settings = TextModelSettings(accept="models/gemini-3.5-flash-lite, own,own")
    assert settings.accepted == ("gemini-3.5-flash-lite", "own")
    accepted = Accepted("gemini-2.5-flash", settings.accepted)
    taken = [
        name
        for name in ("gemini-2.5-flash", "gemini-3.5-flash-lite-001", "own", "gemini-3.5-flash", "")
        if accepted.takes(name)
    ]
    assert taken == ["gemini-2.5-flash", "gemini-3.5-flash-lite-001", "own"]


def test_an_answer_without_a_name_counts_only_where_that_is_said() -> None:
    """A name is never made up."""
    assert not Accepted("m").takes("")
    assert Accepted("m", ("unnamed",)).takes("")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("x-9", r"^x-9 answered, and m was asked: .*TEXT_MODEL_NAME.*TEXT_MODEL_ACCEPT=x-9\)"),
        ("", r"^a model without a name answered, .*TEXT_MODEL_ACCEPT=unnamed\)"),
    ],
)
def test_a_refusal_names_both_and_what_to_set(model: str, told: str) -> None:
    """And keeps what the answer was billed."""
    billed = Billed(5, 6, model)
    failure = Accepted("m").refusal(billed)
    assert failure.billed == billed
    with pytest.raises(type(failure), match=told):
        raise failure


def test_an_announced_end_is_said() -> None:
    """With its date, its source, what may happen after it, and which model to plan for."""
    said = end_of("gemini-2.5-flash-001", date(2026, 11, 30))
    assert said is not None
    assert "is announced for 2026-12-01 (ai.google.dev/gemini-api/docs/deprecations" in said
    assert "read on 2026-11-30" in said
    assert "refused as other_model; plan for gemini-3.5-flash-lite" in said


def test_a_model_past_its_end_is_refused_unless_it_is_accepted() -> None:
    """Announced dates move: who knows that it answers still, says so."""
    with pytest.raises(TextModelError, match=r"has ended on 2026-12-01 .* plan for gemini-3\.8"):
        end_of("gemini-2.5-pro", date(2026, 12, 1))
    said = end_of("gemini-2.5-pro", date(2026, 12, 1), ["gemini-2.5-pro"])
    assert said is not None
    assert said.endswith("and is accepted all the same")


@pytest.mark.parametrize("name", [DEFAULT_GEMINI, "gemini-2.5-flash-lite", "extractive-1", ""])
def test_no_end_is_made_up(name: str) -> None:
    """Of a model whose end nobody has announced, the default among them."""
    assert end_of(name, date(2026, 12, 31)) is None
