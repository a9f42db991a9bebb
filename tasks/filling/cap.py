"""Hold a batch to what its entry may cost, before each call."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.filling.report import NANO, usd


class CapReachedError(Exception):
    """A batch that ended before it cost more than its entry may; what was done is kept."""


@dataclass(frozen=True, slots=True)
class Cap:
    """``limit`` and ``earlier`` in nano dollars; the latter is what earlier attempts have paid."""

    limit: int
    earlier: int = 0

    @classmethod
    def of(cls, dollars: float, earlier: int) -> Cap:
        """Make the cap from US dollars."""
        return cls(round(dollars * NANO), earlier)

    def allows(self, spent: int, estimate: int) -> bool:
        """Return whether a call of this estimate may be begun; ``spent`` includes what is asked."""
        return self.earlier + spent + estimate <= self.limit

    def refusal(self, spent: int, estimate: int, *, filled: int, passages: int) -> CapReachedError:
        """Return the error that a batch ends with where it may not begin its next call."""
        before = f" ({usd(self.earlier):.9g} of it by earlier attempts)" if self.earlier else ""
        return CapReachedError(
            f"the entry has cost {usd(self.earlier + spent):.9g} USD{before} of a cap of "
            f"{usd(self.limit):.9g}, and the next call is estimated at {usd(estimate):.9g}: "
            f"{filled} of {passages} passages are filled and committed; plan the rest anew with a "
            "larger cap (--manifest-plan-opt cap=MORE)"
        )

    def unpriced(self, model: str, *, filled: int, passages: int) -> CapReachedError:
        """Return the error of a batch whose next call has no price that the cap could hold."""
        return CapReachedError(
            f"the entry may cost {usd(self.limit):.9g} USD, and no price of {model} holds today, "
            f"so nothing would keep to it: {filled} of {passages} passages are filled and "
            "committed; name a price table with TEXT_MODEL_PRICES, and go on with --manifest-resume"
        )
