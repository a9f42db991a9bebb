"""No unit test depends on how fast a machine is: examples and their making take their time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _consistent_records() -> None:
    """Ledgers are written by hand here, to try one thing: they keep no promise."""
