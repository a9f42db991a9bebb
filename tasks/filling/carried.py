"""Store the passages that an order brings, before anything is asked about them."""

from __future__ import annotations

from tasks.filling.order import Order
from tasks.movie_bible.bible import MovieBible

CHANGED: tuple[str, str] = (
    "changed_since_planned",
    "its text in the database is another one than when this was planned",
)
"""Kind and sentence of a passage that is left alone."""


def add_documents(bible: MovieBible, order: Order, prompt_version: str) -> set[str]:
    """Store what the order brings; returns what is left alone, as it was changed since."""
    if not order.carried:
        return set()
    named = [one.document.id for one in order.carried]
    there = bible.scan_ids(named, prompt_version)
    changed: set[str] = set()
    for one in order.carried:
        passage = there.get(one.document.id)
        allowed = one.may_replace
        if passage and allowed is not None and passage.text_digest not in allowed:
            changed.add(one.document.id)
    fresh = [one.document for one in order.carried if one.document.id not in changed]
    if fresh:
        bible.add_documents(fresh)
    return changed
