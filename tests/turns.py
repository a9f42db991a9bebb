"""Samples that take turns: each day's tests play one part, and all parts in so many days.

A fault, or a cell of a table, costs as much as a hundred other tests, and commands play them all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TypeVar

DAY_VARIABLE = "MANIFEST_TESTS_DAY"
"""The day whose part is played, as a number; today's is kept here for the processes of xdist."""
WHOLE_VARIABLE = "MANIFEST_TESTS_WHOLE"
"""Set where samples are whole, as something else takes turns: parts of the suite (``--part``)."""
Item = TypeVar("Item")


def part_of_the_day(items: Sequence[Item], parts: int) -> list[Item]:
    """Return each ``parts``-th of these, beginning with another one each day; or all of them."""
    if os.environ.get(WHOLE_VARIABLE):
        return list(items)
    today = str(datetime.now(timezone.utc).toordinal())
    day = int(os.environ.setdefault(DAY_VARIABLE, today))
    return list(items[day % parts :: parts])
