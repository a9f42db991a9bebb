"""Define what a limiter is: it decides when the next call may go; and one that never waits."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from tasks.text_model.failures import RateLimited, Shed, Unavailable

REFUSALS: Final = (RateLimited, Shed, Unavailable)
"""Failures by which a service says that it has more to do than it can."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one call among those that may be made at the same time.

    ``waited``: seconds for it; ``allowed``: how many may be made at a time now, None: any number.
    """

    waited: float = 0.0
    allowed: int | None = None


class Limiter(Protocol):
    """Says when the next call may go; any number of threads may ask at once."""

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        """Wait for the turn of a call of ``tokens`` input tokens; the seconds waited.

        Raises Stopped as soon as ``stop`` is set, TooLong for a call that no minute has room for,
        and LimitsUnreachable where the limits cannot be read: then nothing may be sent.
        """

    def slot(self, stop: threading.Event, seconds: float) -> AbstractContextManager[Slot]:
        """Wait for a place, and hold it while the block makes its call, of so many seconds at most.

        What the block raises tells how the call went: one of ``REFUSALS`` has fewer calls made at a
        time. Raises Stopped and LimitsUnreachable as :meth:`acquire` does.
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

    def slot(self, stop: threading.Event, seconds: float) -> AbstractContextManager[Slot]:
        """Return a place at once: there is one for every call."""
        return nullcontext(Slot())

    def close(self) -> None:
        """Do nothing: no connection is held."""
