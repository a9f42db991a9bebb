"""Twelve kinds of secret in fifteen places of a real session: none is shown anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.canary import planted, session

pytestmark = [pytest.mark.live, pytest.mark.ring(2), pytest.mark.timeout(1200)]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """All outputs, reports, logs and command lines are without them, whoever may read them.

    The files that must hold what was sent and received are for their owner alone.
    """
    found = session.run(tmp_path)

    assert found.seen == {}
    assert len(found.looked_at) > 50
    assert {Path(name).suffix for name in found.held} == {".sqlite", ".jsonl"}
    assert set(found.held.values()) == {0o600}
    assert len(planted.KINDS) * len(planted.PLACES) == 180
