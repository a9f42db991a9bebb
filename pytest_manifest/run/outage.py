"""Patience with a broker or a result store that is out of reach."""

from __future__ import annotations

import time

PATIENCE = 60.0
"""Seconds that broker and result store may be out of reach before a run gives up."""


class FailureWindow:
    """How long something has been out of reach without a break."""

    def __init__(self) -> None:
        self._since: float | None = None

    def expired(self) -> bool:
        """Note a failure; true when they have gone on for longer than our patience."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since > PATIENCE

    def close(self) -> bool:
        """Note a success; true where there was an outage before."""
        was_out, self._since = self._since is not None, None
        return was_out
