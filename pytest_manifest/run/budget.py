"""Account for the cost of a run: spent by finished attempts, reserved for those in flight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from pytest_manifest.errors import DispatchError
from pytest_manifest.schema import Entry, cost_text, exact
from pytest_manifest.verdict.problems import BudgetReached

NOTHING = Decimal(0)


class Budget:
    """Account for one run; ``limit`` in the entries' unit of cost, ``costs``: already known, by
    task id.

    Attempts in flight count by their estimates, finished ones by what they cost.
    """

    def __init__(self, limit: float, costs: Mapping[str, Decimal] | None = None) -> None:
        self.limit = exact(limit)
        self._costs = dict(costs or {})
        self._reservations: dict[str, Decimal] = {}
        self.spent = sum(self._costs.values(), NOTHING)
        self._reserved = NOTHING

    @property
    def has_reservations(self) -> bool:
        return bool(self._reservations)

    @property
    def reached(self) -> bool:
        """Return whether the money is spent, whatever is still in flight."""
        return self.spent >= self.limit and self.spent > 0

    def allows(self, entry: Entry) -> bool:
        """Return whether this entry may be sent now; one without an estimate may while money is
        left."""
        if self.reached or (entry.cost is None and not self.limit):
            return False
        return self.spent + self._reserved + exact(entry.cost) <= self.limit

    def reserve(self, task_id: str, entry: Entry) -> None:
        """Reserve the estimate of an attempt that is being sent, or is in flight already."""
        self._release(task_id)
        self._reservations[task_id] = exact(entry.cost)
        self._reserved += self._reservations[task_id]

    def cancel(self, task_id: str) -> None:
        """Release the estimate of an attempt that was not sent after all."""
        self._release(task_id)

    def charge(self, task_id: str, cost: Decimal) -> None:
        """Replace an attempt's estimate, or its earlier cost, by ``cost``."""
        self._release(task_id)
        self.spent += cost - self._costs.get(task_id, NOTHING)
        self._costs[task_id] = cost

    def _release(self, task_id: str) -> None:
        self._reserved -= self._reservations.pop(task_id, NOTHING)

    def why_closed(self, entry: Entry | None) -> BudgetReached:
        """Return why no more is sent; ``entry`` would have come next."""
        why = BudgetReached(spent=cost_text(self.spent), budget=cost_text(self.limit))
        if self.reached or entry is None:
            return why
        known = "no estimate" if entry.cost is None else f"an estimate of {cost_text(entry.cost)}"
        return why.having(estimate=known)


def refuse_beyond(
    budget: float | None, entries: Iterable[Entry], name: str, spent: Decimal = NOTHING
) -> None:
    """Raise DispatchError where the entries' estimates plus ``spent`` exceed the budget.

    ``name`` is the manifest's.
    """
    if budget is None:
        return
    count, estimated = 0, NOTHING
    for entry in entries:
        count += 1
        estimated += exact(entry.cost)
    if not count or spent + estimated <= exact(budget):
        return
    before = f"the run has cost {cost_text(spent)} already, " if spent else ""
    more = " more" if spent else ""
    noun = "1 entry is" if count == 1 else f"{count} entries are"
    raise DispatchError(
        f"{name}: nothing was sent: {before}{noun} estimated to cost {cost_text(estimated)}{more}, "
        f"and --manifest-budget is {cost_text(budget)}; send fewer (-k, or a plan with a smaller "
        "limit), or allow more with a larger --manifest-budget"
    )


def without_estimate(entries: Iterable[Entry]) -> str | None:
    """Return a message on entries that a budget cannot foresee, None where there are none."""
    count = total = 0
    for entry in entries:
        total += 1
        count += entry.cost is None
    if not count:
        return None
    return (
        f"{count} of {total} entries have no estimated cost: for the budget they count only when "
        "their receipts report a cost"
    )
