"""The ways of running one session: by one process, or by the workers of xdist.

Each part of the plugin that works otherwise beside xdist has one test of that in ring 1; what its
other tests say beside xdist is looked at in ring 2.
"""

from __future__ import annotations

import pytest

PLAIN = pytest.param((), id="plain")
BOTH = [PLAIN, pytest.param(("-n", "1"), id="xdist")]


def xdist_in(ring: pytest.MarkDecorator) -> list[object]:
    """Return both ways, the second with a ring of its own; the mark stands where it is read."""
    return [PLAIN, pytest.param(("-n", "1"), id="xdist", marks=ring)]
