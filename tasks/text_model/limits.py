"""Define what a limiter is: it decides when the next call may go; and one that never waits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol


class Limiter(Protocol):
    """Says when the next call may go; any number of threads may ask at once."""

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        """Wait for the turn of a call of ``tokens`` input tokens; the seconds waited.

        Raises Stopped as soon as ``stop`` is set, TooLong for a call that no minute has room for,
        and LimitsUnreachable where the limits cannot be read: then nothing may be sent.
        """

    def close(self) -> None:
        """Give the connections back."""


@dataclass(frozen=True, slots=True)
class Rates:
    """So many a minute; None is no limit."""

    requests: int | None = None
    tokens: int | None = None


class NoLimit:
    """Every call may go at once."""

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        """Return at once: there is nothing to wait for."""
        return 0.0

    def close(self) -> None:
        """Do nothing: no connection is held."""
