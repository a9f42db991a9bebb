"""What is hidden from the type checker has its reason on the line."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.house.conftest import ROOT, project_files

_WITH_REASON = re.compile(r"# type: ignore\[[a-z, -]+\]  # \w")


def without_reason(source: str) -> Iterator[int]:
    """Yield the lines on which a comment hides something and does not say why."""
    if "type: ignore" not in source:
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_comment = token.type == tokenize.COMMENT
        if is_comment and "type: ignore" in token.string and not _WITH_REASON.match(token.string):
            yield token.start[0]


def test_nothing_is_hidden_without_a_reason() -> None:
    sources = [path for path in project_files() if path.suffix == ".py"]
    assert len(sources) > 1000
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources
        for line in without_reason(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("comment", "found"),
    [
        ("# type: ignore", [1]),
        ("# type: ignore[misc]", [1]),
        ("# type: ignore[misc]  # as it has no types", []),
        ("# it has no types", []),
    ],
)
def test_a_missing_reason_is_seen(comment: str, found: list[int]) -> None:
    assert list(without_reason(f"a = 1  {comment}\n")) == found
    assert list(without_reason(f"a = {comment!r}\n")) == []
