"""The offline model: always valid, always the same, and made of the passage's own words."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.movie_bible.fields import FIELDS, MOODS, field_fault
from tasks.text_model.base import KeyedText, TextRequest, estimate_tokens
from tasks.text_model.failures import BadRequest
from tasks.text_model.offline import ExtractiveModel, characters, mood, summary, themes

PLOT = (
    "Rick Blaine, an American who trusts nobody, runs a nightclub in Casablanca during the war. "
    "One night Ilsa Lund, who left him in Paris, walks in with her husband Victor Laszlo, a leader "
    "of the resistance. Rick holds letters that could save them both. In the end Rick puts Ilsa on "
    "the plane with Laszlo, and walks into the fog with Captain Renault."
)


def request_of(*texts: str, fields: tuple[str, ...] = FIELDS) -> TextRequest:
    return TextRequest(
        instructions="Fill in.",
        prompt="\n".join(texts),
        schema={"type": "object", "required": ["items"]},
        texts=tuple(KeyedText(f"k-{number}", text) for number, text in enumerate(texts)),
        fields=fields,
        max_output_tokens=100,
        timeout=1.0,
    )


def test_a_plot_is_read() -> None:
    """Sentences of its own, themes of its words, its names, and a mood."""
    short = summary(PLOT)
    assert short
    assert all(sentence in PLOT for sentence in short.split(". "))
    assert {"war", "family"} <= set(themes(PLOT))
    assert {"Rick Blaine", "Ilsa Lund", "Victor Laszlo", "Captain Renault"} <= set(characters(PLOT))
    assert not {"Rick", "Laszlo", "One", "American", "In"} & set(characters(PLOT))
    assert mood(PLOT) in MOODS


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Walking home, he sings. Walking is all he does.", []),
        ("Anna waits. Nobody comes, but Anna stays.", ["Anna"]),
        ("The Driver meets Irene's son.", ["Driver", "Irene"]),
        ("In March, a boy named Antoine de Valois runs off.", ["Antoine de Valois"]),
        ("Étienne greets Ørsted and Žofie, and Анна too.", ["Ørsted", "Žofie", "Анна"]),
        ("", []),
    ],
)
def test_names_are_words_with_a_capital_that_no_sentence_gave_them(
    text: str, names: list[str]
) -> None:
    """A word at the head of a sentence is a name only where it is one elsewhere."""
    assert characters(text) == names


def test_the_answer_has_the_keys_and_the_fields_that_were_asked_for() -> None:
    """In order, and nothing else; its tokens are the estimates."""
    request = request_of(PLOT, "A quiet village.", fields=("mood", "summary"))
    answer = ExtractiveModel().generate(request)
    items = json.loads(answer.text)["items"]
    assert [list(item) for item in items] == [["key", "mood", "summary"]] * 2
    assert [item["key"] for item in items] == ["k-0", "k-1"]
    assert answer.tokens_in == request.estimated_tokens
    assert answer.tokens_out == estimate_tokens(answer.text)
    assert answer.model == "extractive-1"


def test_a_field_that_it_does_not_know_is_refused() -> None:
    """Rather than made up."""
    with pytest.raises(BadRequest, match="rating"):
        ExtractiveModel().generate(request_of("A text.", fields=("summary", "rating")))


@given(st.text(max_size=400))
def test_every_text_has_valid_values(text: str) -> None:
    """Whatever it holds, half characters and NUL among it; within what a database takes."""
    answer = ExtractiveModel().generate(request_of(text))
    (item,) = json.loads(answer.text)["items"]
    assert [field_fault(name, item[name]) for name in FIELDS] == [None] * 4
    assert item["mood"] in MOODS
    assert 1 <= len(item["themes"]) <= 5
    assert len(item["summary"]) <= 700
    assert answer.text == ExtractiveModel().generate(request_of(text)).text


def test_values_do_not_depend_on_the_process() -> None:
    """Hash seeds differ between workers; rows must not."""
    script = (
        "import sys; from tasks.text_model.offline import *; text = sys.stdin.read();"
        "print([summary(text), themes(text), characters(text), mood(text)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            input=PLOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_long_texts_are_read_in_passing() -> None:
    """Two hundred pages in one passage, without a full stop among them, are no trouble."""
    text = "word " * 100_000
    assert len(summary(text)) <= 301
    assert themes(text) == ["word"]
    assert characters("An A" + "a" * 200_000) == []
    assert all(len(name) <= 80 for name in characters("Aa " * 20))
