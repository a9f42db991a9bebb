"""Kinds of JSON that parsers differ on: taken, refused with a sentence, or as the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz.__main__ import PAGE
from tests.fuzz.json_kinds import FORMATS, KINDS, OBJECT, Kind
from tests.fuzz.oracles import expect_sentence, same
from tests.fuzz.reading_json import RefusedError, read, table
from tests.page_tables import taken

ROOT = Path(__file__).resolve().parents[2]
IN_EACH_FORMAT = pytest.mark.parametrize("form", FORMATS)


def of_rule(rule: str) -> pytest.MarkDecorator:
    """Run a test with each kind of a rule."""
    kinds = [kind for kind in KINDS if kind.rule == rule]
    return pytest.mark.parametrize("kind", kinds, ids=[kind.name for kind in kinds])


@IN_EACH_FORMAT
@of_rule("right")
def test_what_is_json_is_taken(kind: Kind, form: str) -> None:
    """With the value that it says, types included."""
    wanted = 1 if kind.is_line else json.loads(kind.text)
    assert same(read(kind, form), wanted)


@IN_EACH_FORMAT
@of_rule("wrong")
def test_what_is_no_json_is_refused(kind: Kind, form: str) -> None:
    """With a sentence; nothing is guessed."""
    with pytest.raises(RefusedError) as refused:
        read(kind, form)
    expect_sentence(str(refused.value))


@IN_EACH_FORMAT
@of_rule("open")
def test_what_is_left_open_is_decided(kind: Kind, form: str) -> None:
    """As the page says."""
    assert kind.decision
    if form in kind.taken:
        read(kind, form)
    else:
        with pytest.raises(RefusedError) as refused:
            read(kind, form)
        expect_sentence(str(refused.value))


def test_names_are_used_once() -> None:
    """A kind is found by its name; lines show an object, or nothing like one."""
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert any(OBJECT in kind.text for kind in KINDS)


def test_the_page_has_the_decisions() -> None:
    """`python -m tests.fuzz --kinds` writes them."""
    assert taken(ROOT / PAGE, "json") == table()
