"""What each generation of Gemini is told, and what is refused before it is asked."""

from __future__ import annotations

import pytest

from tasks.text_model.choosing import identify
from tasks.text_model.failures import TextModelError
from tasks.text_model.parameters import Parameters, Thinking, parameters
from tasks.text_model.settings import TextModelSettings


def settings(name: str, **more: object) -> TextModelSettings:
    return TextModelSettings.model_validate(
        {"choice": "google-genai", "key": "k", "given_name": name, **more}
    )


@pytest.mark.parametrize(
    ("name", "sampling", "candidates", "thinking"),
    [
        ("gemini-2.0-flash", True, True, Thinking()),
        ("gemini-2.5-flash", True, True, Thinking(tokens=0)),
        ("gemini-2.5-flash-lite", True, True, Thinking(tokens=0)),
        ("gemini-2.5-pro", True, True, Thinking(tokens=128)),
        ("gemini-3-flash-preview", True, False, Thinking(level="minimal")),
        ("gemini-3.1-pro-preview", True, False, Thinking(level="low")),
        ("gemini-3.5-flash-lite", False, False, Thinking(level="minimal")),
        ("gemini-3.5-flash", False, False, Thinking(level="minimal")),
        ("gemini-3.8-flash", False, False, Thinking(level="low")),
        ("gemini-4-pro", False, False, Thinking(level="low")),
        ("gemini-flash-latest", False, False, Thinking()),
        ("own", False, False, Thinking()),
    ],
)
def test_a_model_is_told_what_it_takes(
    name: str, sampling: bool, candidates: bool, thinking: Thinking
) -> None:
    """To think as little as it can; of a name without a version nothing is taken for granted."""
    assert parameters(settings(name)) == Parameters(sampling, candidates, thinking)


@pytest.mark.parametrize(
    ("name", "more", "thinking"),
    [
        ("gemini-2.5-flash", {"thinking_tokens": 512}, Thinking(tokens=512)),
        ("gemini-3.5-flash", {"thinking_level": "high"}, Thinking(level="high")),
        ("gemini-3.1-flash-lite", {"thinking_tokens": 64}, Thinking(tokens=64)),
        ("gemini-flash-latest", {"thinking_level": "low"}, Thinking(level="low")),
    ],
)
def test_what_is_set_goes_first(name: str, more: dict[str, object], thinking: Thinking) -> None:
    assert parameters(settings(name, **more)).thinking == thinking


def test_thoughts_have_room_beside_the_answer() -> None:
    """As many tokens as are allowed, or as many as the level is likely to take."""
    assert Thinking(tokens=512).room == 512
    rooms = [Thinking(level=level).room for level in ("minimal", "low", "medium", "high")]
    assert rooms == sorted(rooms)
    assert rooms[0] > 0
    assert Thinking().room == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"given_name": "gemini-3.5-flash-lite", "thinking_tokens": 0},
            "takes a level, no number; set TEXT_MODEL_THINKING_LEVEL",
        ),
        (
            {"given_name": "gemini-2.5-flash", "thinking_level": "low"},
            "takes no level; set TEXT_MODEL_THINKING_TOKENS",
        ),
        ({"thinking_level": "low", "thinking_tokens": 1}, "are both set"),
        (
            {"choice": "google-generativeai", "thinking_level": "low"},
            "google-generativeai has no word; unset it, or set TEXT_MODEL=google-genai",
        ),
        (
            {"choice": "google-generativeai", "service_tier": "flex"},
            "TEXT_MODEL_SERVICE_TIER is flex, for which google-generativeai has no word",
        ),
    ],
)
def test_what_no_call_would_take_is_said_where_it_is_planned(
    more: dict[str, object], told: str
) -> None:
    """By the variable, before anything is asked."""
    wrong = TextModelSettings.model_validate({"choice": "google-genai", "key": "k", **more})
    with pytest.raises(TextModelError, match=told):
        identify(wrong)
