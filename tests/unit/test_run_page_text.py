"""Text of a run page: everything in it can be seen, and none of it leaves its place."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.reporting.run_page.page import script_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_json_in_a_script_comes_back_and_ends_nothing(values: dict[str, str]) -> None:
    """Whatever is in it, there is no way out of the script element."""
    text = script_json(values)
    assert json.loads(text) == values
    assert text.isascii()
    assert not set("<>&") & set(text)
