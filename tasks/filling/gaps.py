"""Decide what is a gap: one rule for planning, for the worker that fills it, for verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tasks.movie_bible.fields import FIELDS
from tasks.movie_bible.records import ScannedPassage

GapKind = Literal["no_row", "no_field", "stale_prompt", "stale_text", "other_model"]

SAYINGS: Final[Mapping[str, str]] = {
    "no_row": "without a row",
    "no_field": "with a row that lacks fields",
    "stale_prompt": "filled by another prompt",
    "stale_text": "filled from a text that has changed",
    "other_model": "filled by another model",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Fields of a passage that are to be filled, and why.

    ``renews``: all that the row of this prompt holds is out of date, and is filled anew.
    """

    kind: GapKind
    fields: tuple[str, ...]
    renews: bool = False


def find_gap(
    passage: ScannedPassage,
    fields: Sequence[str],
    prompt_digest: str,
    *,
    model: tuple[str, str] | None = None,
) -> Gap | None:
    """Return the gap of a passage among ``fields``, or None; it is scanned for that prompt.

    What people have written is never filled again. A row that is out of date is filled anew with
    all that it holds, whatever was asked for: half of it would pass for current. With ``model``
    (provider and name), a row that another one has written last is a gap.
    """
    given = {} if passage.corpus is None else passage.corpus.values
    open_fields = tuple(field for field in fields if given.get(field) is None)
    if not open_fields:
        return None
    row = passage.current
    if row is None:
        if passage.stale:
            return Gap("stale_prompt", open_fields)
        return Gap("no_row" if passage.corpus is None else "no_field", open_fields)
    held = tuple(
        field
        for field in FIELDS
        if field in open_fields or (row.values[field] is not None and given.get(field) is None)
    )
    if row.prompt_digest != prompt_digest:
        return Gap("stale_prompt", held, renews=True)
    if row.text_digest != passage.text_digest:
        return Gap("stale_text", held, renews=True)
    if model is not None and (row.provider, row.model) != model:
        return Gap("other_model", held, renews=True)
    missing = tuple(field for field in open_fields if row.values[field] is None)
    return Gap("no_field", missing) if missing else None
