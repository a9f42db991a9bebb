"""What the movie bible promises, once for every database: a subclass names the database."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("loading", "reading", "versions", "writing"))
)
