"""Lines of a run in the terminal's summary."""

from __future__ import annotations

import pytest

from pytest_manifest.reporting.next_step import stopped


@pytest.mark.parametrize(
    ("unsent", "running", "line"),
    [
        (0, 1, "  stopped: 1 entry without a verdict (1 that was running)"),
        (0, 2, "  stopped: 2 entries without a verdict (2 that were running)"),
        (3, 1, "  stopped: 4 entries without a verdict (3 not sent, 1 that was running)"),
        (1, 0, "  stopped: 1 entry without a verdict (1 not sent)"),
    ],
)
def test_a_stopped_run_counts_what_has_no_verdict(unsent: int, running: int, line: str) -> None:
    """What was not sent, and what a worker had begun."""
    assert stopped(unsent, running) == line
