"""Record a test's ``user_properties`` for reports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def record_properties(item: pytest.Item, rows: Sequence[tuple[str, object]]) -> None:
    """Add ``rows`` to the item's properties, in place of those of an earlier try of the test."""
    if item.user_properties:
        told = {name for name, _ in rows}
        item.user_properties[:] = [row for row in item.user_properties if row[0] not in told]
    item.user_properties.extend(rows)
