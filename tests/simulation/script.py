"""The steps of a program, as they come due."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from tests.simulation.program import Step


class Script:
    """Hands out steps, each when so many moments have passed since the one before it."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._coming = deque(steps)
        self._wait = steps[0].moments if steps else 0

    @property
    def is_over(self) -> bool:
        return not self._coming

    def due(self) -> Iterator[Step]:
        """Hand out what is due; ask for the next one only when that has happened."""
        while self._coming and self._wait <= 0:
            yield self._next()

    def pass_moment(self) -> None:
        """Let a moment pass."""
        self._wait -= 1

    def wait(self, moments: int) -> None:
        """Hold the next step back for so many moments at least."""
        self._wait = max(self._wait, moments)

    def skip_to(self, most: int) -> Iterator[Step]:
        """Hand out so many steps at most, however long they were to wait."""
        for _ in range(min(most, len(self._coming))):
            yield self._next()

    def clear(self) -> None:
        """Let nothing happen any more."""
        self._coming.clear()

    def _next(self) -> Step:
        step = self._coming.popleft()
        self._wait = self._coming[0].moments if self._coming else 0
        return step
