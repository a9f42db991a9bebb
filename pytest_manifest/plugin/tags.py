"""Let the tags of entries select tests by ``-m`` and ``-k``, as keywords of the tests.

They are no markers. A marker acts: a tag ``skip`` or ``xfail`` would hide an entry's failure, and
``timeout`` or ``usefixtures`` would break the session off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pytest_manifest.bindings import tags_of
from pytest_manifest.compat.pytest import hide_labels, show_labels


@contextmanager
def shown_to_selection(items: Sequence[pytest.Item]) -> Iterator[None]:
    """Show the tags of these tests to ``-m`` and ``-k`` within the block.

    pytest selects by all markers of a test, which it asks for without a name. Code that acts on a
    marker asks for it by name, and is given the markers alone.
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
        for item, _ in tagged:  # may repeat an item: a test that the user names twice
            hide_labels(item)
