"""The private parts of other packages that this one relies on, a module for each package.

Everywhere else other packages are used as they document it; ``tests/house/test_reaches.py`` holds
that, and counts what is here. Each function says what it relies on, the version that it was written
for, and the test that fails when that changes: ``tests/unit/test_compat_*.py``.

Have functions of ours stand in places of other packages, and put back what was there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

TOLD: Final = "tells_manifest"
"""The mark of a function of ours that stands in a place of another package's."""


def _put_in_place(owner: object, name: str, wrapped: Callable[..., object]) -> Callable[[], None]:
    """Have ``wrapped`` stand in a place of another package's, unless one of ours does already.

    Returns what puts back what was there, unless somebody else has put another there meanwhile.
    """
    given = getattr(owner, name)
    if getattr(given, TOLD, False):
        return lambda: None
    setattr(wrapped, TOLD, True)
    setattr(owner, name, wrapped)

    def put_back() -> None:
        if vars(owner).get(name) is wrapped:
            setattr(owner, name, given)

    return put_back


def _all_of(*ends: Callable[[], None]) -> Callable[[], None]:
    """Return what calls each of these."""

    def end() -> None:
        for one in ends:
            one()

    return end
