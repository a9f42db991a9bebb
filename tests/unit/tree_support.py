"""A ledger with trees, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.schema import Receipt, Verdict
from tests.reports import add_receipts
from tests.unit.ledger_support import INFO, receipt, verdict

BEGAN = datetime(2026, 11, 24, 15, 0, 1, tzinfo=timezone.utc)


def times(begin: float, end: float) -> dict[str, Any]:
    """When a task ran, in seconds since ``BEGAN``."""
    started, finished = (BEGAN + timedelta(seconds=one) for one in (begin, end))
    return {"started_at": started, "finished_at": finished, "runtime": end - begin}


class Trees:
    """A ledger with entries and what their jobs started."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger.create(path, INFO)
        self._placed = 0

    def entry(self, name: str, kind: str = "passed", **more: Any) -> str:
        """An entry with its verdict and receipt; returns its attempt's task id."""
        root = f"t-{name}"
        self.ledger.attempts.plan([(root, name, 1, self._placed)])
        self.ledger.attempts.mark([root], "sent", sent_at=BEGAN)
        self._placed += 1
        found = receipt(name, **{"children": 0, **times(0, 1), **more})
        add_receipts(self.ledger, [(root, None, found)])
        self.ledger.verdicts.record([(verdict(name, kind), found)])
        return root

    def child(
        self,
        root: str,
        task_id: str,
        parent: str | None = None,
        *,
        kind: str | None = "passed",
        received: Mapping[str, Any] | None = None,
        execution: str | None = None,
    ) -> Descendant:
        """A descendant, with its verdict; ``received``: fields of its receipt, None: no receipt."""
        entry = root.removeprefix("t-")
        began = BEGAN + timedelta(seconds=self._placed)
        self._placed += 1
        one = Descendant(task_id, root, parent or root, f"task.{task_id}", "call", spawned_at=began)
        self.ledger.descendants.add([one])
        if kind is not None:
            self.ledger.descendants.end({task_id: verdict(entry, kind)})
        if received is not None:
            receipts = [(task_id, execution, descendant_receipt(one, entry, received))]
            add_receipts(self.ledger, receipts)
        return one

    def verdict(self, entry: str) -> Verdict:
        """The entry's verdict."""
        found = self.ledger.verdicts.of_entry(entry)
        assert found is not None
        return found.verdict


def descendant_receipt(one: Descendant, entry: str, fields: Mapping[str, Any]) -> Receipt:
    """The receipt of a descendant."""
    return receipt(
        entry,
        **{"task_id": one.task_id, "task": one.task, "children": 0, "executions": 1, **fields},
    )
