"""Entries' tags: they select tests, by ``-m`` and ``-k``, and are among their keywords.

They are no markers. A marker acts: an entry that somebody tagged ``skip`` or ``xfail`` would hide
its failure, and ``timeout`` or ``usefixtures`` would break the session off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pytest_manifest.bindings import tags_of
from pytest_manifest.compat.pytest import hide_labels, show_labels


@contextmanager
def shown_to_selection(items: Sequence[pytest.Item]) -> Iterator[None]:
    """Meanwhile ``-m`` and ``-k`` see the tags of these tests.

    pytest chooses by all markers of a test, asked for without a name; whoever acts on one asks for
    it by its name, and is given the markers alone.
    """
    tagged = [(item, tags) for item in items if (tags := tags_of(item))]
    for item, tags in tagged:
        item.extra_keyword_matches.update(tags)
        for tag in tags:
            if tag not in item.keywords:  # a marker of this name stays what it is
                item.keywords[tag] = True
        show_labels(item, tags)
    try:
        yield
    finally:
        for item, _ in tagged:  # a test that is named twice is there twice
            hide_labels(item)
